"""What a preparation will need, said before it begins."""

from __future__ import annotations

import numpy as np

from cm3_retrieval.index.plan import expected_bytes
from cm3_retrieval.interface import Encoder
from cm3_retrieval.picture_file import MAX_PIXELS
from cm3_train.process_memory import peak_bytes
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.preparation.decisions import BYTES_A_PAIR
from cm3leon.preparation.encoding import BATCH
from cm3leon.preparation.job import Job
from cm3leon.preparation.source import Shard

TABLES = 150
"""Bytes a pair of both neighbour tables while they are joined."""


def memory_plan(
    job: Job, shards: list[Shard], tokenizers: Tokenizers, encoder: Encoder
) -> list[str]:
    """Return lines on the expected peak of memory; takes one batch through the models to know."""
    size = job.recipe.data.size
    pixels = np.zeros((BATCH, size, size, 3), np.uint8)
    tokenizers.encode(pixels)
    encoder.encode_images(list(pixels))
    encoder.encode_texts(["a"] * BATCH)
    mine, dim = peak_bytes(), encoder.dim
    rows = [shard.rows for shard in shards]
    known = None not in rows
    pairs = sum(row or 0 for row in rows) if known else 10**6
    bank = expected_bytes(pairs, dim)
    more = pairs * BYTES_A_PAIR, bank["build"] + pairs * TABLES
    sized = f"{pairs:,} records" if known else "a million pairs (their number is not known)"
    return [
        f"memory: each of {job.options.workers} workers about {gigabytes(mine)}, measured on a "
        f"batch of {BATCH}, and up to {gigabytes(6 * MAX_PIXELS)} more while it decodes a picture "
        f"of {MAX_PIXELS // 10**6} megapixels",
        f"memory: this process about {gigabytes(mine + max(more))} for {sized}: the models, and "
        f"then {gigabytes(more[0])} for what is decided of all pairs or {gigabytes(more[1])} for "
        f"the bank and the tables",
        f"memory: in the second pass a worker maps the bank, {gigabytes(bank['disk'])}, from its "
        "files; pages that are read stay in memory while there is room",
    ]


def gigabytes(count: float) -> str:
    """Return a number of bytes for people."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.0f} MiB"
