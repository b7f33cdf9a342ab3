"""Shared by the tests across packages: no test may wait for the network."""

import os
import sys
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is first imported
sys.path.insert(0, str(Path(__file__).parents[1] / "apps"))  # as Python does for a script there


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return Path(__file__).parents[1]
