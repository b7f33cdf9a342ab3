import subprocess
import sys

import numpy as np
import pytest

from cm3_imagetok.cli import main


def test_failures_are_one_line_with_status_1(model, pictures, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    (tmp_path / "a.jpg").write_bytes((pictures / "a.png").read_bytes())
    np.save(tmp_path / "float.npy", np.zeros((2, 2)))
    np.save(tmp_path / "large.npy", np.full((2, 2), 999))
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "none").mkdir()
    picture = str(pictures / "a.png")
    cases = {
        "no such file": ["info", str(tmp_path / "nothing.ckpt")],
        "multiples of 4": ["encode", model, picture, "--size", "18", *out],
        "would both become a.npy": ["encode", model, picture, str(tmp_path / "a.jpg"), *out],
        "none: wanted pictures (.png, ": ["encode", model, str(tmp_path / "none"), *out],
        "got float64": ["decode", model, str(tmp_path / "float.npy"), *out],
        "got 999 to 999": ["decode", model, str(tmp_path / "large.npy"), *out],
        "text.npy: wanted": ["decode", model, str(tmp_path / "text.npy"), *out],
    }
    for message, arguments in cases.items():
        assert main(arguments) == 1, message
        error = capsys.readouterr().err
        assert error.startswith("cm3-imagetok: ") and message in error and error.count("\n") == 1


def test_wrong_usage_exits_with_2_and_help_with_0(capsys):
    for arguments, code in ((["--help"], 0), (["encode", "--help"], 0), (["paint"], 2), ([], 2)):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == code
    assert "encode" in capsys.readouterr().out


def test_it_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "cm3_imagetok.cli", "info", "no-such-preset"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "no-such-preset" in done.stderr


def test_help_comes_without_torch():
    code = (
        "import sys\nfrom cm3_imagetok.cli import main\n"
        "try: main(['encode', '--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--batch-size" in done.stdout
