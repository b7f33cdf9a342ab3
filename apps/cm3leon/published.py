"""Published weights of Chameleon's shape as a run, and a run's decoder as such weights again.

A downloaded folder becomes a run with Chameleon's own tokenizers and ids, and without data, CLIP
and memory bank: stages `texttok`, `imagetok` and `decoder`. `apps/sft.py` takes it as a base;
docs/decisions/0010-published-weights.md says which id stands for what.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cm3_decoding import SamplingConfig
from cm3_imagetok import VQGAN, import_vqgan, load_vqgan, save_vqgan
from cm3_imagetok.layouts import from_native, hugging_face_config
from cm3_model import (
    DecoderConfig,
    export_chameleon,
    import_chameleon,
    load_decoder,
    save_decoder,
)
from cm3_texttok import chameleon_codes, chameleon_names, chameleon_tokenizer
from cm3leon import parts
from cm3leon.data_recipe import DataRecipe
from cm3leon.decoder_recipe import DecoderRecipe
from cm3leon.parts import CHAMELEON_TOKENIZER
from cm3leon.recipe import EvaluationRecipe, ImageRecipe, Recipe, RetrievalRecipe, TextRecipe
from cm3leon.recipe_file import RECIPE_FILE, said_recipe, save_recipe
from cm3leon.stages import Stages, read_object

CODEBOOK = "quantize.embedding.weight"
KEPT = "published"
"""In the decoder's folder: the small JSON files of the download, which an export gives back."""
OURS = {"config.json", CHAMELEON_TOKENIZER, "model.safetensors.index.json"}
"""Files that an export writes itself."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """Where the files of published weights lie."""

    weights: Path
    """Folder of the language model: transformers' `config.json`, or Meta's `params.json`."""
    tokenizer: Path
    """The `tokenizer.json`; Meta calls it `text_tokenizer.json`."""
    vqgan: Path
    """The image tokenizer: `vqgan.ckpt`, or the folder of weights where it is among them."""
    size: int | None = None
    """Side of a picture in pixels; None: as the weights' `config.json` or the shape says."""


def found_in(
    folder: Path, tokenizer: Path | None, vqgan: Path | None, size: int | None
) -> Download:
    """Return the files of a downloaded folder; what is given counts instead of what is found.

    Raises:
        FileNotFoundError: There is no tokenizer of texts, or of pictures.
    """
    around = [folder, folder / "tokenizer", folder.resolve().parents[1] / "tokenizer"]
    if tokenizer is None:
        names = (CHAMELEON_TOKENIZER, "text_tokenizer.json")
        tokenizer = _first(place / name for place in around for name in names)
    if tokenizer is None or not tokenizer.is_file():
        raise FileNotFoundError(
            f"{tokenizer or folder}: wanted tokenizer.json or text_tokenizer.json, got none; "
            "--tokenizer names it"
        )
    config = folder / "config.json"
    if vqgan is None:
        vqgan = _first(place / "vqgan.ckpt" for place in around) or folder
        if vqgan == folder and not config.is_file():
            raise FileNotFoundError(f"{folder}: wanted vqgan.ckpt, got none; --vqgan names it")
    if size is None and config.is_file():
        size = (read_object(config).get("vq_config") or {}).get("resolution")
    return Download(weights=folder, tokenizer=tokenizer, vqgan=vqgan, size=size)


def make_base(download: Download, folder: Path) -> Recipe:
    """Make a run of published weights; gives its recipe.

    Args:
        download: The files.
        folder: The run's.

    Raises:
        BlockingIOError: Another process works in the folder.
        OSError: A file is missing or cannot be read.
        ValueError: The folder holds another run, or a part is damaged or does not fit the others.
    """
    if (folder / RECIPE_FILE).is_file() and not (folder / "decoder" / KEPT).is_dir():
        raise ValueError(f"{folder}: wanted a new folder, got one that holds another run")
    stages = Stages(folder)
    model = import_chameleon(download.weights)
    tokenizer, codes = chameleon_tokenizer(download.tokenizer), chameleon_codes(download.tokenizer)

    def text(out: Path) -> None:
        (out / "tokenizer").mkdir()
        shutil.copyfile(download.tokenizer, out / "tokenizer" / CHAMELEON_TOKENIZER)

    def image(out: Path) -> None:
        found = import_vqgan(download.vqgan, download.size).model
        save_vqgan(ordered(found, codes), out / "vqgan")

    stages.run("texttok", files_in([download.tokenizer]), [], text)
    config = [files_in([download.vqgan]), download.size, files_in([download.tokenizer])]
    stages.run("imagetok", config, [], image)
    vqgan = load_vqgan(folder / "imagetok" / "vqgan")
    recipe = recipe_of(folder, model.config, vqgan)
    joined = parts.join_tokenizers(tokenizer, vqgan, recipe, torch.device("cpu"))
    if model.config.vocab_size != joined.vocabulary.size:
        raise ValueError(
            f"{download.weights}: vocab_size: wanted {joined.vocabulary.size}, the tokenizer's, "
            f"got {model.config.vocab_size}"
        )

    def decoder(out: Path) -> None:
        save_decoder(model, out / "model", {"vocabulary_sha256": joined.vocabulary.sha256})
        (out / KEPT).mkdir()
        for path in download.weights.glob("*.json"):
            shutil.copyfile(path, out / KEPT / path.name)

    stages.run(
        "decoder",
        files_in([download.weights]),
        ["texttok", "imagetok"],
        decoder,
        settings={RECIPE_FILE: said_recipe(recipe)},
    )
    save_recipe(recipe, folder)
    return recipe


def recipe_of(folder: Path, shape: DecoderConfig, vqgan: VQGAN) -> Recipe:
    """Return the recipe that a run of published weights opens by."""
    ids = {"vocab_size", "max_length", "image_ids"}
    model = {f.name: getattr(shape, f.name) for f in fields(shape) if f.name not in ids}
    return Recipe(
        name=folder.name,
        runs=folder.parent,
        data=DataRecipe(size=vqgan.config.image_size),
        texttok=TextRecipe(vocab_size=shape.vocab_size),
        imagetok=ImageRecipe(model=vqgan.config),
        retrieval=RetrievalRecipe(bank=False),
        decoder=DecoderRecipe(model=model, max_length=shape.max_length),
        # an untuned Chameleon knows no mask, so no stream to be guided by
        evaluation=EvaluationRecipe(
            sampling=SamplingConfig(top_p=0.95, guidance_scale=1.0), retrieve=0
        ),
    )


def ordered(model: VQGAN, codes: np.ndarray) -> VQGAN:
    """Return an image tokenizer whose code c is the one that it calls `codes[c]`; as by image ids.

    Args:
        model: Changed in place.
        codes: (num_codes,) each code once.

    Raises:
        ValueError: It has another number of codes, or another kind of codebook.
    """
    state = model.state_dict()
    if CODEBOOK not in state or len(state[CODEBOOK]) != len(codes):
        raise ValueError(f"vqgan: wanted {CODEBOOK} of {len(codes)} codes, got another codebook")
    model.load_state_dict({**state, CODEBOOK: state[CODEBOOK][torch.from_numpy(codes)]})
    return model


def export_run(run: Path, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a run's decoder and image tokenizer in transformers' layout.

    Args:
        run: One of published weights, or tuned from one.
        folder: Where to write.
        dtype: Of the weights; in bfloat16 some of what adapters have learnt is rounded away.

    Raises:
        FileNotFoundError: There is no finished run.
        ValueError: It is not of published weights.
    """
    recipe = parts.recipe_of(run)
    base = recipe.base or run
    kept, tokenizer = base / "decoder" / KEPT, base / "texttok" / "tokenizer" / CHAMELEON_TOKENIZER
    if not kept.is_dir() or not tokenizer.is_file():
        raise ValueError(f"{run}: wanted a run of published weights, or one tuned from it")
    vqgan = load_vqgan(base / "imagetok" / "vqgan")
    config: dict[str, Any] = {
        "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
        "vq_config": hugging_face_config(vqgan.config),
        "vocabulary_map": chameleon_names(tokenizer),
    }  # fmt: skip
    if (kept / "config.json").is_file():
        config |= _without_shape(read_object(kept / "config.json"))
    back = np.argsort(chameleon_codes(tokenizer))
    pictures = from_native(ordered(vqgan, back).state_dict(), vqgan.config, "hugging-face")
    export_chameleon(
        load_decoder(run / "decoder" / "model", dtype=dtype),
        folder,
        config={**config, "dtype": str(dtype).removeprefix("torch.")},
        tensors={f"model.vqmodel.{name}": as_dtype(one, dtype) for name, one in pictures.items()},
    )
    shutil.copyfile(tokenizer, folder / CHAMELEON_TOKENIZER)
    for path in kept.glob("*.json"):
        if path.name not in OURS | {"params.json", "consolidate_params.json"}:
            shutil.copyfile(path, folder / path.name)


def as_dtype(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor in another format where it holds fractions."""
    return value.to(dtype) if value.is_floating_point() else value


def files_in(places: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Return names, sizes and times of files and of those right in folders.

    Raises:
        FileNotFoundError: A place is not there.
    """
    found = []
    for place in places:
        if not place.exists():
            raise FileNotFoundError(f"{place}: no such file or folder")
        inside = sorted(place.iterdir()) if place.is_dir() else [place]
        found += [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in inside if f.is_file()]
    return found


def _without_shape(config: dict[str, Any]) -> dict[str, Any]:
    """Return what a `config.json` says beside the format of its weights."""
    return {name: value for name, value in config.items() if name not in ("dtype", "torch_dtype")}


def _first(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)
