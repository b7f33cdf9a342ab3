"""Matrix products for a fixed number of rows: decoding a batch.

Takes a decoder, gives the same decoder. A product with few rows spends its time reading the
weights. On a CPU it also copies them into the order that the arithmetic wants. oneDNN can keep that
copy, at the cost of the weights' memory once more; or the product can be reversed, weights times
inputs. On a CUDA device, in 16 bits, a kernel of our own reads faster than cuBLAS for some shapes.
Which way is fastest depends on the device, the shape and the rows, so it is measured.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cm3_model.few_rows import multiply
from cm3_model.transformer import Decoder

Way = Literal["plain", "reversed", "packed", "few-rows"]
"""How to multiply: as `F.linear`, with the sides swapped, from oneDNN's copy, by `few_rows`."""

WAYS: dict[str, tuple[Way, ...]] = {
    "cpu": ("plain", "reversed", "packed"),
    "cuda": ("plain", "few-rows"),
}
"""What there is to choose from on each kind of device."""

WORTH = {"cpu": 0.8, "cuda": 0.98}
"""Largest share of the plain way's time for which another way is taken."""

MOST_SPANS = 4
"""Spans of outputs of a layer that are kept ready: each takes its memory once more."""


def can_pack(dtype: torch.dtype) -> bool:
    """Tell whether this PyTorch and processor have oneDNN's packed matrices of a format."""
    operations = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not hasattr(operations, "_linear_pointwise"):
        return False
    if dtype == torch.bfloat16:
        return bool(operations._is_mkldnn_bf16_supported())
    return dtype == torch.float32


class PackedLinear(nn.Module):
    """A linear layer without bias or training, fast for inputs of `rows` rows, right for all."""

    def __init__(
        self, linear: AnyLinear, rows: int, way: Way = "packed", *, whole: bool = True
    ) -> None:
        """Take `linear.weight` (out, in); unless `whole`, only spans of it are kept ready."""
        super().__init__()
        self.rows = rows
        self.way = way
        self.whole = whole
        self.weight = linear.weight.requires_grad_(False)
        self._spans: dict[
            tuple[int, int], PackedLinear
        ] = {}  # no submodules: their weights are these
        self._packed: Tensor | None = None
        self._packed_from: tuple[Tensor, int | None] | None = None
        self._pack()

    def _pack(self) -> None:
        """Make oneDNN's copy anew; none in a format that it does not have."""
        self._spans = {}
        weight = self.weight.detach()
        fits = weight.device.type == "cpu" and can_pack(weight.dtype)
        packs = self.way == "packed" and fits and self.whole
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, self.rows) if packs else None
        # Held, so that no other weights can come to lie at this address.
        self._packed_from = (weight, _version(weight)) if packs else None

    def span(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Map (..., in) to outputs `start` to `stop - 1`; a few spans' matrices are kept ready."""
        spans, key = self._spans, (start, stop)
        wanted = self.weight.detach()[start:stop]
        part = spans.get(key)
        if part is None or not part.weight.is_set_to(wanted):
            # one more copy of nearly all, or of every span that was ever asked, would not pay
            nearly_all = self.whole and 4 * len(wanted) > 3 * len(self.weight)
            if nearly_all or len(spans) >= MOST_SPANS:
                return self(x)[..., start:stop] if self.whole else F.linear(x, wanted)
            linear = nn.Linear(*wanted.shape[::-1], bias=False, device="meta")
            linear.weight = nn.Parameter(wanted, requires_grad=False)
            part = spans[key] = PackedLinear(linear, self.rows, self.way)
        return part(x)

    def _is_stale(self) -> bool:
        """Tell whether the weights were written to or replaced since oneDNN's copy was made."""
        if self._packed_from is None or torch.compiler.is_compiling():
            return False
        weight, version = self._packed_from
        return not self.weight.is_set_to(weight) or _version(self.weight) != version

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedLinear:
        super()._apply(fn, recurse)  # as of `to`
        self._pack()
        return self

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        super()._load_from_state_dict(*args, **options)
        self._pack()

    def __getstate__(self) -> dict[str, Any]:
        """Leave oneDNN's copy out, which can be neither copied nor pickled."""
        return self.__dict__ | {"_packed": None, "_packed_from": None, "_spans": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore, and make oneDNN's copy anew."""
        super().__setstate__(state)
        self._pack()

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        if self._is_stale():
            self._pack()
        if self._packed is not None and x.dtype == self.weight.dtype:
            return torch.ops.mkldnn._linear_pointwise(x, self._packed, None, "none", [], "")
        if self.way == "few-rows":
            return multiply(x, self.weight)
        if self.way != "reversed" or x.numel() != self.rows * x.shape[-1]:
            return F.linear(x, self.weight)
        product = self.weight @ x.reshape(self.rows, -1).mT  # (out, rows)
        return product.mT.contiguous().view(*x.shape[:-1], -1)


def _version(weight: Tensor) -> int | None:
    """Return how often a tensor was written to, which inference tensors do not count."""
    return None if weight.is_inference() else weight._version


AnyLinear = nn.Linear | PackedLinear


def pack_weights(model: Decoder, rows: int) -> Decoder:
    """Make the matrices fast for decode steps of `rows` rows, in place; return the decoder.

    Each shape of matrix takes the way that is fastest here (see the module). Timing them takes well
    under a second. Logits then differ from the plain ones by rounding. Of a tied output, only the
    spans of ids that steps ask for are laid out.

    Args:
        model: A decoder in float32 or bfloat16 on the CPU, or in bfloat16 or float16 on a CUDA
            device; in eval mode afterwards. It can still be saved.
        rows: Rows of the cache: prompts times streams.

    Raises:
        ValueError: If the decoder is elsewhere or in another dtype, or `rows` is below 1.
    """
    weight = model.token_embedding.weight
    if rows < 1:
        raise ValueError(f"rows: wanted at least 1, got {rows}")
    wanted = {
        "cpu": (torch.float32, torch.bfloat16),
        "cuda": (torch.bfloat16, torch.float16),
    }
    if weight.dtype not in wanted.get(weight.device.type, ()):
        raise ValueError(
            f"model: wanted float32 or bfloat16 on a CPU, or 16 bits on a CUDA device, "
            f"got {weight.dtype} on {weight.device}"
        )
    places: dict[torch.Size, list[tuple[nn.Module, str, AnyLinear]]] = defaultdict(list)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, AnyLinear):
                places[child.weight.shape].append((module, name, child))
    for same_shape in places.values():
        chosen = fastest([linear for _, _, linear in same_shape], rows)
        for (module, name, _), layer in zip(same_shape, chosen, strict=True):
            setattr(module, name, layer)
    if model.output is None:
        tied = nn.Linear(*weight.shape[::-1], bias=False, device="meta")
        tied.weight = weight
        (head,) = fastest([tied], rows)
        model.packed_head = (PackedLinear(tied, rows, head.way, whole=False),)
    return model.requires_grad_(False).eval()


@torch.no_grad()
def fastest(linears: Sequence[AnyLinear], rows: int) -> list[PackedLinear]:
    """Return replacements for `linears`, all of one shape, the fastest way for `rows` rows.

    All of them are timed in turn, as a decode step runs through them: a single one would stay in
    the processor's cache.
    """
    weight = linears[0].weight
    device = weight.device.type
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 1, weight.shape[1], generator=generator).to(weight)
    seconds: dict[Way, float] = {}
    made: dict[Way, list[PackedLinear]] = {}
    for way in WAYS[device]:
        if way == "packed" and not can_pack(weight.dtype):
            continue
        made[way] = [PackedLinear(linear, rows, way) for linear in linears]
        taken = _seconds_on_cuda(made[way], x) if device == "cuda" else _seconds(made[way], x)
        seconds[way] = taken * (1.0 if way == "plain" else 1 / WORTH[device])
    return made[min(seconds, key=lambda way: seconds[way])]


def _seconds(layers: Sequence[nn.Module], x: Tensor) -> float:
    """Return the least time of three rounds after one that warms up."""
    rounds = []
    for _ in range(4):
        start = time.perf_counter()
        for layer in layers:
            layer(x)
        rounds.append(time.perf_counter() - start)
    return min(rounds[1:])


def _seconds_on_cuda(layers: Sequence[nn.Module], x: Tensor) -> float:
    """Return the same of a recorded graph: launched one by one, kernels would wait for Python."""
    for layer in layers:
        layer(x)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for layer in layers:
            layer(x)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    rounds = []
    for _ in range(4):
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        rounds.append(start.elapsed_time(end) / 1000)
    return min(rounds[1:])
