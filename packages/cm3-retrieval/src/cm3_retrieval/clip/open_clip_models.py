"""open_clip's models by name, with its traps turned into clear errors.

Takes a model name and weights (a tag, a path or None); gives the model, its picture transform and
its tokenizer. Paper 2.1 (arXiv 2309.02591) uses OpenAI's ViT-B-32 (arXiv 2103.00020).
"""

import difflib
import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import open_clip
import regex
import torch
from open_clip.pretrained import get_pretrained_cfg
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

Tokenizer = Callable[[list[str]], Tensor]

_WITH_WEIGHTS = ("local-dir:", "hf-hub:")
"""Beginnings of a `model_name` that has its own weights."""


def open_model(model_name: str, pretrained: str | Path | None) -> nn.Module:
    """Create an open_clip model.

    Args:
        model_name: One of `open_clip.list_models()`, or `local-dir:PATH` or `hf-hub:NAME`: a
            folder with `open_clip_config.json` and weights.
        pretrained: A tag of that model (downloaded once), a local file (safetensors, or a
            PyTorch file of plain tensors), or None for random weights from a fixed seed. None for
            a `local-dir:` or `hf-hub:` model, which has its own weights.

    Raises:
        ValueError: Unknown name or tag, or weights trained with another activation function.
        RuntimeError: The download or the file failed.
    """
    if model_name.startswith(_WITH_WEIGHTS):
        return _open_folder(model_name, pretrained)
    config = open_clip.get_model_config(model_name)
    if config is None:
        near = difflib.get_close_matches(model_name, open_clip.list_models(), n=3)
        raise ValueError(
            f"model_name: wanted one of open_clip.list_models(), got {model_name!r}; near: {near}"
        )
    quick_gelu = bool(config.get("quick_gelu", False))
    if pretrained is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                return open_clip.create_model(model_name, pretrained_text=False)
            except Exception as error:
                raise RuntimeError(
                    f"model_name: could not make {model_name!r}, whose parts come from another "
                    f"package or a download ({_first_line(error)})"
                ) from error
    path = Path(pretrained)
    if path.is_file():
        _refuse_wrong_file(model_name, path, quick_gelu)
    else:
        _refuse_wrong_tag(model_name, str(pretrained), quick_gelu)
    try:
        return open_clip.create_model(model_name, pretrained=str(pretrained))
    except Exception as error:
        if path.is_file():
            hint = f"the file does not hold weights of {model_name}"
        else:
            hint = (
                "the download failed; with no network give `pretrained` a local file, or use "
                "ClipEncoder.load with a CLIP of your own"
            )
        raise RuntimeError(
            f"pretrained: could not load {str(pretrained)!r}: {hint} ({error})"
        ) from error


def open_tokenizer(model_name: str) -> Tokenizer:
    """Return the tokenizer of a named model: list of N texts -> (N, context_length) ids.

    Raises:
        RuntimeError: The tokenizer is not bundled with open_clip, and its download failed.
    """
    try:
        tokenizer = open_clip.get_tokenizer(model_name)
    except Exception as error:
        raise RuntimeError(
            f"model_name: could not open the tokenizer of {model_name!r}, which is not bundled "
            f"with open_clip: wanted a network, or its files in the cache ({_first_line(error)})"
        ) from error
    if isinstance(tokenizer, open_clip.SimpleTokenizer):
        return _without_special_text(tokenizer)
    return tokenizer  # pyright: ignore[reportReturnType]


def bundled_tokenizer(context_length: int) -> Tokenizer:
    """Return CLIP's own BPE of 49,408 pieces, which is bundled with open_clip."""
    return _without_special_text(open_clip.SimpleTokenizer(context_length=context_length))


def picture_transform(preprocess: Mapping[str, Any]) -> Callable[[Any], Tensor]:
    """Return open_clip's transform for inference: PIL image -> (3, H, W) float."""
    return image_transform_v2(PreprocessCfg(**preprocess), is_train=False)  # pyright: ignore


def weights_hash(model: nn.Module, preprocess: Mapping[str, Any], amp: bool = False) -> str:
    """Return the SHA-256 over all that decides the vectors.

    Args:
        model: Its weights and its activation function count.
        preprocess: The picture transform.
        amp: Whether the model computes in bfloat16.
    """
    quick_gelu = any(isinstance(module, QuickGELU) for module in model.modules())
    facts = {"preprocess": dict(preprocess), "quick_gelu": quick_gelu}
    if amp:
        facts["amp"] = "bfloat16"
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _open_folder(model_name: str, pretrained: str | Path | None) -> nn.Module:
    if pretrained is not None:
        raise ValueError(
            f"pretrained: wanted None, since {model_name!r} brings its weights, got {pretrained!r}"
        )
    kind, place = model_name.split(":", 1)
    if kind == "local-dir" and not (Path(place) / "open_clip_config.json").is_file():
        raise ValueError(
            f"model_name: wanted a folder with open_clip_config.json and weights, got {place!r}"
        )
    try:
        return open_clip.create_model(model_name)
    except Exception as error:
        raise RuntimeError(
            f"model_name: could not load {model_name!r} ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _without_special_text(tokenizer: open_clip.SimpleTokenizer) -> open_clip.SimpleTokenizer:
    """Make the tokenizer read a typed `<end_of_text>` as plain characters.

    open_clip's splitting pattern begins with the two special names, and the text's vector is read
    at the first end token: with the names left in, a user's text would end early.
    """
    special = "<start_of_text>|<end_of_text>|"
    pattern = tokenizer.pat.pattern.removeprefix(special)
    tokenizer.pat = regex.compile(pattern, regex.IGNORECASE)
    return tokenizer


def _refuse_wrong_tag(model_name: str, tag: str, quick_gelu: bool) -> None:
    known = get_pretrained_cfg(model_name, tag)
    if not known:
        tags = open_clip.list_pretrained_tags_by_model(model_name)
        raise ValueError(
            f"pretrained: wanted a file that exists or a tag of {model_name} ({', '.join(tags)}), "
            f"got {tag!r}"
        )
    if known.get("quick_gelu", False) and not quick_gelu:
        _raise_wrong_activation(model_name, tag)


def _refuse_wrong_file(model_name: str, path: Path, quick_gelu: bool) -> None:
    """Refuse OpenAI's weights in a model without QuickGELU: they would load and answer worse."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            torch_script = any(name.endswith("/constants.pkl") for name in archive.namelist())
        if torch_script:
            raise ValueError(
                f"pretrained: {path} is a TorchScript archive, as OpenAI published CLIP; wanted "
                f"plain weights: the tag 'openai', or its open_clip_model.safetensors"
            )
    # The tensors do not tell; the names of OpenAI's files and of their folder in the download
    # cache (`...clip_224.openai`) do.
    folders = [part.lower() for part in path.parts[:-1]]
    named = "openai" in path.name.lower() or any("openai" in f and "clip" in f for f in folders)
    if named and not quick_gelu:
        _raise_wrong_activation(model_name, str(path))


def _raise_wrong_activation(model_name: str, weights: str) -> NoReturn:
    raise ValueError(
        f"model_name: the weights {weights!r} were trained with QuickGELU; "
        f"wanted '{model_name}-quickgelu', got {model_name!r}"
    )
