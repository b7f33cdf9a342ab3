"""The recipe of a run: every knob of every stage, as one YAML (`apps/configs/tiny.yaml`).

Three parts can be swapped for other classes that keep the packages' Protocols, by naming the class
(`class_path` and `init_args`): `texttok.tokenizer`, `imagetok.tokenizer` and
`retrieval.encoder`. A part that is named is used as it is; one that is not is trained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from cm3_decoding import SamplingConfig
from cm3_decoding.config import Sampler
from cm3_imagetok import VQGANConfig
from cm3_retrieval import ClipTrainingConfig, RetrievalConfig
from cm3_train import OptimConfig
from cm3leon.data_recipe import CompositionsRecipe, DataRecipe, OpenMojiRecipe
from cm3leon.decoder_recipe import DecoderRecipe
from cm3leon.trainer_recipe import TrainerRecipe

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")


@dataclass(frozen=True, kw_only=True)
class TextRecipe:
    """The text tokenizer."""

    tokenizer: dict[str, Any] | None = None
    """Another cm3_texttok.interface.Tokenizer: {class_path: ..., init_args: {...}}."""
    vocab_size: int = 56320
    """Pieces, the structural ones among them."""
    num_masks: int = 16
    """Mask tokens, that is spans that CM3 may cut from one document."""


@dataclass(frozen=True, kw_only=True)
class ImageRecipe:
    """The image tokenizer and its training."""

    tokenizer: dict[str, Any] | None = None
    """Another cm3_imagetok.ImageTokenizer: {class_path: ..., init_args: {...}}."""
    model: VQGANConfig = field(default_factory=VQGANConfig)
    """Shape of the VQGAN; the default is the paper's."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer, schedule and steps."""
    batch_size: int = 16
    """Pictures a step."""
    l1_weight: float = 0.0
    """Weight of the absolute error."""
    l2_weight: float = 1.0
    """Weight of the squared error."""
    chroma_weight: float = 1.0
    """How much more errors of colour count than errors of brightness."""
    perceptual_weight: float = 1.0
    """Weight of LPIPS; off without the two files of its weights."""
    vgg16: Path | None = None
    """torchvision's weights of VGG16, a local file."""
    lpips: Path | None = None
    """The lpips package's weights of its linear layers for VGG, a local file."""
    gan_weight: float = 0.0
    """Weight of the discriminator's loss, times the adaptive weight; 0 is no discriminator."""
    gan_start: int = 0
    """First step that the discriminator takes part in."""
    gan_lr: float = 2e-4
    """Peak rate of the discriminator, which AdamW trains."""
    gan_channels: int = 64
    """Channels of the discriminator's first layer."""
    gan_layers: int = 3
    """Layers of the discriminator that halve the side."""
    region_weight: float = 1.0
    """Weight of pixels inside the `boxes` of the metadata (faces, salient objects)."""
    causal_weight: float = 0.0
    """Weight of `cm3_imagetok.causal.CausalPredictor`, which makes codes easier to predict."""
    max_shift: int = 4
    """Training pictures are moved by up to this many pixels, white coming in, and mirrored."""
    revive_share: float = 0.1
    """A code is dead when it is used less than this share of an even use."""
    val_every: int = 250
    """Steps between two validations."""

    def __post_init__(self) -> None:
        """Refuse weights, rates and shares below 0, or none."""
        for name, value in vars(self).items():
            if name.endswith(("_weight", "_share", "_lr")) and not 0 <= value < math.inf:
                raise ValueError(f"imagetok.{name}: wanted at least 0, got {value}")


@dataclass(frozen=True, kw_only=True)
class RetrievalRecipe:
    """Encoder, memory bank and strategy."""

    bank: bool = True
    """Whether there are an encoder and a memory bank; runs of published weights have neither."""
    encoder: dict[str, Any] | None = None
    """Another cm3_retrieval.interface.Encoder; null trains the small CLIP of `clip`."""
    clip: ClipTrainingConfig = field(default_factory=ClipTrainingConfig)
    """The small CLIP."""
    strategy: RetrievalConfig = field(default_factory=RetrievalConfig)
    """Paper 2.1."""


_COUNTS = ("candidates", "batch_size", "sweep_samples", "samples", "control_samples", "pictures")


@dataclass(frozen=True, kw_only=True)
class EvaluationRecipe:
    """Figures and pictures at the end."""

    sampling: SamplingConfig = field(
        default_factory=lambda: SamplingConfig(top_p=0.95, guidance_scale=1.5)
    )
    """How samples are drawn; its guidance_scale is replaced by the best of `guidance_scales`."""
    guidance_scales: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0)
    """The sweep, on validation prompts; the best becomes the run's default."""
    candidates: int = 1
    """Drawings for each prompt of the figures, of which the one that CLIP likes best counts (paper
    3.1: 8). The sweep draws one."""
    samplers: tuple[Sampler, ...] = ("top-p",)
    """Candidates take these in turn: "top-p" and "cd-k" make halves, as in the paper."""
    batch_size: int = 32
    """Pictures drawn at once."""
    retrieve: int = 2
    """Documents retrieved for a prompt."""
    sweep_samples: int = 100
    """Pictures drawn for each scale of the sweep."""
    samples: int = 200
    """Captions drawn for each figure."""
    control_samples: int = 100
    """Captions drawn for a figure that another is held against, and pictures described."""
    pictures: int = 12
    """Prompts shown in each block of samples.png."""
    inception: Path | None = None
    """torch-fidelity's weights of Inception-v3, a local file: with it the report has rFID."""

    def __post_init__(self) -> None:
        """Refuse what the report, the last stage, would stumble over."""
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise ValueError(f"evaluation.{name}: wanted at least 1, got {getattr(self, name)}")
        if not self.guidance_scales or not all(0 <= x < math.inf for x in self.guidance_scales):
            raise ValueError(
                f"evaluation.guidance_scales: wanted some of at least 0, got {self.guidance_scales}"
            )
        if not self.samplers or not set(self.samplers) <= set(get_args(Sampler)):
            raise ValueError(
                f"evaluation.samplers: wanted some of {get_args(Sampler)}, got {self.samplers}"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One run."""

    name: str = "cm3leon"
    """The run's folder is `runs`/`name`."""
    runs: Path = Path("runs")
    """Where runs are kept."""
    seed: int = 0
    """Of everything that is drawn."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:N", "mps", or "auto": a GPU where there is one."""
    precision: str = "auto"
    """"32-true", "bf16-mixed", another of Lightning's, or "auto": bf16 where the processor or GPU
    computes in it."""
    checkpoint_every: int = 50
    """Training steps between two checkpoints: what a kill can cost."""
    base: Path | None = None
    """Of a tuned run: the run that it started from, whose parts it uses, all but the decoder."""
    trainer: TrainerRecipe = field(default_factory=TrainerRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    texttok: TextRecipe = field(default_factory=TextRecipe)
    imagetok: ImageRecipe = field(default_factory=ImageRecipe)
    retrieval: RetrievalRecipe = field(default_factory=RetrievalRecipe)
    decoder: DecoderRecipe = field(default_factory=DecoderRecipe)
    evaluation: EvaluationRecipe = field(default_factory=EvaluationRecipe)

    def __post_init__(self) -> None:
        """Refuse before any work what a late stage would stumble over."""
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision: wanted one of {PRECISIONS}, got {self.precision!r}")
        self.decoder.accumulate(self.trainer.ranks)
        if self.decoder.sample_every and self.trainer.strategy == "fsdp2":
            raise ValueError(
                "decoder.sample_every: wanted 0 with trainer.strategy fsdp2, whose first process "
                f"holds a part of the model, got {self.decoder.sample_every}"
            )
        if self.imagetok.tokenizer is not None:
            return
        factor = self.imagetok.model.downsampling
        if self.data.size % factor:
            raise ValueError(
                f"data.size: wanted a multiple of {factor}, the image tokenizer's downsampling, "
                f"got {self.data.size}"
            )
        codes = (self.data.size // factor) ** 2
        if self.decoder.max_length <= codes + 4:
            raise ValueError(
                f"decoder.max_length: wanted room for {codes} codes and a caption, "
                f"got {self.decoder.max_length}"
            )

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.runs / self.name

    @property
    def parts_folder(self) -> Path:
        """Where all parts but the decoder are: a prepared folder, the base, or the run's own."""
        return self.data.prepared or self.base or self.folder


Seeded = TypeVar("Seeded", OpenMojiRecipe, CompositionsRecipe, ClipTrainingConfig)


def seeded(config: Seeded, seed: int) -> Seeded:
    """Return a configuration with a seed: its own, or the run's where it names none."""
    return replace(config, seed=seed) if config.seed is None else config
