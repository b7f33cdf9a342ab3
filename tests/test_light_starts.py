"""Nobody waits for what a command does not use."""

import subprocess
import sys

import pytest

APPS = ["pretrain", "generate", "plan", "prepare", "serve", "train_imagetok"]
NOT_FOR_DRAWING = ("lightning", "matplotlib", "torch_fidelity", "resvg_py", "tensorboard")


def loaded(root, code):
    """Modules that a fresh interpreter has loaded after the code."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys\n{code}\nprint('\\n'.join(sys.modules), file=sys.stderr)",
        ],
        cwd=root / "apps",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.apps
@pytest.mark.parametrize("app", APPS)
def test_help_of_an_app_is_light(root, app):
    code = f"""
import {app}
try:
    {app}.main(["--help"])
except SystemExit as end:
    assert not end.code
"""
    assert not {"torch", *NOT_FOR_DRAWING} & loaded(root, code)


@pytest.mark.slow
def test_drawing_loads_no_training(root):
    modules = loaded(root, "import cm3leon.generate")
    assert "torch" in modules
    assert not set(NOT_FOR_DRAWING) & modules
