"""Muon: steps along matrices whose singular values are all near 1, with AdamW for the rest."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from cm3_train.sharded_tensors import by_mesh, local, local_gradient, part_of, whole


class MuonAdamW(torch.optim.Optimizer):
    """Muon and AdamW in one: groups with `kind="muon"` take the first, others the second.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) moves a matrix along its
    Nesterov momentum with all singular values brought near 1. Matrices of one shape are
    orthogonalised as one batch. A group's `blocks` says of how many stacked square matrices each
    of its parameters consists: 3 for a fused query-key-value matrix, since orthogonalising the
    three together would mix their scales.

    Parameters may be split over processes (FSDP2, tensor parallelism), some or all. Momentum stays
    split. For its step a matrix is gathered, and every process orthogonalises it whole.

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
            move = self._muon if group["kind"] == "muon" else self._adamw
            for params in by_mesh(p for p in group["params"] if p.grad is not None):
                move(group, params)
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
            [local(p) for p in params],
            [local_gradient(p) for p in params],
            [local(state["exp_avg"]) for state in states],
            [local(state["exp_avg_sq"]) for state in states],
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
        for shape, same in same_shape.items():
            for p in same:
                if not self.state[p]:
                    self.state[p] = {"momentum": torch.zeros_like(p)}
            grads = [local_gradient(p) for p in same]
            moments = [local(self.state[p]["momentum"]) for p in same]
            torch._foreach_lerp_(moments, grads, 1 - group["momentum"])
            ahead = torch._foreach_lerp(grads, moments, group["momentum"])  # Nesterov's look ahead
            # n matrices (b * r, c), each of b stacked blocks -> one batch (n * b, r, c);
            # a convolution (r, i, h, w) is the matrix (r, i * h * w)
            rows, columns = shape[0] // group["blocks"], math.prod(shape[1:])
            matrices = torch.stack([whole(a, p) for a, p in zip(ahead, same, strict=True)])
            update = orthogonalise(matrices.reshape(-1, rows, columns)).view(len(same), *shape)
            changes = [part_of(u, p) for u, p in zip(update, same, strict=True)]
            members = [local(p) for p in same]
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
