import pytest

import cm3_imagetok


def test_every_public_name_is_there_and_no_other():
    assert sorted(cm3_imagetok._MODULES) == sorted(cm3_imagetok.__all__)
    for name in cm3_imagetok.__all__:
        assert getattr(cm3_imagetok, name) is not None
        assert name in dir(cm3_imagetok)
    with pytest.raises(AttributeError, match="no attribute 'paint'"):
        _ = cm3_imagetok.paint
