import os
from pathlib import Path

import pytest

from cm3_retrieval.utf8_path import utf8_path


@pytest.mark.parametrize("name", [b"plain", "größe".encode(), b"caf\xe9", b"\xff\xfe"])
def test_the_same_file_under_a_name_in_utf8(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(b"content")
    with utf8_path(path) as given:
        given.encode()
        assert Path(given).read_bytes() == b"content"
    assert path.read_bytes() == b"content"


def test_the_link_goes_and_a_plain_path_is_not_linked(tmp_path):
    with utf8_path(tmp_path / "a") as given:
        assert given == str(tmp_path / "a")
    with utf8_path(tmp_path / os.fsdecode(b"\xe9")) as given:
        link = Path(given)
        assert link.is_symlink()
    assert not link.parent.exists()
