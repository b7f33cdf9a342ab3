"""From prompts to pictures with a run's parts: retrieval, prompt, decoding, VQGAN."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from pipeline import Run

from cm3_decoding import CodeBlock, SamplingConfig, generate
from cm3_imagetok import to_pixels
from cm3_retrieval import inference_context

Pair = tuple[np.ndarray, np.ndarray]


def retrieve(run: Run, caption: str, count: int) -> list[int]:
    """Keys of the documents that stand before a new prompt, the best last."""
    if count == 0:
        return []
    vector = run.encoder.encode_texts([caption])[0]
    found = inference_context(run.bank, {"text": vector}, run.recipe.retrieval.strategy, count)
    return found[::-1]


def fitting(run: Run, keys: Sequence[int], prompt_length: int, new_ids: int) -> list[int]:
    """The last of ``keys`` whose documents fit before a prompt of that length and its answer.

    Training leaves out documents that do not fit, too.
    """
    room = run.recipe.decoder.max_length - prompt_length - new_ids
    kept: list[int] = []
    for key in reversed(keys):
        room -= len(run.shards.text_ids(key)) + len(run.shards.codes(key)) + 2  # two <break>
        if room < 0:
            break
        kept.insert(0, key)
    return kept


def documents(run: Run, keys: Sequence[int]) -> list[Pair]:
    """Text ids and codes of documents of the memory bank."""
    return [(run.shards.text_ids(key), run.shards.codes(key)) for key in keys]


def image_prompts(
    run: Run, captions: Sequence[str], contexts: Sequence[Sequence[int]]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Prompts that ask for a picture, and the same without their caption, for guidance."""
    texts = run.tokenizer.encode_batch(list(captions))
    length = run.grid[0] * run.grid[1]
    pairs = [
        documents(run, fitting(run, keys, len(run.layout.image_prompt(text)), length))
        for text, keys in zip(texts, contexts, strict=True)
    ]
    conditional = [
        run.layout.image_prompt(text, context) for text, context in zip(texts, pairs, strict=True)
    ]
    unconditional = [run.layout.unconditional_prompt(context) for context in pairs]
    return [torch.from_numpy(p) for p in conditional], [torch.from_numpy(p) for p in unconditional]


def picture_block(run: Run) -> CodeBlock:
    """The constraint of one whole picture."""
    block = run.vocabulary.image
    length = run.grid[0] * run.grid[1]
    return CodeBlock(start=block.offset, stop=block.stop, length=length)


def draw(
    run: Run,
    captions: Sequence[str],
    contexts: Sequence[Sequence[int]],
    config: SamplingConfig,
    seeds: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
    batch_size: int = 32,
) -> np.ndarray:
    """Draw one picture for each caption: pixels (N, H, W, 3) uint8.

    Args:
        run: The parts.
        captions: N prompts.
        contexts: Keys of the documents that stand before each.
        config: How codes are chosen.
        seeds: One a picture.
        progress: Called with (steps done, steps in all).
        batch_size: Pictures drawn at once; does not change them.
    """
    conditional, unconditional = image_prompts(run, captions, contexts)
    pictures = []
    starts = range(0, len(captions), batch_size)
    for done, start in enumerate(starts):

        def report(step: int, steps: int, done: int = done) -> None:
            if progress is not None:
                progress(done * steps + step, len(starts) * steps)

        part = slice(start, start + batch_size)
        ids = generate(
            run.model,
            conditional[part],
            unconditional=unconditional[part],
            constraint=picture_block(run),
            config=config,
            seeds=seeds[part],
            progress=report,
        )
        pictures.append(pixels_of_ids(run, torch.stack(ids)))
    return np.concatenate(pictures)


def pixels_of_ids(run: Run, ids: torch.Tensor) -> np.ndarray:
    """Pixels (N, H, W, 3) uint8 of image ids (N, h * w)."""
    return pixels_of_codes(run, run.vocabulary.ids_to_codes(ids.numpy()))


def pixels_of_codes(run: Run, codes: np.ndarray) -> np.ndarray:
    """Pixels (N, H, W, 3) uint8 of codes (N, h * w)."""
    grid = torch.from_numpy(np.asarray(codes, np.int64)).view(-1, *run.grid)
    return to_pixels(run.image_tokenizer.decode(grid))
