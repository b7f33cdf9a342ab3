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
    files = [str(path) for path in sorted(codes.iterdir())]
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
    assert main(arguments) == 2
    assert re.fullmatch(r"cm3-imagetok: .*b\.png: wanted 1 to .*\n", capsys.readouterr().err)
    assert main([*arguments, "--on-error", "skip"]) == 0
    assert "1 of 3 pictures skipped" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.npy", "c.npy"}


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
