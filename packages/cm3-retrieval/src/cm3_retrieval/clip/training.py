"""Training of a small CLIP on your own captioned pictures, in a minute or two on two CPU cores.

Takes captions and (N, H, W, 3) uint8 pictures; gives a folder for `ClipEncoder.load`. Symmetric
InfoNCE as in CLIP (arXiv 2103.00020), and vectors that are as alike as their captions' words (see
`caption_likeness`). The paper (2.1) uses published weights; a small CLIP replaces them where
nothing may be downloaded.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.model import CLIP
from open_clip.transform import PreprocessCfg
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from cm3_retrieval.clip.caption_likeness import CaptionLikeness
from cm3_retrieval.clip.encoder import CONFIG_NAME, WEIGHTS_NAME, ClipEncoder
from cm3_retrieval.clip.open_clip_models import bundled_tokenizer
from cm3_retrieval.clip.training_config import ClipTrainingConfig
from cm3_retrieval.interface import ENCODER_COMPONENT
from cm3_retrieval.sealed_folder import check_target, write_folder

_VOCAB_SIZE = 49408
"""Size of the BPE that is bundled with open_clip."""
_EMPHASIS = 10.0
"""How much more the error of a likeness of 1 counts, less 1, than that of a likeness of 0: alike
captions are few."""
_PICTURES = 3.0
"""How much more the likeness of pictures, with texts and with each other, counts than that of texts
alone, which is learnt in no time."""


def train_clip(
    captions: Sequence[str],
    images: np.ndarray,
    config: ClipTrainingConfig,
    *,
    groups: Sequence[int] | None = None,
    folder: Path | str,
    progress: Callable[[int, int, float], None] | None = None,
) -> ClipEncoder:
    """Train a CLIP and write it; the same data, config and threads give the same bytes.

    Args:
        captions: N texts.
        images: (N, H, W, 3) uint8.
        config: Model and training.
        groups: N integers; rows of one group, such as two pictures under one caption, are not
            negatives of each other. None makes each row a group of its own.
        folder: Where to write the weights and then `clip_config.json`.
        progress: Called with (step, steps, loss) after each step.

    Returns:
        The encoder, opened from the folder.

    Raises:
        ValueError: Shapes or counts do not match, loss or weights are not finite, or `folder` holds
            the `clip_config.json` of something else.
    """
    check_target(folder, CONFIG_NAME, ENCODER_COMPONENT)
    count = len(captions)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(
            f"images: wanted uint8 of shape (N, H, W, 3), got {images.dtype} of {images.shape}"
        )
    if count < 2 or len(images) != count:
        raise ValueError(f"images: wanted one a caption and at least 2, got {len(images)}, {count}")
    group_of = torch.arange(count) if groups is None else torch.as_tensor(list(groups))
    if len(group_of) != count:
        raise ValueError(f"groups: wanted {count}, one a caption, got {len(group_of)}")
    input_ids = bundled_tokenizer(config.context_length)(list(captions))  # (N, L)
    pictures = _resized(images, config.image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed or 0)
        model = CLIP(**_model_arguments(config)).train()
        model.visual.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
        used = torch.unique(input_ids)
        full_table: Any = model.token_embedding  # (49408, W)
        table = _rows_of_table(full_table, used)
        model.token_embedding = table
        likeness = CaptionLikeness(captions)
        input_ids = torch.searchsorted(used, input_ids)
        _fit(model, input_ids, pictures, group_of, likeness, config, progress)
    with torch.no_grad():
        full_table.weight[used] = table.weight
    model.token_embedding = full_table
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    write_folder(
        folder,
        CONFIG_NAME,
        ENCODER_COMPONENT,
        {WEIGHTS_NAME: lambda file: file.write(save(weights))},
        {"name": "clip", "model": _model_arguments(config), "training": asdict(config)},
    )
    return ClipEncoder.load(folder)


def _model_arguments(config: ClipTrainingConfig) -> dict[str, Any]:
    return {
        "embed_dim": config.embed_dim,
        "vision_cfg": {
            "layers": list(config.vision_layers),
            "width": config.vision_width,
            "head_width": 64,
            "image_size": config.image_size,
        },
        "text_cfg": {
            "context_length": config.context_length,
            "vocab_size": _VOCAB_SIZE,
            "width": config.text_width,
            "heads": config.text_width // 32,
            "layers": config.text_layers,
        },
    }


def _rows_of_table(full_table: nn.Embedding, used: Tensor) -> nn.Embedding:
    """Return a table of the tokens that occur, so that the optimiser skips 49,000 idle rows.

    Example: with used = [5, 9, 49407], token 9 becomes row 1. The end token still has the largest
    id, by which CLIP's text tower finds it.
    """
    table = nn.Embedding(len(used), full_table.embedding_dim)
    with torch.no_grad():
        table.weight.copy_(full_table.weight[used])
    return table


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    if images.shape[1:3] == (size, size):
        return images
    resample = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(i).resize((size, size), resample)) for i in images])


def _fit(
    model: CLIP,
    input_ids: Tensor,
    pictures: np.ndarray,
    group_of: Tensor,
    likeness: CaptionLikeness,
    config: ClipTrainingConfig,
    progress: Callable[[int, int, float], None] | None,
) -> None:
    rng = np.random.default_rng(config.seed or 0)
    batch_size = min(config.batch_size, len(pictures))
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    queue = np.empty(0, np.int64)  # rows left in this pass over the data
    for step in range(config.steps):
        if len(queue) < batch_size:
            queue = rng.permutation(len(pictures))
        rows, queue = queue[:batch_size], queue[batch_size:]
        for group in optimizer.param_groups:
            group["lr"] = config.lr * _schedule(step, config)
        inputs = _as_input(_augmented(pictures[rows], rng, config.max_shift))
        texts = rows
        if config.likeness_weight:
            texts = np.concatenate([rows, likeness.partners(rows, rng)])
        image_vectors, text_vectors, scale = _vectors(model, inputs, input_ids[texts])
        logits = scale * image_vectors @ text_vectors[: len(rows)].T  # (B, B)
        loss = _contrast(logits, group_of[rows])
        if config.likeness_weight:
            wanted = torch.from_numpy(likeness.cosines(texts, texts))  # (2B, 2B)
            size = len(rows)
            loss = loss + config.likeness_weight * (
                _unlikeness(text_vectors @ text_vectors.T, wanted)
                + _PICTURES * _unlikeness(image_vectors @ text_vectors.T, wanted[:size])
                + _PICTURES * _unlikeness(image_vectors @ image_vectors.T, wanted[:size, :size])
            )
        if not torch.isfinite(loss):
            raise ValueError(f"lr: the loss is {loss.item()} in step {step}; wanted a smaller lr")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))  # as in CLIP, 2.5
        if progress is not None:
            progress(step + 1, config.steps, loss.item())
    if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
        raise ValueError("lr: the weights are not finite after the last step; wanted a smaller lr")


def _schedule(step: int, config: ClipTrainingConfig) -> float:
    """Return the share of the peak learning rate: linear warm-up to 1, then a cosine to 0."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.5 * (1 + math.cos(math.pi * share))


def _vectors(model: CLIP, pictures: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return vectors of pictures (B, D) and of texts (T, D), and the scale of their products.

    The padding that all texts end with is not computed; the vectors are the same without it.
    """
    length = int(input_ids.argmax(dim=1).max()) + 1  # the end token has the largest id
    whole: Any = model  # open_clip does not say that these are tensors
    cut = {
        "positional_embedding": whole.positional_embedding[:length],
        "attn_mask": whole.attn_mask[:length, :length],
    }
    return torch.func.functional_call(model, cut, (pictures, input_ids[:, :length]))


def _contrast(logits: Tensor, group_of: Tensor) -> Tensor:
    """Return symmetric InfoNCE, with rows of a group left out of each other's denominators."""
    own = torch.eye(len(logits), dtype=torch.bool)
    logits = logits.masked_fill((group_of[:, None] == group_of) & ~own, -torch.inf)
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _unlikeness(cosines: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared error of cosines, alike pairs counting more."""
    return ((1 + _EMPHASIS * wanted) * (cosines - wanted).square()).mean()


def _augmented(pictures: np.ndarray, rng: np.random.Generator, max_shift: int) -> np.ndarray:
    """Shift each picture by up to `max_shift` pixels, repeating its edge, and mirror half of them.

    Example: 4 pixels shifted by 1 are read at columns [1, 2, 3, 3]; mirrored, at [3, 3, 2, 1].
    """
    count, size = pictures.shape[:2]
    places = np.arange(size)
    shift_y, shift_x = rng.integers(-max_shift, max_shift + 1, (2, count, 1))
    rows = np.clip(places + shift_y, 0, size - 1)  # (B, S)
    columns = np.clip(places + shift_x, 0, size - 1)  # (B, S)
    mirrored = rng.random(count) < 0.5
    columns[mirrored] = columns[mirrored, ::-1]
    return pictures[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _as_input(pictures: np.ndarray) -> Tensor:
    """Normalise (B, S, S, 3) uint8 to (B, 3, S, S) float, as the encoder's transform does."""
    mean, std = (255 * torch.tensor(values) for values in (PreprocessCfg.mean, PreprocessCfg.std))
    return ((torch.from_numpy(pictures).float() - mean) / std).permute(0, 3, 1, 2)
