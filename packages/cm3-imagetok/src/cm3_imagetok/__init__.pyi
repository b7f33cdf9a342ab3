"""The public names; `__init__.py` imports each when it is first used."""

from .causal import (
    CausalPredictor as CausalPredictor,
)
from .checkpoint import (
    CheckpointError as CheckpointError,
    load_vqgan as load_vqgan,
    save_vqgan as save_vqgan,
)
from .config import (
    VQGANConfig as VQGANConfig,
)
from .exchange import (
    Imported as Imported,
    export_vqgan as export_vqgan,
    import_vqgan as import_vqgan,
)
from .gumbel import (
    GumbelQuantizer as GumbelQuantizer,
    gumbel_temperature as gumbel_temperature,
)
from .interface import (
    INTERFACE_VERSION as INTERFACE_VERSION,
    ImageTokenizer as ImageTokenizer,
)
from .layouts import (
    LayoutError as LayoutError,
)
from .losses import (
    AdversarialLoss as AdversarialLoss,
    PatchDiscriminator as PatchDiscriminator,
    adaptive_weight as adaptive_weight,
    hinge_loss as hinge_loss,
    reconstruction_loss as reconstruction_loss,
    region_weights as region_weights,
)
from .metrics import (
    CodebookUse as CodebookUse,
    codebook_use as codebook_use,
    frechet_distance as frechet_distance,
    psnr as psnr,
    ssim as ssim,
)
from .perceptual import (
    PerceptualLoss as PerceptualLoss,
)
from .picture_file import (
    ImageError as ImageError,
    load_image as load_image,
)
from .presets import (
    PRESETS as PRESETS,
)
from .quantize import (
    EMAQuantizer as EMAQuantizer,
    NearestQuantizer as NearestQuantizer,
    Quantized as Quantized,
)
from .revival import (
    revive_dead_codes as revive_dead_codes,
)
from .transforms import (
    Loaded as Loaded,
    load_images as load_images,
    square as square,
    to_pixels as to_pixels,
    to_tensor as to_tensor,
)
from .vqgan import (
    VQGAN as VQGAN,
)
