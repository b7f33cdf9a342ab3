"""Optimizers and schedules: AdamW, or Muon for the hidden matrices with AdamW for the rest.

Takes a model and a frozen config; gives a torch Optimizer (one, whatever the kind, so that
Lightning and checkpoints see nothing special) and a LambdaLR.
"""

from __future__ import annotations

import functools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.lr_scheduler import LambdaLR

from cm3_train.config import OptimConfig

_NOT_HIDDEN = re.compile(
    r"^output\.|(^|[._])(embed(ding)?s?|positions?|wte|wpe|head|conv_in|conv_out)(\.|$)"
)
_FUSED = re.compile(r"(^|[._])\w*qkv\w*([._]|$)")


def build_optimizer(
    model: nn.Module, config: OptimConfig, rates: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """Return the optimizer of `config` over the trainable parameters of `model`.

    Weight decay falls on parameters of two and more dimensions only.

    Args:
        model: Whose parameters are trained.
        config: How.
        rates: Peak rates of parts by the start of their parameters' names, such as
            `{"discriminator.": 2e-4}`. They take AdamW without weight decay, whatever the config.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups: list[dict[str, Any]] = []
    for start, rate in (rates or {}).items():
        part = [name for name in named if name.startswith(start)]
        groups.append(
            {"params": [named.pop(name) for name in part], "lr": rate, "weight_decay": 0.0}
        )
    muon_names = [n for n in hidden_matrices(model) if n in named] if config.name == "muon" else []
    rest = [p for name, p in named.items() if name not in set(muon_names)]
    groups += [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    if config.name == "adamw":
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
    for blocks in (1, 3):
        chosen = [n for n in muon_names if _blocks(n, named[n]) == blocks]
        groups.append(
            {
                "params": [named[name] for name in chosen],
                "kind": "muon",
                "blocks": blocks,
                "lr": config.muon_lr,
                "weight_decay": config.weight_decay,
            }
        )
    groups = [group for group in groups if group["params"]]
    return MuonAdamW(groups, lr=config.lr, betas=config.betas)


def build_schedule(optimizer: torch.optim.Optimizer, config: OptimConfig) -> LambdaLR:
    """Return a schedule that multiplies every group's peak rate by `lr_share(config)`."""
    return LambdaLR(optimizer, lr_share(config))


def lr_share(config: OptimConfig) -> Callable[[int], float]:
    """Return the function from step to the share of the peak rate."""

    def share(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        if config.schedule == "constant":
            return 1.0
        done = (step - config.warmup_steps) / (config.total_steps - config.warmup_steps)
        done = min(1.0, done)
        left = 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
        return config.final_lr_share + (1 - config.final_lr_share) * left

    return share


def hidden_matrices(model: nn.Module) -> list[str]:
    """Return the names of the parameters that Muon takes.

    These are the matrices that map hidden states to hidden states: two dimensions, or four (a
    convolution is the matrix of its outputs by all else); no embedding, no positions, no head, no
    first or last convolution (told by the module's class or the name).
    """
    embeddings = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)
    }
    return [
        name
        for name, p in model.named_parameters()
        if p.requires_grad
        and p.ndim in (2, 4)
        and id(p) not in embeddings
        and not _NOT_HIDDEN.search(name)
    ]


class MuonAdamW(torch.optim.Optimizer):
    """Muon and AdamW in one: groups with `kind="muon"` take the first, others the second.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) moves a matrix along its
    Nesterov momentum with all singular values brought near 1. Matrices of one shape are
    orthogonalised as one batch. A group's `blocks` says of how many stacked square matrices each
    of its parameters consists: 3 for a fused query-key-value matrix, since orthogonalising the
    three together would mix their scales.

    Args:
        params: Parameter groups; those of Muon carry `kind="muon"` and `blocks`.
        lr: Default rate.
        betas: AdamW's decay rates.
        eps: AdamW's.
        weight_decay: Default decoupled decay.
        momentum: Muon's.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 6e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        """Fill the groups up with the defaults."""
        defaults = {
            "kind": "adamw",
            "blocks": 1,
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step; parameters without a gradient stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                (self._muon if group["kind"] == "muon" else self._adamw)(group, params)
        return loss

    def _adamw(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p] = {
                    "step": torch.zeros((), dtype=torch.float32, device=p.device),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        states = [self.state[p] for p in params]
        adamw(
            params,
            [p.grad for p in params if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _muon(self, group: dict[str, Any], params: list[Tensor]) -> None:
        same_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for p in params:
            same_shape[p.shape].append(p)
        for shape, members in same_shape.items():
            grads = [p.grad for p in members if p.grad is not None]
            for p in members:
                if not self.state[p]:
                    self.state[p] = {"momentum": torch.zeros_like(p)}
            moments = [self.state[p]["momentum"] for p in members]
            torch._foreach_lerp_(moments, grads, 1 - group["momentum"])
            ahead = torch._foreach_lerp(grads, moments, group["momentum"])  # Nesterov's look ahead
            # n matrices (b * r, c), each of b stacked blocks -> one batch (n * b, r, c);
            # a convolution (r, i, h, w) is the matrix (r, i * h * w)
            rows, columns = shape[0] // group["blocks"], math.prod(shape[1:])
            update = orthogonalise(torch.stack(ahead).reshape(-1, rows, columns))
            changes = update.view(len(members), *shape).unbind()
            scale = math.sqrt(max(1.0, rows / columns))
            torch._foreach_mul_(members, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(members, changes, alpha=-group["lr"] * scale)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Bring the singular values of each matrix near 1 (about 0.7 to 1.2) by Newton-Schulz.

    With X = Q X0 the quintic step needs X X^T alone. So where one side is twice the other or more,
    float32 iterates on that small square matrix and multiplies the large one once at the end.
    Elsewhere, and in bfloat16, which would lose the small singular values so, X itself is iterated.

    Runs in bfloat16 where the hardware multiplies in it and the iteration gains by it: it tolerates
    that, and is about twice as fast.

    Args:
        matrices: (n, r, c).
        steps: Iterations.

    Returns:
        (n, r, c) in the dtype that came.
    """
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    long = x.shape[-1] >= 2 * x.shape[-2]
    x = x.to(_iteration_dtype(x.device, long))
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if long and x.dtype == torch.float32:
        x = _iterate_on_gram(x, steps)
    else:
        for _ in range(steps):
            x = 3.4445 * x + _quintic(x @ x.mT) @ x
    return (x if wide else x.mT).to(matrices.dtype)


def _quintic(gram: Tensor) -> Tensor:
    """Return a step's factor of X, less 3.4445: symmetric, of X's Gram matrix (n, r, r)."""
    return torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)


def _iterate_on_gram(x: Tensor, steps: int) -> Tensor:
    """Iterate as `orthogonalise` does on X (n, r, c), as one product with a matrix (n, r, r)."""
    gram = x @ x.mT
    product = torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device).expand_as(gram)
    for step in range(steps):
        factor = _quintic(gram)
        factor.diagonal(dim1=-2, dim2=-1).add_(3.4445)
        product = factor @ product
        if step < steps - 1:
            gram = factor @ gram @ factor
    return product @ x


@functools.cache
def _iteration_dtype(device: torch.device, long: bool) -> torch.dtype:
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # on a CPU the small matrix in float32 beats the large one in bfloat16
        fast = device.type != "cpu" or (torch.cpu._is_avx512_bf16_supported() and not long)
    return torch.bfloat16 if fast else torch.float32


def _blocks(name: str, parameter: Tensor) -> int:
    fused = _FUSED.search(name) and parameter.shape[0] == 3 * parameter.shape[1]
    return 3 if fused else 1
