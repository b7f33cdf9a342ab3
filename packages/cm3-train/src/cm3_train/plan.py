"""What a training needs before it is paid for: memory a GPU, days, cost, bandwidth of its data.

Takes plain numbers, imports no torch. Memory is counted from what `CM3Module`, the loss and a
decoder like `cm3_model`'s keep, tensor by tensor, with the gradients of earlier batches there, as
where a step is several. An allocator's gaps, a compiler's and a communication library's own come on
top. `tests/test_plan.py` holds it against steps on a CPU and what was measured on an H100.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Checkpointing = Literal["none", "selective", "full"]
Strategy = Literal["alone", "ddp", "fsdp2"]
TARGETS = ("qkv", "out", "up", "down")
"""Matrices of a block: queries, keys and values; attention's output; the MLP's two."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder in numbers."""

    num_layers: int
    width: int
    mlp_width: int
    num_heads: int
    vocab_size: int
    activation: str
    num_parameters: int
    """All of them."""
    block_parameters: int
    """Those of the blocks; the others are embeddings and the head."""
    kv_width: int | None = None
    """Channels of the keys, and of the values; None: `width`."""
    scaled_norms: bool = False
    """Whether norms learn a scale, as RMS norm does."""
    normed_heads: bool = False
    """Whether queries and keys are normed, with a scale and a shift that are learnt."""
    rotary: bool = False
    """Whether queries and keys turn by their position."""

    def adapter_parameters(self, rank: int, targets: tuple[str, ...]) -> int:
        """Count what adapters of a rank add to all blocks: two matrices for each target."""
        keys = self.width if self.kv_width is None else self.kv_width
        up = self.mlp_width * (2 if self.activation == "swiglu" else 1)
        sides = {
            "qkv": 2 * self.width + 2 * keys,
            "out": 2 * self.width,
            "up": self.width + up,
            "down": self.width + self.mlp_width,
        }
        return self.num_layers * rank * sum(sides[target] for target in targets)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a step is laid out over GPUs."""

    tokens: int
    """Positions that one GPU computes at once."""
    strategy: Strategy = "alone"
    gpus: int = 1
    tensor_parallel: int = 1
    checkpointing: Checkpointing = "none"
    bfloat16: bool = True
    """bf16-mixed: weights, gradients and the residual stream in float32, products in bfloat16."""
    chunk_size: int = 1024
    """Positions whose logits stand in memory at once, as `token_losses` has it."""
    averaged: bool = False
    """Whether averaged weights are kept."""
    optimizer_bytes: float = 8
    """Optimizer state of a weight: 8 for AdamW's two moments, 2.03 for those of 8 bits with a scale
    a block; Muon has 4 for hidden matrices."""
    adapter_rank: int | None = None
    """Rank of adapters (LoRA) by peft, beside weights that are frozen; None: all are trained."""
    targets: tuple[str, ...] = TARGETS
    """Matrices of a block that have an adapter."""
    bfloat16_base: bool = False
    """Whether frozen weights, and so the residual stream, are in bfloat16."""

    def __post_init__(self) -> None:
        """Refuse what `CM3Module` refuses."""
        if self.adapter_rank is not None and self.strategy == "fsdp2":
            raise ValueError("strategy: wanted alone or ddp for adapters, got fsdp2")
        if self.adapter_rank is None and self.bfloat16_base:
            raise ValueError("bfloat16_base: wanted adapters beside it, got none")

    @property
    def stream_bytes(self) -> int:
        """Bytes of a channel of the residual stream."""
        return 2 if self.bfloat16_base else 4

    def trains(self, matrix: str) -> bool:
        """Tell whether backward needs the input of a block's matrix."""
        return self.adapter_rank is None or matrix in self.targets


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one GPU at the largest moment of a step."""

    weights: float
    """All of them, what FSDP2 has gathered, and copies in bfloat16 that backward will use."""
    gradients: float
    """Float32, and DDP's buckets."""
    optimizer: float
    averaged: float
    activations: float
    """What forward keeps for backward."""
    working: float
    """The head's gradient, and the logits of a piece or one block's backward, the larger."""

    @property
    def total(self) -> float:
        """All of it."""
        return (
            self.weights + self.gradients + self.optimizer + self.averaged + self.activations
            + self.working
        )  # fmt: skip


def kept_by_a_block(shape: Shape, layout: Layout) -> dict[Checkpointing, float]:
    """Return the bytes a token that a block's forward keeps, by mode of checkpointing.

    None: both inputs of the norms, in float32; in the format of products the normed inputs, the
    queries, keys and values, what attention gives, and the MLP's widened states. Two float32 for
    each norm and one for each head go with them. Inputs of matrices that are frozen are not kept.
    """
    product = 2 if layout.bfloat16 else 4
    width, keys = shape.width, shape.width if shape.kv_width is None else shape.kv_width
    adapted = layout.adapter_rank is not None
    # a norm whose scale is trained keeps what it scales, too
    norm = 4 * width * (2 if shape.scaled_norms and not adapted else 1) + 8
    heads = width + 2 * keys
    if shape.normed_heads or shape.rotary:  # the product itself, and what becomes of it
        heads += width + keys
    if shape.normed_heads and not adapted:
        heads += width + keys
    # peft converts an adapter's input to float32, autocast back: a copy of what is kept anyway
    copied = adapted and layout.bfloat16
    mixed = width * (2 if layout.trains("out") and (copied or shape.normed_heads) else 1)
    entering = width * layout.trains("qkv")
    attention = norm + product * (entering + heads + mixed) + 4 * shape.num_heads
    mlp = _kept_by_the_mlp(shape, layout, copied) / layout.tensor_parallel
    whole = attention + norm + product * (width * layout.trains("up") + mlp)
    between = {target: product * (layout.adapter_rank or 0) for target in layout.targets}
    attention += between.get("qkv", 0) + between.get("out", 0)
    whole += sum(between.values())
    stream = layout.stream_bytes * width
    return {"none": whole, "selective": attention + stream, "full": stream}


def _kept_by_the_mlp(shape: Shape, layout: Layout, copied: bool) -> float:
    """Return the widened channels that backward finds.

    "relu" keeps its result, which is the next product's input; "gelu" its input and, for the next
    product, its result; "swiglu" gate, input, activated gate and, for the product, the last.
    """
    down = layout.trains("down")
    kept = {"relu": 1 + (down and copied), "gelu": 1 + down, "swiglu": 3 + down}
    return kept[shape.activation] * shape.mlp_width


def memory_of_a_step(shape: Shape, layout: Layout) -> Memory:
    """Count the bytes on one GPU."""
    adapted = layout.adapter_rank is not None
    adapters = shape.adapter_parameters(layout.adapter_rank or 0, layout.targets)
    rest = shape.num_parameters - shape.block_parameters
    blocks = shape.block_parameters / layout.tensor_parallel
    held, ranks = blocks + rest, layout.gpus // layout.tensor_parallel
    copies = {"none": 1.0, "selective": _attention_share(shape), "full": 1 / shape.num_layers}
    weights = layout.stream_bytes * held + 4 * adapters
    if layout.strategy == "fsdp2":
        held = held / ranks
        # two blocks at a time, and embeddings and head, which stay until the end of backward
        weights = 4 * (held + 2 * blocks / shape.num_layers + rest)
    if layout.bfloat16:
        copied = adapters if layout.bfloat16_base else blocks + adapters
        weights += 2 * copied * copies[layout.checkpointing]
    trained = adapters if adapted else held
    buckets = 4 * trained if layout.strategy == "ddp" else 0

    kept = kept_by_a_block(shape, layout)
    activations = layout.tokens * shape.num_layers * kept[layout.checkpointing]
    activations += 2 * 4 * layout.tokens * shape.width  # the last norm's input, the last states
    # `token_losses` has a piece of logits, their float32, and its softmax
    piece = min(layout.chunk_size, layout.tokens) * shape.vocab_size
    product = 2 if layout.bfloat16 else 4
    logits = piece * (10 if layout.bfloat16 else 8) + 4 * layout.tokens * shape.width
    if layout.bfloat16 and not layout.bfloat16_base:
        logits += 2 * shape.vocab_size * shape.width
    again = layout.tokens * (kept["none"] - kept[layout.checkpointing])
    slopes = layout.tokens * (layout.stream_bytes * shape.width + 2 * product * shape.mlp_width)
    if adapted and layout.bfloat16 and "down" in layout.targets:
        slopes += layout.tokens * 4 * shape.mlp_width  # the way back through peft's conversion
    # its gradients of the head and of the states, which backward hands on before it goes through
    # the blocks
    made = layout.stream_bytes * layout.tokens * shape.width
    if not adapted:
        made += 4 * shape.vocab_size * shape.width
    return Memory(
        weights=weights,
        gradients=4 * trained + buckets,
        optimizer=layout.optimizer_bytes * trained,
        averaged=4 * trained if layout.averaged else 0,
        activations=activations,
        working=max(made + logits, again + slopes),
    )


def operations_saved(shape: Shape, layout: Layout) -> float:
    """Return the operations a token that adapters save: no gradient of a frozen weight is made."""
    frozen = shape.block_parameters + shape.vocab_size * shape.width
    added = shape.adapter_parameters(layout.adapter_rank or 0, layout.targets)
    return 0 if layout.adapter_rank is None else 2 * frozen - 6 * added


def operations_again(shape: Shape, checkpointing: Checkpointing) -> float:
    """Return the operations a token that checkpointing adds, attention's own left out.

    Two a weight that is multiplied once more; the MLP's last product never is.
    """
    attention = _attention_share(shape) * shape.block_parameters
    widening = (shape.block_parameters - attention) * (
        2 / 3 if shape.activation == "swiglu" else 0.5
    )
    return 2 * {"none": 0, "selective": widening, "full": attention + widening}[checkpointing]


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What a plan takes on trust; put in your own."""

    peak: float = 989e12
    """Operations a second of a GPU: an H100 SXM's dense bfloat16, from NVIDIA's data sheet."""
    mfu: float = 0.53
    """Share of the peak on one GPU without checkpointing: what `benchmarks/train_step.py` measured
    for the 760M on an H100 (`benchmarks/results/train-step-h100.json`; the 350M: 0.48)."""
    scaling: float = 0.85
    """Share of that speed which is left where many GPUs wait for each other and for data. Not
    measured here: Llama 3 (arXiv 2407.21783, table 4) reports an MFU of 0.38 to 0.43 on 8,192 and
    16,384 H100s, which is 0.72 to 0.81 of 0.53."""
    dollars_an_hour: float = 3.0
    """Price of a GPU: a round figure within the 2 to 4 dollars at which clouds list an H100."""
    disk_bytes: float = 2.0
    """Bytes a token on disk: shards hold ids and codes as uint16."""
    batch_bytes: float = 24.0
    """Bytes a token from the loader to the GPU: ids, labels and document numbers as int64."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Speed, time and price of a training, and the bytes that it moves."""

    tokens_a_second: float
    """Of all GPUs."""
    days: float
    dollars: float
    disk_bytes_a_second: float
    """Of all nodes together, in reads of a picture's codes and its caption here and there."""
    loader_bytes_a_second: float
    """Of one GPU's loader."""


def cost_of(
    shape: Shape,
    layout: Layout,
    operations_a_token: float,
    tokens: float,
    assumed: Assumptions | None = None,
) -> Cost:
    """Return speed, time and price of a training.

    Args:
        shape: The decoder.
        layout: Of a step.
        operations_a_token: Forward and backward of all weights, as for MFU.
        tokens: Of the whole training.
        assumed: Speed and price of a GPU.
    """
    assumed = assumed or Assumptions()
    operations = operations_a_token + operations_again(shape, layout.checkpointing)
    speed = assumed.peak * assumed.mfu / (operations - operations_saved(shape, layout))
    if layout.gpus > 1:
        speed *= assumed.scaling
    seconds = tokens / (speed * layout.gpus)
    return Cost(
        tokens_a_second=speed * layout.gpus,
        days=seconds / 86400,
        dollars=seconds / 3600 * layout.gpus * assumed.dollars_an_hour,
        disk_bytes_a_second=speed * layout.gpus * assumed.disk_bytes,
        loader_bytes_a_second=speed * assumed.batch_bytes * layout.tensor_parallel,
    )


def _attention_share(shape: Shape) -> float:
    """Return the share of a block's weights that is attention's."""
    matrices = 3 if shape.activation == "swiglu" else 2
    mlp = matrices * shape.mlp_width * shape.width * shape.num_layers
    return 1 - mlp / shape.block_parameters
