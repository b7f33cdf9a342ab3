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
MLP_KEPT = {"relu": 1, "gelu": 2, "swiglu": 4}
"""Widths of the MLP that backward finds, by activation: "relu" keeps its result, which is the next
product's input; "gelu" its input too; "swiglu" gate, input, activated gate and their product."""


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
    optimizer_floats: int = 2
    """Floats of optimizer state a weight: AdamW's two moments; Muon has one for hidden matrices."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one GPU at the largest moment of a step."""

    weights: float
    """Float32, what FSDP2 has gathered, and copies in bfloat16 that backward will use."""
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
    each norm and one for each head go with them.
    """
    stream, product = 4, 2 if layout.bfloat16 else 4
    width = shape.width
    mlp = MLP_KEPT[shape.activation] * shape.mlp_width / layout.tensor_parallel
    attention = stream * width + product * 5 * width + 4 * shape.num_heads + 8
    whole = attention + stream * width + product * (width + mlp) + 8
    return {"none": whole, "selective": attention + stream * width, "full": stream * width}


def memory_of_a_step(shape: Shape, layout: Layout) -> Memory:
    """Count the bytes on one GPU."""
    rest = shape.num_parameters - shape.block_parameters
    blocks = shape.block_parameters / layout.tensor_parallel
    held, ranks = blocks + rest, layout.gpus // layout.tensor_parallel
    copies = {"none": 1.0, "selective": _attention_share(shape), "full": 1 / shape.num_layers}
    weights = 4 * held
    if layout.strategy == "fsdp2":
        held = held / ranks
        # two blocks at a time, and embeddings and head, which stay until the end of backward
        weights = 4 * (held + 2 * blocks / shape.num_layers + rest)
    if layout.bfloat16:
        weights += 2 * blocks * copies[layout.checkpointing]
    buckets = 4 * held if layout.strategy == "ddp" else 0

    kept = kept_by_a_block(shape, layout)
    activations = layout.tokens * shape.num_layers * kept[layout.checkpointing]
    activations += 2 * 4 * layout.tokens * shape.width  # the last norm's input, the last states
    # `token_losses` has a piece of logits, their float32, and its softmax
    piece = min(layout.chunk_size, layout.tokens) * shape.vocab_size
    product = 2 if layout.bfloat16 else 4
    logits = piece * (10 if layout.bfloat16 else 8) + 4 * layout.tokens * shape.width
    if layout.bfloat16:
        logits += 2 * shape.vocab_size * shape.width
    again = layout.tokens * (kept["none"] - kept[layout.checkpointing])
    slopes = layout.tokens * (4 * shape.width + 2 * product * shape.mlp_width)
    # its gradients of the head and of the states stay while backward goes through the blocks
    made = 4 * (shape.vocab_size + layout.tokens) * shape.width
    return Memory(
        weights=weights,
        gradients=4 * held + buckets,
        optimizer=4 * layout.optimizer_floats * held,
        averaged=4 * held if layout.averaged else 0,
        activations=activations,
        working=made + max(logits, again + slopes),
    )


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
        operations_a_token: Forward and backward, as for MFU.
        tokens: Of the whole training.
        assumed: Speed and price of a GPU.
    """
    assumed = assumed or Assumptions()
    extra = operations_again(shape, layout.checkpointing) / operations_a_token
    speed = assumed.peak * assumed.mfu / operations_a_token / (1 + extra)
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
