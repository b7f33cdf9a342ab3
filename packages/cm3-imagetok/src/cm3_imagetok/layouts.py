"""Names of a VQGAN's parameters in published checkpoints: pure functions from dict to dict.

Four layouts can be read, two written:

- `taming`: taming-transformers' and Chameleon's; also this package's own parameter names.
  `encoder.down.{i}.block.{j}`, `decoder.up.{i}.block.{j}`, index 0 the highest resolution.
- `hugging-face`: transformers' `ChameleonVQVAE`; the same names, no decoder.
- `llamagen`: LlamaGen's and Janus's `encoder.conv_blocks.{i}.res.{j}`; the decoder's levels start
  at the lowest resolution; codes are unit vectors.
- `janus`: transformers' `JanusVQVAE`; taming's names, but the decoder's levels start at the lowest
  resolution.

This module imports no torch until a function needs it: the command line reads its constants.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from cm3_imagetok.config import VQGANConfig
from cm3_imagetok.presets import PRESETS

if TYPE_CHECKING:
    from torch import Tensor

OURS = "cm3-imagetok"
"""Name of this package's own layout, the folder that `save_vqgan` writes."""
WRITTEN = ("taming", "hugging-face")
"""Foreign layouts that `from_native` writes."""
ANCHOR = "encoder.conv_in.weight"
"""A parameter that a VQGAN has in every layout."""
_MIDDLE = {"0": "block_1", "1": "attn_1", "2": "block_2"}


class LayoutError(ValueError):
    """Names or shapes that fit no known layout of a VQGAN."""


def find_prefix(names: Iterable[str]) -> str:
    """Return the shortest prefix of `encoder.conv_in.weight`, such as `model.vqmodel.`.

    Raises:
        LayoutError: No prefix has both that parameter and `quant_conv.weight`.
    """
    names = set(names)
    prefixes = [name.removesuffix(ANCHOR) for name in names if name.endswith(ANCHOR)]
    prefixes = [prefix for prefix in prefixes if prefix + "quant_conv.weight" in names]
    if not prefixes:
        some = ", ".join(sorted(names)[:3]) or "no tensors"
        raise LayoutError(f"wanted a VQGAN ({ANCHOR} and quant_conv.weight), got {some}")
    return min(prefixes, key=lambda prefix: (len(prefix), prefix))


def guess_layout(names: Iterable[str]) -> str:
    """Return the layout's name, given parameter names without their prefix."""
    names = set(names)
    if any(name.startswith("encoder.conv_blocks.") for name in names):
        return "llamagen"
    if not any(name.startswith("decoder.") for name in names):
        return "hugging-face"
    # the level of the highest resolution is the one without an upsampling
    last = _count(names, "decoder.up.{}.block.0.conv1.weight") - 1
    first_is_lowest = "decoder.up.0.upsample.conv.weight" in names
    if first_is_lowest and f"decoder.up.{last}.upsample.conv.weight" not in names:
        return "janus"
    return "taming"


def to_native(state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Rename the parameters to `VQGAN`'s names; leave other tensors' names alone."""
    if layout in WRITTEN:
        return dict(state)
    levels = {
        "llamagen": _count(state, "decoder.conv_blocks.{}.res.0.conv1.weight"),
        "janus": _count(state, "decoder.up.{}.block.0.conv1.weight"),
    }[layout]

    def rename(name: str) -> str:
        if layout == "llamagen":
            name = re.sub(r"^encoder\.conv_blocks\.(\d+)\.", r"encoder.down.\1.", name)
            name = re.sub(r"^decoder\.conv_blocks\.(\d+)\.", r"decoder.up.\1.", name)
            name = re.sub(r"^(\w+\.(?:down|up)\.\d+)\.res\.", r"\1.block.", name)
            name = re.sub(
                r"^(\w+)\.mid\.(\d)\.", lambda m: f"{m[1]}.mid.{_MIDDLE.get(m[2], m[2])}.", name
            )
        return re.sub(
            r"^decoder\.up\.(\d+)\.", lambda m: f"decoder.up.{levels - 1 - int(m[1])}.", name
        )

    return {rename(name): tensor for name, tensor in state.items()}


def from_native(state: Mapping[str, Tensor], config: VQGANConfig, layout: str) -> dict[str, Tensor]:
    """Return the parameters of a `VQGAN` as `layout` stores them.

    The moving averages of `ema` are left out. A `normalised` codebook is written as unit vectors:
    their nearest neighbours in L2 are the same codes. `hugging-face` has no decoder.

    Raises:
        LayoutError: The layout cannot hold this shape.
    """
    if layout not in WRITTEN:
        raise LayoutError(f"layout: wanted one of {WRITTEN}, got {layout!r}")
    held = {"patch_size": (1,), "norm_groups": (32,), "local_encoder": (False,)}
    if layout == "taming":
        held |= {"mid_attention": (True,), "has_decoder": (True,)}
    else:
        held |= {"quantizer": ("nearest", "normalised", "ema")}
    for name, values in held.items():
        if getattr(config, name) not in values:
            raise LayoutError(
                f"{name}: layout {layout!r} holds {' or '.join(map(repr, values))} only, "
                f"got {getattr(config, name)!r}"
            )
    dropped = ("quantize.cluster_",) + (("decoder.",) if layout == "hugging-face" else ())
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(dropped)}
    if config.quantizer == "normalised":
        import torch.nn.functional as F

        name = "quantize.embedding.weight"
        kept[name] = F.normalize(kept[name], dim=-1)
    return kept


def hugging_face_config(config: VQGANConfig) -> dict[str, object]:
    """Return the `config.json` of a `ChameleonVQVAE` of this shape."""
    return {
        "architectures": ["ChameleonVQVAE"],
        "model_type": "chameleon_vqgan",
        "resolution": config.image_size,
        "base_channels": config.channels,
        "channel_multiplier": list(config.channel_multipliers),
        "num_res_blocks": config.num_res_blocks,
        "attn_resolutions": list(config.attention_resolutions) or None,
        "attn_type": "vanilla" if config.mid_attention else None,
        "latent_channels": config.z_channels,
        "embed_dim": config.embed_dim,
        "num_embeddings": config.num_codes,
    }


def infer_config(
    state: Mapping[str, Tensor], layout: str, image_size: int | None = None
) -> tuple[VQGANConfig, str | None]:
    """Infer the shape of the model from its parameters, and the preset's name if it is one.

    Args:
        state: Parameters under `VQGAN`'s names.
        layout: Their source; llamagen's and janus's codebooks are normalised.
        image_size: Side in pixels, which no checkpoint holds. None takes that of the preset of the
            same shape, else 256.

    Raises:
        LayoutError: A parameter that tells the shape is missing, or `VQGAN` cannot have the shape.
    """
    try:
        channels, folded = state[ANCHOR].shape[:2]
        levels = _count(state, "encoder.down.{}.block.0.conv1.weight")
        widths = [
            len(state[f"encoder.down.{i}.block.0.conv1.weight"]) // channels for i in range(levels)
        ]
        attended = [i for i in range(levels) if f"encoder.down.{i}.attn.0.q.weight" in state]
        gumbel = "quantize.proj.weight" in state
        unit = layout in ("llamagen", "janus")
        codebook = state["quantize.embed.weight" if gumbel else "quantize.embedding.weight"]
        patch = round((folded / 3) ** 0.5)

        def config(side: int) -> VQGANConfig:
            return VQGANConfig(
                image_size=side,
                patch_size=patch,
                channels=channels,
                channel_multipliers=tuple(widths),
                num_res_blocks=_count(state, "encoder.down.0.block.{}.conv1.weight"),
                attention_resolutions=tuple(side // patch // 2**i for i in attended),
                mid_attention="encoder.mid.attn_1.q.weight" in state,
                z_channels=len(state["encoder.conv_out.weight"]),
                embed_dim=len(state["quant_conv.weight"]),
                num_codes=len(codebook),
                quantizer="gumbel" if gumbel else "normalised" if unit else "nearest",
                has_decoder="decoder.conv_in.weight" in state,
            )

        for name, preset in PRESETS.items():
            found = replace(config(preset.image_size), has_decoder=True, kl_weight=preset.kl_weight)
            if found == preset and image_size in (None, preset.image_size):
                return replace(config(preset.image_size), kl_weight=preset.kl_weight), name
        return config(image_size or 256), None
    except KeyError as error:
        raise LayoutError(f"wanted a parameter {error.args[0]}, got none") from None
    except LayoutError:
        raise
    except (ValueError, TypeError, ArithmeticError) as error:  # impossible shapes
        raise LayoutError(str(error)) from None


def _count(names: Iterable[str], pattern: str) -> int:
    """Count the names that fill `pattern` with 0, 1, 2, ... up to the first one missing."""
    names, count = set(names), 0
    while pattern.format(count) in names:
        count += 1
    return count
