"""Scores of predictions and of equations, in the published convention and against clean truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.equation.expression import Expr
from sciml.equation.tokens import read
from sciml.prose.compiled import compiled

POINTS, REACH = 50, 5.0
"""Right-hand sides are compared at so many points of ``U(-5, 5)^D`` (arXiv 2309.16816, section 4.3)."""


def relative_error(values: Tensor, truth: Tensor) -> Tensor:
    """``||v - u|| / ||u||`` of each trajectory ``(n, T, channels)``."""
    axes = tuple(range(1, truth.ndim))
    norm = truth.double().square().sum(axes).sqrt()
    return (values.double() - truth.double()).square().sum(axes).sqrt() / norm.clamp(min=1e-12)


@dataclass(frozen=True)
class Judged:
    """A decoded equation beside the true one: whether it is one at all, and how far its right-hand sides are off."""

    system: tuple[Expr, ...] | None
    error: float
    """``||f - f*|| / ||f*||`` at random points, nan where it is not valid"""

    @property
    def valid(self) -> bool:
        return self.system is not None


def judge(tokens: Sequence[str], truth: Sequence[Expr], seed: int = 0) -> Judged:
    """Read tokens and compare them with the truth; valid is what can be read and is finite at all points."""
    fields = [f"u_{i}" for i in range(len(truth))]
    try:
        system = read(tokens, fields)
    except ValueError:
        return Judged(None, float("nan"))
    if len(system) != len(truth):
        return Judged(None, float("nan"))
    generator = torch.Generator().manual_seed(seed)
    u = REACH * (2 * torch.rand(POINTS, len(truth), generator=generator, dtype=torch.float64) - 1)
    try:
        found = compiled(system)(u, {})
    except (ValueError, KeyError):  # placeholders left
        return Judged(None, float("nan"))
    if not bool(torch.isfinite(found).all()):
        return Judged(None, float("nan"))
    true = compiled(truth)(u, {})
    return Judged(system, float((found - true).norm() / true.norm().clamp(min=1e-12)))
