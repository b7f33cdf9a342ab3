import os
import subprocess
import sys

os.environ["HF_HUB_OFFLINE"] = "1"  # before open_clip is imported: a known tag fails at once

import numpy as np
import pytest
import torch
from PIL import Image

from cm3_retrieval import ClipEncoder, ClipTrainingConfig, train_clip

torch.set_num_threads(1)

TINY = ClipTrainingConfig(
    steps=3, batch_size=8, vision_width=4, text_width=32, text_layers=1, embed_dim=16, warmup=1
)


@pytest.fixture(scope="session")
def tiny() -> ClipTrainingConfig:
    return TINY


@pytest.fixture(scope="session")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def captions() -> list[str]:
    return [f"a picture of thing number {number}, things" for number in range(12)]


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory, captions, pictures):
    folder = tmp_path_factory.mktemp("clip")
    train_clip(captions, pictures, TINY, folder=folder)
    return folder


@pytest.fixture(scope="session")
def encoder(clip_folder) -> ClipEncoder:
    return ClipEncoder.load(clip_folder)


@pytest.fixture
def unit_vectors():
    """(count, dim) float32 rows of length 1."""

    def make(count: int, dim: int, seed: int = 0) -> np.ndarray:
        vectors = np.random.default_rng(seed).standard_normal((count, dim))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    return make


@pytest.fixture
def picture_folder(tmp_path, captions, pictures):
    """Twelve captioned pictures and one without a caption, named so that it comes last."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for row, (caption, picture) in enumerate(zip(captions, pictures, strict=True)):
        path = folder / f"{row:02}.png"
        Image.fromarray(picture).save(path)
        path.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")
    Image.fromarray(255 - pictures[0]).save(folder / "more" / "plain.png")
    return folder


@pytest.fixture
def heavy_after():
    """Run code in a fresh process; give the heavy modules that it imported."""
    heavy = {"faiss", "open_clip", "pyarrow", "torch", "transformers"}

    def run(code: str) -> set[str]:
        code = f"import sys\n{code}\nprint(*sys.modules.keys() & {heavy}, file=sys.stderr)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return set(done.stderr.split())

    return run
