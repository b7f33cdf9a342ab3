"""VQGAN image tokenizer: pictures to discrete codes and back (CM3Leon, paper section 2.1)."""

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
    to_rgb,
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
    "to_rgb",
    "to_tensor",
]
