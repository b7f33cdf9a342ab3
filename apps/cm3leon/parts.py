"""The parts of a run that drawing needs: frozen, typed, each on its device.

`open_parts(folder, device)` opens a finished run; the `open_*` functions below open one part each,
from the folder of its stage or as the class that the recipe names. A class of others is code of
others: it is called only where `trust` says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from cm3_decoding import SamplingConfig
from cm3_imagetok import load_vqgan
from cm3_imagetok.interface import ImageTokenizer
from cm3_model import Decoder, load_decoder
from cm3_retrieval import ClipEncoder, MemoryBank, RetrievalConfig
from cm3_retrieval.interface import Encoder
from cm3_texttok import DocumentLayout, TextTokenizer, Vocabulary, chameleon_tokenizer
from cm3_texttok.interface import Tokenizer
from cm3_train.sequence import PairSource
from cm3_train.shards import TokenShards
from cm3leon.base_run import check_base
from cm3leon.device import device_of
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.named_parts import part_of
from cm3leon.prepared_folder import check_prepared
from cm3leon.recipe import EvaluationRecipe, Recipe
from cm3leon.recipe_file import read_recipe
from cm3leon.stages import check_finished, read_object

CHAMELEON_TOKENIZER = "tokenizer.json"
"""In the folder of a text tokenizer that is Chameleon's; ours has other files."""


class Documents(PairSource, Protocol):
    """Text ids, codes and captions of pictures by key, such as `cm3_train.TokenShards`."""

    def caption(self, key: int, view: int = 0) -> str:
        """Return the caption."""
        ...


@dataclass(frozen=True, kw_only=True)
class Taught:
    """A document that was taught to a finished run; see `drawing.teach`."""

    key: int
    text: str
    vector: np.ndarray
    """(dim,) as the bank's."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What can be retrieved, and by which rules."""

    bank: MemoryBank
    documents: Documents
    strategy: RetrievalConfig
    taught: tuple[Taught, ...] = ()
    """Documents beside the bank's, the latest last."""


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """What finds documents, and judges drawings."""

    encoder: Encoder
    memory: Memory


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How a run draws where nobody says otherwise."""

    samplers: tuple[SamplingConfig, ...]
    """Candidates take these in turn."""
    retrieve: int
    """Documents before a prompt."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All that drawing needs."""

    tokenizers: Tokenizers
    retrieval: Retrieval | None
    """None in a run of published weights, which have none."""
    model: Decoder
    device: torch.device
    """Where the model is."""
    habits: Habits

    @property
    def encoder(self) -> Encoder:
        """The CLIP; errors as of `memory`."""
        return self._present().encoder

    @property
    def memory(self) -> Memory:
        """What can be retrieved.

        Raises:
            ValueError: The run has none.
        """
        return self._present().memory

    def _present(self) -> Retrieval:
        if self.retrieval is None:
            raise ValueError(NO_BANK)
        return self.retrieval


NO_BANK = (
    "retrieval: wanted a run with a memory bank, got one of published weights, which has none: "
    "no documents, no --teach, no candidates in CLIP's order"
)


def open_parts(
    folder: Path, device: str = "auto", *, dtype: str | None = None, trust: bool = False
) -> Parts:
    """Open a finished run.

    Args:
        folder: The run's folder.
        device: As of `device_of`.
        dtype: Of the decoder's weights, "float32" or "bfloat16"; None leaves them as they are.
        trust: Whether the run's recipe may name, and so run, code that is not of our packages.

    Raises:
        FileNotFoundError: There is no run, or it is not finished.
        ValueError: Another version made it, its parts do not fit each other, or it names code of
            others without trust.
    """
    where = device_of(device)
    return parts_of(recipe_of(folder), where, dtype=dtype, trust=trust)


def recipe_of(folder: Path) -> Recipe:
    """Return the recipe of a finished run; errors as of `open_parts`."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no run; wanted one that apps/pretrain.py has made")
    check_finished(folder, "decoder")
    recipe = read_recipe(folder)
    if recipe.base is not None:
        check_base(folder, recipe.base)
    if recipe.data.prepared is not None:
        check_prepared(recipe.base or folder, recipe.data.prepared)
    return recipe


def parts_of(
    recipe: Recipe, device: torch.device, *, dtype: str | None = None, trust: bool = False
) -> Parts:
    """Open the parts that a recipe's run has made; arguments and errors as of `open_parts`."""
    text = open_text_tokenizer(recipe, trust=trust)
    image = open_image_tokenizer(recipe, device, trust=trust)
    tokenizers = join_tokenizers(text, image, recipe, device)
    return Parts(
        tokenizers=tokenizers,
        retrieval=open_retrieval(recipe, tokenizers, device, trust=trust),
        model=open_decoder(recipe, device, dtype),
        device=device,
        habits=habits_of(recipe.evaluation, recipe.folder),
    )


def open_text_tokenizer(recipe: Recipe, *, trust: bool = False) -> Tokenizer:
    """Open the text tokenizer of stage `texttok`, or the one that the recipe names."""
    if recipe.texttok.tokenizer is not None:
        return part_of(recipe.texttok.tokenizer, "texttok.tokenizer", Tokenizer, trust=trust)
    folder = recipe.parts_folder / "texttok" / "tokenizer"
    if (folder / CHAMELEON_TOKENIZER).is_file():
        return chameleon_tokenizer(folder / CHAMELEON_TOKENIZER)
    return TextTokenizer.load(folder)


def open_image_tokenizer(
    recipe: Recipe, device: torch.device, *, trust: bool = False
) -> ImageTokenizer:
    """Open the VQGAN of stage `imagetok`, or the tokenizer that the recipe names."""
    if recipe.imagetok.tokenizer is None:
        return load_vqgan(recipe.parts_folder / "imagetok" / "vqgan").to(device)
    named = recipe.imagetok.tokenizer
    tokenizer = part_of(named, "imagetok.tokenizer", ImageTokenizer, trust=trust)
    # a module moves in place; other classes choose their own device
    getattr(tokenizer, "to", lambda device: None)(device)
    return tokenizer


def join_tokenizers(
    text: Tokenizer, image: ImageTokenizer, recipe: Recipe, device: torch.device
) -> Tokenizers:
    """Join two tokenizers into one space of ids."""
    codebook = getattr(image, "codebook_sha256", None)
    vocabulary = Vocabulary.from_tokenizer(text, image.num_codes, codes_sha256=codebook)
    return Tokenizers(
        text=text,
        image=image,
        size=recipe.data.size,
        device=device,
        vocabulary=vocabulary,
        layout=DocumentLayout(vocabulary),
    )


def open_retrieval(
    recipe: Recipe, tokenizers: Tokenizers, device: torch.device, *, trust: bool = False
) -> Retrieval | None:
    """Open the encoder and the memory bank; None where the recipe has none."""
    if not recipe.retrieval.bank:
        return None
    encoder = open_encoder(recipe, device, trust=trust)
    memory = open_memory(recipe, encoder, tokenizers.vocabulary)
    return Retrieval(encoder=encoder, memory=memory)


def open_encoder(recipe: Recipe, device: torch.device, *, trust: bool = False) -> Encoder:
    """Open the CLIP of stage `clip`, or the encoder that the recipe names.

    Raises:
        ValueError: The recipe has none.
    """
    if not recipe.retrieval.bank:
        raise ValueError(f"{recipe.parts_folder}: {NO_BANK}")
    if recipe.retrieval.encoder is not None:
        return part_of(recipe.retrieval.encoder, "retrieval.encoder", Encoder, trust=trust)
    return ClipEncoder.load(recipe.parts_folder / "clip" / "clip", device=device)


def open_memory(recipe: Recipe, encoder: Encoder, vocabulary: Vocabulary) -> Memory:
    """Open the memory bank of stage `retrieval` with the tokens of stage `shards`."""
    return Memory(
        bank=MemoryBank.load(recipe.parts_folder / "retrieval" / "bank", encoder.encoder_id),
        documents=TokenShards(recipe.parts_folder / "shards" / "tokens", vocabulary.sha256),
        strategy=recipe.retrieval.strategy,
    )


def open_decoder(recipe: Recipe, device: torch.device, dtype: str | None = None) -> Decoder:
    """Open the decoder of stage `decoder`."""
    folder = recipe.folder / "decoder" / "model"
    return load_decoder(folder, device, None if dtype is None else getattr(torch, dtype))


def habits_of(recipe: EvaluationRecipe, folder: Path) -> Habits:
    """Return how a run draws: as its recipe says, at the guidance scale that its report chose."""
    sampling, report = recipe.sampling, folder / "report.json"
    if report.is_file():
        samples = read_object(report, "samples")["samples"]
        if not isinstance(samples, dict) or "guidance_scale" not in samples:
            raise ValueError(f"{report}: wanted 'guidance_scale' in 'samples', got {samples}")
        sampling = replace(sampling, guidance_scale=samples["guidance_scale"])
    samplers = tuple(replace(sampling, sampler=sampler) for sampler in recipe.samplers)
    return Habits(samplers=samplers, retrieve=recipe.retrieve)
