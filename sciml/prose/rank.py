"""Candidate equations of one window, ranked by fit and simplicity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.equation.base import substituted
from sciml.equation.expression import Expr
from sciml.prose.refine import Refined, fit, freed


@dataclass(frozen=True)
class Ranked:
    """Candidates from the best to the worst.

    Parameters
    ----------
    fits : the fit of each, of one window
    score : Bayesian information criteria, infinite for fits that failed
    index : position of each among the candidates given
    """

    fits: tuple[Refined, ...]
    score: tuple[float, ...]
    index: tuple[int, ...]

    @property
    def best(self) -> Refined:
        return self.fits[0]

    @property
    def table(self) -> list[dict[str, object]]:
        """One row for each candidate: its place among those given, equations, constants, misfit and score."""
        return [
            {
                "candidate": i,
                "equations": " | ".join(map(str, f.written())),
                "constants": len(f.names),
                "reduced chi-square": float(f.reduced[0]),
                "score": s,
            }
            for f, s, i in zip(self.fits, self.score, self.index, strict=True)
        ]


def information(fitted: Refined) -> Tensor:
    """Bayesian information criterion ``(B,)``: misfit + (P + D) ln N of normal noise of known size (Schwarz 1978)."""
    score = fitted.misfit + fitted.covariance.shape[-1] * math.log(fitted.samples)
    return torch.where(score.isfinite(), score, torch.inf)


def fit_each(
    equations: Sequence[tuple[Expr, ...]], t: Tensor, u: Tensor, sigma: Tensor | None = None, **options
) -> list[Refined]:
    """The fit of each window of u ``(B, n, D)`` to its own equations, those of one structure together.

    ``sigma`` is ``(B,)`` or None, ``options`` are those of :func:`~sciml.prose.refine.fit`.
    """
    groups: dict[tuple[Expr, ...], list[tuple[int, dict[str, float]]]] = {}
    for b, rhs in enumerate(equations):
        structure, start = freed(rhs)
        groups.setdefault(structure, []).append((b, start))
    out: dict[int, Refined] = {}
    for structure, members in groups.items():
        index = [b for b, _ in members]
        start = {n: torch.tensor([s[n] for _, s in members], dtype=torch.float64) for n in members[0][1]}
        fits = fit(structure, start, t, u[index], sigma=None if sigma is None else sigma[index], **options)
        out |= {b: fits.window(k) for k, b in enumerate(index)}
    return [out[b] for b in range(len(equations))]


def rank(candidates: Sequence[tuple[Expr, ...]], t: Tensor, u: Tensor, *, sigma: float | Tensor, **options) -> Ranked:
    """All candidates fitted to the window u ``(n, D)`` at times t ``(n,)`` and scored by :func:`information`.

    Their numbers are freed (:func:`~sciml.prose.refine.freed`) and are start values; parameters are unknowns.
    ``options`` are those of :func:`~sciml.prose.refine.fit`. ``sigma``, the standard deviation of the noise, must be
    one for all, or misfits could not be compared (:func:`~sciml.prose.smoothing.smoothed` estimates it). Candidates
    of equal score, such as one given twice, stay in order. Raises ``ValueError`` where there are none.
    """
    if not candidates:
        raise ValueError("there are no candidates to rank")
    fits = [fit(*freed(rhs), t, u[None], sigma=sigma, **options) for rhs in candidates]
    scores = [float(information(f)[0]) for f in fits]
    order = sorted(range(len(fits)), key=scores.__getitem__)
    return Ranked(tuple(fits[i] for i in order), tuple(scores[i] for i in order), tuple(order))


def pruned(fitted: Refined, t: Tensor, u: Tensor, *, level: float = 2.0, **options) -> Refined:
    """Backward elimination: the fit of one window u ``(n, D)`` without the constants that the data do not need.

    The least significant constant is set to zero, as long as its size is below ``level`` standard deviations, the rest
    is fitted again, and the change stays if :func:`information` falls. ``options`` are those of
    :func:`~sciml.prose.refine.fit`.
    """
    while fitted.names:
        spread = fitted.covariance[0].diagonal()[: len(fitted.names)].sqrt()
        significance = fitted.constants[0].abs() / spread
        i = int(significance.argmin())
        if not significance[i] < level:
            break
        rest = {n: float(v) for n, v in zip(fitted.names, fitted.constants[0], strict=True) if n != fitted.names[i]}
        try:
            rhs = tuple(substituted(e, {fitted.names[i]: 0.0}) for e in fitted.rhs)
        except ZeroDivisionError:
            break
        smaller = fit(rhs, rest, t, u[None], sigma=fitted.sigma[0], **options)
        if information(smaller)[0] >= information(fitted)[0]:
            break
        fitted = smaller
    return fitted
