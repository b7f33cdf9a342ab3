"""Shared by the tests across packages: no test may wait for the network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is first imported


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def smoke_run(root, tmp_path_factory) -> Path:
    """A finished run of the smoke recipe that nobody disturbed; tests must leave it as it is."""
    runs = tmp_path_factory.mktemp("smoke")
    command = [sys.executable, str(root / "apps/pretrain.py")]
    command += ["--config", "apps/configs/smoke.yaml", "--runs", str(runs)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return runs / "smoke"
