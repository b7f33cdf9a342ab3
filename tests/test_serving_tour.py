"""The page of a real run in a real browser: it draws, teaches, infills, edits and describes."""

import shutil
import subprocess
import sys

import pytest
from PIL import Image


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="wants the program `chromium`")
def test_a_browser_uses_all_of_a_tuned_run(root, smoke_tuned, tmp_path):
    command = [sys.executable, "docs/screenshots.py", "--run", str(smoke_tuned)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    names = {path.stem for path in tmp_path.glob("*.png")}
    assert names == {f"serve-{name}" for name in ("draw", "teach", "infill", "edit", "describe")}
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.size == (1280, 960)
