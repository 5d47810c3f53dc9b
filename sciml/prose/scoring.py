"""Scores of predictions and of equations, in the published convention and against clean truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.equation.expression import Apply, Expr, Number, Param, canonical, parts
from sciml.equation.tokens import read
from sciml.prose.compiled import compiled
from sciml.prose.refine import freed, measured
from sciml.prose.sindy import distributed
from sciml.prose.trajectories import DEFAULT_SUBSTEPS, integrate

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


def readable(tokens: Sequence[str], dim: int, seed: int = 0) -> tuple[Expr, ...] | None:
    """The system of ``dim`` equations that tokens say, if it is one and finite at random points."""
    try:
        system = read(tokens, [f"u_{i}" for i in range(dim)])
        if len(system) == dim and bool(torch.isfinite(compiled(system)(points(dim, seed), {})).all()):
            return system
    except (ValueError, KeyError):  # no whole expressions; placeholders left
        pass
    return None


def points(dim: int, seed: int = 0) -> Tensor:
    """Where right-hand sides are compared, ``(POINTS, dim)``."""
    generator = torch.Generator().manual_seed(seed)
    return REACH * (2 * torch.rand(POINTS, dim, generator=generator, dtype=torch.float64) - 1)


def judge(tokens: Sequence[str], truth: Sequence[Expr], seed: int = 0) -> Judged:
    """Read tokens and compare them with the truth; valid is what can be read and is finite at all points."""
    system = readable(tokens, len(truth), seed)
    if system is None:
        return Judged(None, math.nan)
    u = points(len(truth), seed)
    found, true = compiled(system)(u, {}), compiled(truth)(u, {})
    return Judged(system, float((found - true).norm() / true.norm().clamp(min=1e-12)))


# -- forecasts -------------------------------------------------------------------------------------------------------
def limited(errors: Tensor) -> Tensor:
    """Relative errors of runs that may blow up: those that are not finite or exceed that of predicting zero are 1."""
    return torch.where(errors.isfinite(), errors, 1.0).clamp(max=1.0)


def persistence(window: Tensor, times: int) -> Tensor:
    """The last state of windows ``(n, points, ...)`` at so many times ``(n, times, ...)``."""
    return window[:, -1:].expand(-1, times, *window.shape[2:])


def constant_mean(window: Tensor, times: int) -> Tensor:
    """The mean of windows ``(n, points, ...)`` at so many times ``(n, times, ...)``."""
    return window.mean(1, keepdim=True).expand(-1, times, *window.shape[2:])


def integrated(
    equations: Sequence[tuple[Expr, ...] | None], u0: Tensor, times: Tensor, substeps: int = DEFAULT_SUBSTEPS
) -> Tensor:
    """Runs ``(n, T, D)`` of each equation from its own state ``u0 (n, D)`` at the first of the times, float64.

    Those of one structure are integrated together. Where there is no equation, or it blows up, the run is not finite.
    """
    out = torch.full((len(u0), len(times), u0.shape[-1]), torch.nan, dtype=torch.float64, device=u0.device)
    groups: dict[tuple[Expr, ...], list[tuple[int, dict[str, float]]]] = {}
    for i, equation in enumerate(equations):
        if equation is not None:
            form, values = freed(equation)
            groups.setdefault(form, []).append((i, values))
    for form, members in groups.items():
        index = [i for i, _ in members]
        names = members[0][1]
        values = {n: torch.tensor([v[n] for _, v in members], dtype=torch.float64, device=u0.device) for n in names}
        out[index] = integrate(form, values, u0[index], times, substeps)
    return out


# -- terms and their numbers -----------------------------------------------------------------------------------------
def numbered(e: Expr) -> dict[Expr, list[float]]:
    """The terms of a right-hand side without their numbers, each with them: its factor, then those that data decide
    (:func:`~sciml.prose.refine.measured`) inside functions; products of sums are multiplied out."""
    out: dict[Expr, list[float]] = {}
    for term in parts(distributed(e), "add"):
        factors = parts(term, "mul")
        factor = math.prod(f.value for f in factors if isinstance(f, Number))
        inside: list[float] = []
        form = math.prod((_masked(f, inside) for f in factors if not isinstance(f, Number)), start=Number(1.0))
        if factor:
            out.setdefault(form, []).extend((factor, *inside))
    return out


def _masked(e: Expr, numbers: list[float]) -> Expr:
    """With one constant for all measured numbers, which are appended; exponents stay."""
    if isinstance(e, Number) and measured(e.value):
        numbers.append(e.value)
        return Param("c")
    if not isinstance(e, Apply):
        return e
    args = (_masked(e.args[0], numbers), e.args[1]) if e.op == "pow" else tuple(_masked(a, numbers) for a in e.args)
    return canonical(Apply(e.op, args))


def same_terms(found: Sequence[Expr] | None, truth: Sequence[Expr]) -> bool:
    """Whether each right-hand side has the terms of the true one and no other, whatever their numbers."""
    if found is None or len(found) != len(truth):
        return False
    return all(numbered(f).keys() == numbered(t).keys() for f, t in zip(found, truth, strict=True))


def coefficient_error(found: Sequence[Expr] | None, truth: Sequence[Expr]) -> float:
    r"""Mean of :math:`\min(|c - c^*| / |c^*|, 1)` over all numbers of the true terms; 1 for those that are missing."""
    errors: list[float] = []
    for f, t in zip(found or [Number(0.0)] * len(truth), truth, strict=True):
        own = numbered(f)
        for form, numbers in numbered(t).items():
            mine = own.get(form, [])
            pairs = zip(mine, numbers, strict=True) if len(mine) == len(numbers) else ((0.0, c) for c in numbers)
            errors += [min(abs(a - c) / abs(c), 1.0) if math.isfinite(a) else 1.0 for a, c in pairs]
    return sum(errors) / max(len(errors), 1)
