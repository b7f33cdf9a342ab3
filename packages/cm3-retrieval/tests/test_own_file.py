import numpy as np
import pytest

from cm3_retrieval.bank.quality import save_histogram
from cm3_retrieval.contact_sheet import write_contact_sheet
from cm3_retrieval.own_file import MARK, check_output


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_contact_sheet(path, "t" * 5000, [{"key": 1}], [0.5]),
        lambda path: save_histogram(np.linspace(0, 1, 99), path),
    ],
)
def test_what_a_command_wrote_may_be_written_again(tmp_path, write):
    path = tmp_path / "out"
    for _ in range(2):
        check_output("--out", path)
        write(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"mine", b"<!doctype html><title>mine</title>", b"\x89PNG", b"x" * 4096 + MARK.encode()],
)
def test_a_file_of_another_is_not_replaced(tmp_path, content):
    (tmp_path / "out").write_bytes(content)
    with pytest.raises(ValueError, match="--html: .*out is there already, and cm3-retrieval did"):
        check_output("--html", tmp_path / "out")


def test_folders_and_links_are_not_replaced_and_a_missing_folder_is_named(tmp_path):
    check_output("--html", None)
    check_output("--html", tmp_path / "new.html")
    write_contact_sheet(tmp_path / "own.html", "title", [], [])
    (tmp_path / "link.html").symlink_to("own.html")
    (tmp_path / "broken.html").symlink_to("gone.html")
    (tmp_path / "folder.html").mkdir()
    for name in ("link.html", "broken.html", "folder.html"):
        with pytest.raises(ValueError, match=f"{name} is there already"):
            check_output("--html", tmp_path / name)
    with pytest.raises(ValueError, match="--html: wanted a folder that is there, got .*nowhere"):
        check_output("--html", tmp_path / "nowhere" / "a.html")
