"""Candidates of a prompt with retrieved documents: keys and values kept once, or for each.

    uv run python benchmarks/shared_prompts.py --out FILE

The decoder of decode.py, with random weights, draws `--candidates` pictures with guidance behind
two documents; the streams of guidance share them. `time_with_sharing_over_without` and
`memory_with_sharing_over_without` (keys and values) compare this with a cache in which every row
has a prompt of its own, in alternating rounds. `same_ids` tells whether all drawn ids are equal.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from decode import GUIDED, SMALL
from timing import alternate, machine_facts, medians, report
from torch import Tensor

from cm3_decoding import CodeBlock, generate
from cm3_model import Decoder, pack_weights
from cm3_model.kv_cache import KVCache

TEXT = 20


class Cached:
    """A decoder that keeps its last cache in sight."""

    def __init__(self, decoder: Decoder, shares: bool) -> None:
        self.prefill, self.decode_one_token = decoder.prefill, decoder.decode_one_token
        self.decoder, self.shares = decoder, shares
        self.cache: KVCache | None = None

    def make_cache(self, batch_size: int, length: int) -> KVCache:
        self.cache = None
        self.cache = self.decoder.make_cache(batch_size, length)
        self.cache.shares_prefixes = self.shares
        return self.cache


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--candidates", type=int, default=32)
    parser.add_argument("--codes", type=int, default=1024, help="of a picture, documents' too")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)

    draw = torch.Generator().manual_seed(0)
    decoder = Decoder(replace(SMALL, max_length=4096), draw).eval()
    for weight in decoder.parameters():  # the residual projections start as 0
        if weight.ndim == 2:
            weight.normal_(0, 0.02, generator=draw)
    pack_weights(decoder, 2 * given.candidates)
    documents = torch.randint(4, 8000, (2 * (given.codes + TEXT),), generator=draw)
    texts = torch.randint(8196, 12000, (TEXT,), generator=draw), torch.tensor([8200, 8201])
    prompt, without = (torch.cat([documents, text]) for text in texts)
    models = {"with": Cached(decoder, True), "without": Cached(decoder, False)}
    drawn: dict[str, list[Tensor]] = {}

    def pictures(name: str) -> None:
        drawn[name] = generate(
            models[name],
            [prompt] * given.candidates,
            unconditional=[without] * given.candidates,
            constraint=CodeBlock(start=4, stop=8196, length=given.codes),
            seeds=range(given.candidates),
            config=GUIDED,
        )

    calls: dict[str, Callable[[], object]] = {name: partial(pictures, name) for name in models}
    seconds = medians(alternate(calls, given.rounds, warm_up=False))
    memory = {name: model.cache.nbytes for name, model in models.items() if model.cache}
    table: dict[str, Any] = {
        "time_with_sharing_over_without": seconds["with"] / seconds["without"],
        "memory_with_sharing_over_without": memory["with"] / memory["without"],
        "same_ids": all(map(torch.equal, drawn["with"], drawn["without"])),
        "mebibytes_with_sharing": memory["with"] / 2**20,
        "candidates": given.candidates,
        "codes": given.codes,
        "prompt": len(prompt),
        "torch": torch.__version__,
        **machine_facts(given.threads),
    }
    report(table, given.out)


if __name__ == "__main__":
    main()
