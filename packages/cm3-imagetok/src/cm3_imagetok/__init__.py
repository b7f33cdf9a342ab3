"""VQGAN image tokenizer: pictures to discrete codes and back (CM3Leon, paper section 2.1)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cm3_imagetok.causal import CausalPredictor
    from cm3_imagetok.checkpoint import CheckpointError, load_vqgan, save_vqgan
    from cm3_imagetok.config import VQGANConfig
    from cm3_imagetok.exchange import Imported, export_vqgan, import_vqgan
    from cm3_imagetok.interface import INTERFACE_VERSION, ImageTokenizer
    from cm3_imagetok.layouts import LayoutError
    from cm3_imagetok.losses import (
        AdversarialLoss,
        PatchDiscriminator,
        adaptive_weight,
        hinge_loss,
        reconstruction_loss,
        region_weights,
    )
    from cm3_imagetok.metrics import CodebookUse, codebook_use, frechet_distance, psnr, ssim
    from cm3_imagetok.perceptual import PerceptualLoss
    from cm3_imagetok.presets import PRESETS
    from cm3_imagetok.quantize import (
        EMAQuantizer,
        GumbelQuantizer,
        NearestQuantizer,
        Quantized,
        revive_dead_codes,
    )
    from cm3_imagetok.transforms import (
        ImageError,
        Loaded,
        load_image,
        load_images,
        square,
        to_pixels,
        to_tensor,
    )
    from cm3_imagetok.vqgan import VQGAN

__all__ = [
    "INTERFACE_VERSION",
    "PRESETS",
    "VQGAN",
    "AdversarialLoss",
    "CausalPredictor",
    "CheckpointError",
    "CodebookUse",
    "EMAQuantizer",
    "GumbelQuantizer",
    "ImageError",
    "ImageTokenizer",
    "Imported",
    "LayoutError",
    "Loaded",
    "NearestQuantizer",
    "PatchDiscriminator",
    "PerceptualLoss",
    "Quantized",
    "VQGANConfig",
    "adaptive_weight",
    "codebook_use",
    "export_vqgan",
    "frechet_distance",
    "hinge_loss",
    "import_vqgan",
    "load_image",
    "load_images",
    "load_vqgan",
    "psnr",
    "reconstruction_loss",
    "region_weights",
    "revive_dead_codes",
    "save_vqgan",
    "square",
    "ssim",
    "to_pixels",
    "to_tensor",
]

_MODULES = {
    "CausalPredictor": "causal",
    "CheckpointError": "checkpoint",
    "load_vqgan": "checkpoint",
    "save_vqgan": "checkpoint",
    "VQGANConfig": "config",
    "Imported": "exchange",
    "export_vqgan": "exchange",
    "import_vqgan": "exchange",
    "INTERFACE_VERSION": "interface",
    "ImageTokenizer": "interface",
    "LayoutError": "layouts",
    "AdversarialLoss": "losses",
    "PatchDiscriminator": "losses",
    "adaptive_weight": "losses",
    "hinge_loss": "losses",
    "reconstruction_loss": "losses",
    "region_weights": "losses",
    "CodebookUse": "metrics",
    "codebook_use": "metrics",
    "frechet_distance": "metrics",
    "psnr": "metrics",
    "ssim": "metrics",
    "PerceptualLoss": "perceptual",
    "PRESETS": "presets",
    "EMAQuantizer": "quantize",
    "GumbelQuantizer": "quantize",
    "NearestQuantizer": "quantize",
    "Quantized": "quantize",
    "revive_dead_codes": "quantize",
    "ImageError": "transforms",
    "Loaded": "transforms",
    "load_image": "transforms",
    "load_images": "transforms",
    "square": "transforms",
    "to_pixels": "transforms",
    "to_tensor": "transforms",
    "VQGAN": "vqgan",
}
"""The module of each name. It is imported when the name is first used: the command line does not
pay for PyTorch before it runs."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
