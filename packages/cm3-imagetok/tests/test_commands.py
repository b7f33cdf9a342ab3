import os
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from cm3_imagetok import (
    PRESETS,
    VQGAN,
    VQGANConfig,
    export_vqgan,
    load_vqgan,
    psnr,
    square,
    to_tensor,
)
from cm3_imagetok.cli import main


def test_encode_and_decode_are_the_models(model, pictures, tmp_path, capsys):
    codes, drawn = tmp_path / "codes", tmp_path / "drawn"
    assert main(["encode", model, str(pictures), "--out", str(codes), "--batch-size", "2"]) == 0
    assert "3 files of codes" in capsys.readouterr().out
    wanted = load_vqgan(model)
    for name in ("a", "b", "c"):
        image = to_tensor(np.asarray(square(Image.open(pictures / f"{name}.png"), 16))[None])
        found = np.load(codes / f"{name}.npy")
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, wanted.encode(image)[0])
    files = [str(path) for path in sorted(codes.glob("*.npy"))]
    assert main(["decode", model, *files, "--out", str(drawn)]) == 0
    decoded = wanted.decode(torch.from_numpy(np.load(codes / "b.npy")).long()[None])
    pixels = np.asarray(Image.open(drawn / "b.png"))
    assert float((to_tensor(pixels[None]) - decoded).abs().max()) < 1 / 127


def test_reconstruct_shows_both_and_the_psnr(model, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(["reconstruct", model, str(pictures / "a.png"), "--out", str(out), "--size", "32"])
        == 0
    )
    printed = float(re.search(r"a\.png: PSNR ([\d.]+) dB", capsys.readouterr().out)[1])
    picture = np.asarray(Image.open(out / "a.png"))
    assert picture.shape == (32 + 16, 64, 3)
    pair = to_tensor(picture[None, :32])
    original = np.asarray(square(Image.open(pictures / "a.png"), 32))
    np.testing.assert_array_equal(picture[:32, :32], original)
    assert float(psnr(pair[..., 32:], pair[..., :32])) == pytest.approx(printed, abs=0.05)
    assert picture[32:].min() < 100  # the caption


def test_broken_pictures_stop_or_are_counted(model, pictures, tmp_path, capsys):
    (pictures / "b.png").write_bytes(b"")
    arguments = ["encode", model, str(pictures), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert re.fullmatch(r"cm3-imagetok: .*b\.png: wanted 1 to .*\n", capsys.readouterr().err)
    assert main([*arguments, "--on-error", "skip"]) == 0
    assert "1 of 3 pictures skipped" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").glob("*.npy")} == {"a.npy", "c.npy"}


def test_a_command_replaces_no_picture(model, pictures, tmp_path, capsys):
    """Neither the pictures that it reads, nor others; what it wrote itself it may replace."""
    before = {path.name: path.read_bytes() for path in pictures.iterdir()}
    mine = str(pictures)
    assert main(["reconstruct", model, mine, "--out", mine]) == 1
    assert "a.png would replace a file that is read" in capsys.readouterr().err
    assert main(["encode", model, mine, "--out", mine]) == 0
    assert main(["decode", model, mine, "--out", mine]) == 1
    assert "a.png is there already, and cm3-imagetok did not write it" in capsys.readouterr().err
    assert main(["decode", model, str(pictures / "b.npy"), "--out", mine]) == 1
    assert main(["encode", model, mine, "--out", mine]) == 0  # its own files, again
    assert {path.name: path.read_bytes() for path in pictures.glob("*.png")} == before


def test_what_is_no_picture_in_a_folder_does_not_count(model, pictures, tmp_path, capsys):
    for name in ("a.txt", "a.json", "metadata.jsonl", "._a.png", ".DS_Store", "b.npy"):
        (pictures / name).write_text("no picture")
    (pictures / "sub").mkdir()
    (pictures / "a.png").rename(pictures / "sub/b.png")
    out = tmp_path / "out"
    assert main(["encode", model, str(pictures), "--out", str(out)]) == 0
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.npy"))
    assert found == ["b.npy", "c.npy", "sub/b.npy"]
    # but a file that is named is wanted
    assert main(["encode", model, str(pictures / "a.txt"), "--out", str(tmp_path / "o")]) == 1
    assert "a.txt: no picture" in capsys.readouterr().err


def test_decode_takes_a_folder(model, pictures, tmp_path, capsys):
    (pictures / "sub").mkdir()
    (pictures / "a.png").rename(pictures / "sub/a.png")
    codes, drawn = str(tmp_path / "codes"), tmp_path / "drawn"
    assert main(["encode", model, str(pictures), "--out", codes]) == 0
    assert main(["decode", model, codes, "--out", str(drawn)]) == 0
    assert "3 pictures in" in capsys.readouterr().out
    found = sorted(path.relative_to(drawn).as_posix() for path in drawn.rglob("*.png"))
    assert found == ["b.png", "c.png", "sub/a.png"]
    assert main(["decode", model, str(drawn), "--out", str(tmp_path / "o")]) == 1
    assert "drawn: wanted .npy files, found none" in capsys.readouterr().err


def test_import_reports_and_writes_each_layout(tmp_path, capsys):
    config = VQGANConfig(image_size=32, channels=32, channel_multipliers=(1, 1), num_codes=16)
    export_vqgan(VQGAN(config), tmp_path / "vq.ckpt", "taming")
    for layout, name in (("cm3-imagetok", "ours"), ("hugging-face", "hf"), ("taming", "t.ckpt")):
        arguments = ["--image-size", "32", "--out", str(tmp_path / name), "--layout", layout]
        assert main(["import", str(tmp_path / "vq.ckpt"), *arguments]) == 0
        printed = capsys.readouterr().out
        assert "layout: taming" in printed and f"({layout})" in printed
        assert main(["info", str(tmp_path / name)]) == 0
        assert ("missing: decoder" in capsys.readouterr().out) == (name == "hf")


def test_a_folder_whose_name_is_no_utf8_is_printed_escaped(tmp_path, capsys):
    """Standard output in strict UTF-8, as `capsys` has it, ends no command after its work."""
    config = VQGANConfig(image_size=32, channels=32, channel_multipliers=(1, 1), num_codes=16)
    export_vqgan(VQGAN(config), tmp_path / "vq.ckpt", "taming")
    out = str(tmp_path / os.fsdecode(b"b\xff\x1b11"))
    assert main(["import", str(tmp_path / "vq.ckpt"), "--image-size", "32", "--out", out]) == 0
    assert r"b\xff\x1b11 (cm3-imagetok)" in capsys.readouterr().out


def test_import_replaces_nothing(tmp_path, capsys):
    source, folder = tmp_path / "vq.ckpt", tmp_path / "folder"
    config = VQGANConfig(image_size=32, channels=32, channel_multipliers=(1, 1), num_codes=16)
    export_vqgan(VQGAN(config), source, "taming")
    export_vqgan(VQGAN(config), folder, "hugging-face")
    before = source.read_bytes()
    for out, layout in ((source, "taming"), (folder, "cm3-imagetok"), (folder, "hugging-face")):
        assert main(["import", str(source), "--out", str(out), "--layout", layout]) == 1
        assert f"{out} is there already" in capsys.readouterr().err
    assert source.read_bytes() == before


def test_info_of_a_preset(capsys):
    assert main(["info", "tiny-64"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^in all: [\d,]+ parameters$", printed, re.MULTILINE)
    assert f"num_codes: {PRESETS['tiny-64'].num_codes}" in printed


def test_progress_shows_the_time_left_on_a_terminal(model, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    arguments = ["encode", model, str(pictures), "--out", str(tmp_path / "o"), "--batch-size", "1"]
    assert main(arguments) == 0
    shown = capsys.readouterr().err
    assert re.search(r"encode \[#+ *\] 2/3, \d+:\d\d left", shown) and "3/3" in shown


def test_lines_do_not_run_into_the_progress(model, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    (pictures / "b.png").write_bytes(b"")
    arguments = ["encode", model, str(pictures), "--out", str(tmp_path / "o"), "--batch-size", "1"]
    assert main([*arguments, "--on-error", "skip"]) == 0
    shown = capsys.readouterr().err
    assert re.search(r"1/3, \d+:\d\d left \r\x1b\[Kskipped: .*b\.png: wanted 1 to .*\n\r", shown)
