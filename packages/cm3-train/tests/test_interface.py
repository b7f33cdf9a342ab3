import pytest

from cm3_train.interface import INTERFACE_VERSION, check_stamp, stamp


def test_own_stamp_passes():
    check_stamp(stamp("a"), "a", "file")
    check_stamp({"component": "a", "interface_version": "1.99"}, "a", "file")


@pytest.mark.parametrize(
    "artifact",
    [{}, stamp("b"), {"component": "a", "interface_version": "2.0"}, {"component": "a"}],
)
def test_strangers_do_not(artifact):
    with pytest.raises(ValueError, match="file: wanted"):
        check_stamp(artifact, "a", "file")


def test_version_has_two_parts():
    assert len(INTERFACE_VERSION.split(".")) == 2
