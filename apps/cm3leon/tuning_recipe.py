"""The recipe of instruction tuning: what a tuned run starts from, learns, and is judged by."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cm3_decoding import SamplingConfig
from cm3_train import InstructionConfig, LoraConfig, OptimConfig
from cm3leon.decoder_recipe import Checkpointing
from cm3leon.trainer_recipe import TrainerRecipe

_NO_TASKS = ("held_out", "grid")  # fields of EmbeddedRecipe


@dataclass(frozen=True, kw_only=True)
class EmbeddedRecipe:
    """Records of each task of the embedded instructions in training; 0 leaves the task out."""

    edit: int = 6000
    """Another colour, background or thing, or no change."""
    boxes: int = 8000
    """One to three things at drawn boxes."""
    write: int = 3000
    """Letters, digits and short words."""
    canny: int = 1200
    """Pictures after their Canny edges."""
    scribble: int = 400
    """Pictures after scribbles."""
    segmentation: int = 400
    """Pictures after maps of their things' shapes."""
    coco_caption: int = 400
    """Short captions."""
    image_paragraph: int = 400
    """Long captions."""
    vqa2: int = 8000
    """Questions: what, which colour, what behind, how many, what beside, is it."""
    science_qa: int = 1000
    """Choices of three with a reason."""
    held_out: int = 100
    """Records of each task in validation and in test; of edits and questions, of each kind."""
    grid: int = 16
    """Places of boxes, 0 to 255, are said in multiples of it: fewer numbers to learn."""

    def __post_init__(self) -> None:
        """Refuse numbers below 0, and no record at all."""
        for name, number in vars(self).items():
            least = 1 if name in _NO_TASKS else 0
            if number < least:
                raise ValueError(f"embedded.{name}: wanted at least {least}, got {number}")
        if not any(self.numbers.values()):
            raise ValueError("embedded: wanted records of at least one task, got none")

    @property
    def numbers(self) -> dict[str, int]:
        """Records in training by task."""
        return {name: number for name, number in vars(self).items() if name not in _NO_TASKS}


@dataclass(frozen=True, kw_only=True)
class TuningEvaluation:
    """Figures and pictures at the end of a tuning on the embedded instructions."""

    samples: int = 100
    """Records drawn or answered for each figure."""
    pictures: int = 8
    """Records shown in each block of samples.png."""
    batch_size: int = 128
    """Records drawn or answered at once."""
    untuned: bool = True
    """Whether the run that the tuning started from is judged, too."""

    def __post_init__(self) -> None:
        """Refuse figures of nothing."""
        for name in ("samples", "pictures", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"evaluation.{name}: wanted at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class GuidanceRecipe:
    """How a tuned run draws what instructions ask for (paper 4.1)."""

    top_p: float = 0.9
    """Share of the probability to draw from."""
    temperature: float = 1.0
    """Divides the logits."""
    edit_text: float = 7.5
    """Guidance of an edit by its text."""
    edit_image: float = 1.5
    """Guidance of an edit by its picture."""
    structure: float = 3.0
    """Guidance by the text where there is a guide, such as edges, and where there are boxes."""
    write: float = 3.0
    """Guidance of writing by its text."""

    def __post_init__(self) -> None:
        """Refuse what nobody could draw with."""
        for task in ("edit", "boxes", "write"):
            try:
                self.sampling(task)
            except ValueError as error:
                raise ValueError(f"guidance of {task}: {error}") from None

    def sampling(self, task: str) -> SamplingConfig:
        """Return how to draw what a task asks for."""
        edit, scales = task == "edit", {"edit": self.edit_text, "write": self.write}
        return SamplingConfig(
            top_p=self.top_p,
            temperature=self.temperature,
            guidance_scale=scales.get(task, self.structure),
            image_guidance_scale=self.edit_image if edit else None,
        )


@dataclass(frozen=True, kw_only=True)
class TuningRecipe:
    """One tuned run."""

    name: str = "sft"
    """The run's folder is `runs`/`name`."""
    runs: Path = Path("runs")
    """Where runs are kept."""
    base: Path = Path("runs/tiny")
    """The run to start from, as apps/pretrain.py has made it."""
    seed: int = 0
    """Of everything that is drawn."""
    device: str = "auto"
    """As of a pretraining's recipe."""
    precision: str = "auto"
    """As of a pretraining's recipe."""
    checkpoint_every: int = 50
    """Training steps between two checkpoints: what a kill can cost."""
    trainer: TrainerRecipe = field(default_factory=TrainerRecipe)
    sets: tuple[Path, ...] = ()
    """Sets of instructions, as `apps/prepare.py --task` makes them; none: the embedded ones."""
    embedded: EmbeddedRecipe = field(default_factory=EmbeddedRecipe)
    """The embedded instructions."""
    objective: InstructionConfig = field(default_factory=InstructionConfig)
    """What is cut out of an instruction, and what is learnt of it."""
    up: float = 3.0
    """Most times that a record comes in an epoch; see `cm3_train.Mixture`."""
    down: float = 0.3
    """Fewest times."""
    retrieve: float = 0.8
    """How often a record for which documents were found is shown behind the best of them."""
    replay: float = 0.1
    """Share of the sequences that are the pretraining's, with retrieved documents, so that drawing
    by captions alone is not forgotten."""
    lora: LoraConfig | None = None
    """Train low-rank adapters beside frozen weights, which are merged at the end; null: train all
    weights."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer, schedule and steps."""
    batch_size: int = 32
    """As of a pretraining's `decoder`; so the next seven."""
    tokens_per_step: int | None = None
    val_batch_size: int = 64
    compile: bool = False
    activation_checkpointing: Checkpointing = "none"
    packed_length: int | None = None
    val_every: int = 100
    val_records: int = 512
    """Most records of validation, of all sets together."""
    guidance: GuidanceRecipe = field(default_factory=GuidanceRecipe)
    """How the tuned run draws."""
    evaluation: TuningEvaluation = field(default_factory=TuningEvaluation)
    """Figures at the end."""

    def __post_init__(self) -> None:
        """Refuse what the training would stumble over."""
        if not 0 <= self.retrieve <= 1:
            raise ValueError(f"retrieve: wanted 0 to 1, got {self.retrieve}")
        if not 0 <= self.replay < 1:
            raise ValueError(f"replay: wanted 0 to below 1, got {self.replay}")
        if not 0 < self.down <= 1 <= self.up:
            raise ValueError(f"up, down: wanted down <= 1 <= up, got {self.up} and {self.down}")
        if self.lora is not None and self.optim.name == "muon":
            raise ValueError("optim.name: wanted adamw or adamw8bit with lora, got muon")
        if self.lora is not None and self.trainer.strategy == "fsdp2":
            raise ValueError("trainer.strategy: wanted ddp with lora, got fsdp2")

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.runs / self.name

    def check_streams(self, sampling: SamplingConfig) -> None:
        """Refuse guidance by a stream that training never shows.

        Raises:
            ValueError: There is none; names the scale.
        """
        objective = self.objective
        apart = sampling.image_guidance_scale is not None
        needed = {
            "image_conditional": ("drop_text", "guidance_scale"),
            "unconditional": ("drop_both", "image_guidance_scale")
            if apart
            else ("drop_text", "guidance_scale"),
        }
        for stream in sampling.streams[1:]:
            share, scale = needed[stream]
            if not getattr(objective, share):
                raise ValueError(
                    f"{scale}: wanted 1, as {self.folder} is tuned with {share} 0 and knows no "
                    f"such stream, got {getattr(sampling, scale)}"
                )
