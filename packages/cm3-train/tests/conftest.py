"""A model and data small enough that a whole run takes a second."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cm3_train import write_shards

EOS, BREAK, INFILL = 1, 2, 4
MASKS = (3, 5, 6, 7)
TEXT = 20  # text ids 8..19, image ids 20..35
CODES = 16
GRID = (3, 4)
VOCAB = TEXT + CODES


class TinyModel(nn.Module):
    """Running mean of embeddings, one mixing layer: causal, and it learns."""

    def __init__(self, width: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.token_embedding = nn.Embedding(VOCAB, width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(3 * width, width, bias=False)
        self.gain = nn.Parameter(torch.ones(width))
        self.dropout = nn.Dropout(dropout)
        with torch.no_grad():
            for p in (self.token_embedding.weight, self.qkv.weight, self.mix.weight):
                p.normal_(0, 0.3, generator=generator)

    def hidden(self, input_ids: Tensor) -> Tensor:
        x = self.token_embedding(input_ids)
        count = torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]
        x = x + x.cumsum(1) / count
        return x + self.dropout(self.mix(torch.tanh(self.qkv(x)))) * self.gain

    def head(self, hidden: Tensor) -> Tensor:
        return hidden @ self.token_embedding.weight.T


def lay_out(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    ids: list[int] = []
    for text, codes in pairs:
        ids += [BREAK] if ids else [EOS]
        ids += [*map(int, text), BREAK, *(TEXT + int(code) for code in codes)]
    return np.array([*ids, EOS], dtype=np.int64)


def make_rows(count: int = 10, views: int = 1) -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        {
            "key": 100 + 7 * key,
            "view": view,
            "text_ids": np.arange(8, 8 + 1 + key % 5),
            "codes": rng.integers(0, CODES, GRID[0] * GRID[1]),
            "caption": f"picture {key}",
            "source": "made",
        }
        for key in range(count)
        for view in range(views)
    ]


@pytest.fixture
def tiny() -> SimpleNamespace:
    return SimpleNamespace(
        Model=TinyModel,
        lay_out=lay_out,
        rows=make_rows,
        grid=GRID,
        num_codes=GRID[0] * GRID[1],
        vocab_size=VOCAB,
        image_range=(TEXT, VOCAB),
        pad_id=0,
        break_id=BREAK,
        infill_id=INFILL,
        mask_ids=MASKS,
        ids={"eos_id": EOS, "break_id": BREAK, "infill_id": INFILL, "mask_ids": MASKS},
    )


def shard_rows(count=10, views=1, codes=6):
    rng = np.random.default_rng(0)
    for view in range(views):
        for n in range(count):
            yield {
                "key": (n * 37) % 101,
                "view": view,
                "text_ids": list(range(n)),
                "codes": rng.integers(0, 9000, codes).tolist(),
                "caption": f"picture {n} é",
                "source": "made",
                "licence": "CC0" if n % 2 else "",
            }


def write_rows(folder, given=None, **changes):
    options = {"codes_per_image": 6, "vocabulary_sha256": "abc", "rows_per_shard": 4, **changes}
    return write_shards(shard_rows() if given is None else given, folder, **options)


def shard_paths(folder):
    return sorted(folder.glob("shard-*.arrow"))


@pytest.fixture
def made() -> SimpleNamespace:
    """Rows of token shards, what writes them, and the files that it wrote."""
    return SimpleNamespace(rows=shard_rows, write=write_rows, files=shard_paths)
