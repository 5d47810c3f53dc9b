"""Optimisers for :func:`sciml.train.fit`: functions ``(network, lr, weight decay) -> optimiser``."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sciml.nn.layers import has_bfloat16


def adamw(net: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""
    return torch.optim.AdamW(net.parameters(), lr=lr, betas=(0.9, 0.999), weight_decay=weight_decay)


def muon(net: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """:class:`Muon` for the matrices of all linear layers but the last, AdamW for the rest."""
    linear = [m.weight for m in net.modules() if isinstance(m, nn.Linear)][:-1]
    chosen = {id(w) for w in linear}
    return Muon(linear, [p for p in net.parameters() if id(p) not in chosen], lr, weight_decay)


class Muon(torch.optim.AdamW):
    """Momentum made orthogonal by Newton-Schulz iterations for matrices (Jordan et al. 2024), AdamW for other weights.

    Matrices of one shape are updated together, which a GPU needs; ``torch.optim.Muon`` takes them one by one. Updates
    have the root mean square of AdamW's, so that learning rates are alike (Liu et al. 2025, arXiv 2502.16982, eq. 4).
    """

    def __init__(self, matrices: Iterable[Tensor], others: Iterable[Tensor], lr: float, weight_decay: float):
        groups = [{"params": list(others)}, {"params": list(matrices), "orthogonal": True, "momentum": 0.95}]
        super().__init__(groups, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            if group.get("orthogonal"):
                self._step_matrices(group)
        return super().step(closure)

    def _step_matrices(self, group: dict) -> None:
        shapes: dict[torch.Size, list[Tensor]] = {}
        for p in group["params"]:
            if p.grad is not None:
                shapes.setdefault(p.shape, []).append(p)
        for shape, same in shapes.items():
            grads = [p.grad for p in same if p.grad is not None]
            for p in same:
                if "momentum" not in self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            momenta = [self.state[p]["momentum"] for p in same]
            torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
            nesterov = torch.stack(torch._foreach_lerp(grads, momenta, group["momentum"]))
            change = orthogonal(nesterov).to(same[0].dtype) * (0.2 * max(shape) ** 0.5)
            torch._foreach_mul_(same, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(same, list(change), alpha=-group["lr"])
            for p in same:
                p.grad = None  # AdamW passes over it


def orthogonal(matrices: Tensor, iterations: int = 5) -> Tensor:
    """About ``U V'`` of each of ``matrices (k, m, n)`` with the singular value decomposition ``U S V'``, in bfloat16
    where the device has it.

    The quintic iteration of Jordan et al. (2024) brings singular values into 0.7 to 1.2, and not closer.
    """
    x = matrices.bfloat16() if has_bfloat16(matrices.device.type) else matrices.float()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        a = x @ x.mT
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return x.mT if tall else x
