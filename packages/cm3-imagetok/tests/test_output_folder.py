import os
from pathlib import Path

import pytest

from cm3_imagetok.output_folder import OutputFolder


def of(folder: Path, *names: str) -> list[tuple[Path, Path]]:
    return [(folder / name, Path(name)) for name in names]


def put(out: OutputFolder, source: Path, content: bytes) -> Path:
    return out.write(source, lambda file: file.write(content))


def test_results_keep_the_place_of_their_sources(tmp_path):
    out = OutputFolder(tmp_path / "out", of(tmp_path, "0.jpg", "sub/0.jpg"), ".png")
    assert put(out, tmp_path / "sub/0.jpg", b"x") == tmp_path / "out/sub/0.png"
    assert (tmp_path / "out/sub/0.png").read_bytes() == b"x"
    assert not (tmp_path / "out/0.png").exists()


def test_a_result_replaces_no_source(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/cat.png").write_bytes(b"original")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for out in (tmp_path / "mine", tmp_path / "link", tmp_path / "mine/../mine"):
        with pytest.raises(ValueError, match=r"cat\.png would replace a file that is read"):
            OutputFolder(out, of(tmp_path / "mine", "cat.png"), ".png")


def test_what_another_program_wrote_is_not_replaced(tmp_path):
    sources, folder = of(tmp_path, "a.jpg", "b.jpg"), tmp_path / "out"
    put(OutputFolder(folder, sources, ".png"), tmp_path / "a.jpg", b"ours")
    put(OutputFolder(folder, sources, ".png"), tmp_path / "a.jpg", b"ours, again")
    assert (folder / "a.png").read_bytes() == b"ours, again"
    (folder / "b.png").write_bytes(b"theirs")
    with pytest.raises(ValueError, match=r"b\.png is there already, and cm3-imagetok did not"):
        OutputFolder(folder, sources, ".png")
    (folder / "b.png").unlink()
    (folder / "b.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"b\.png is there already"):
        OutputFolder(folder, sources, ".png")


def test_two_sources_of_one_result_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"a\.jpg and .*a\.png would both become a\.npy"):
        OutputFolder(tmp_path, of(tmp_path, "a.jpg", "a.png"), ".npy")
    OutputFolder(tmp_path, of(tmp_path, "a.jpg", "sub/a.jpg"), ".npy")


def test_names_that_are_no_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    for _ in range(2):
        out = OutputFolder(tmp_path, of(tmp_path / "in", name), ".png")
        assert os.fsencode(put(out, tmp_path / "in" / name, b"x").name) == b"caf\xe9.png"


def test_nothing_is_made_before_the_first_result(tmp_path):
    OutputFolder(tmp_path / "out", of(tmp_path, "a.jpg"), ".png")
    assert not (tmp_path / "out").exists()
