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


def pruned(
    fitted: Refined, t: Tensor, u: Tensor, *, level: float = 2.0, penalty: float = 0.0, **options
) -> Refined:  # fmt: skip
    """Backward elimination: the fit of one window u ``(n, D)`` without the constants that the data do not need.

    The least significant constants are set to zero, as long as the size of one is below ``level`` standard deviations
    given that those before are zero; the rest is fitted again, and the change stays if :func:`information`, to which
    each constant adds ``penalty`` besides, falls. Where it does not, half as many are tried, down to one. ``options``
    are those of :func:`~sciml.prose.refine.fit`.
    """
    drop = insignificant(fitted, level)
    while drop:
        try:
            smaller = without(fitted, drop, t, u, **options)
        except ZeroDivisionError:
            smaller = None
        if smaller is not None and information(smaller)[0] < information(fitted)[0] + penalty * len(drop):
            fitted, drop = smaller, insignificant(smaller, level)
        else:
            drop = drop[: len(drop) // 2]
    return fitted


def insignificant(fitted: Refined, level: float) -> list[str]:
    """Constants that may be zero, the least significant first, each given those before (Wald 1943)."""
    names, value = list(fitted.names), fitted.constants[0]
    covariance, found = fitted.covariance[0, : len(names), : len(names)], []
    while names:
        ratio = value.abs() / covariance.diagonal().sqrt()
        i = int(ratio.argmin())
        if not ratio[i] < level:
            break
        found.append(names.pop(i))
        kept = [k for k in range(len(ratio)) if k != i]
        gain = covariance[kept, i] / covariance[i, i]
        value = value[kept] - gain * value[i]
        covariance = covariance[kept][:, kept] - gain[:, None] * covariance[i, kept]
    return found


def without(fitted: Refined, names: Sequence[str], t: Tensor, u: Tensor, **options) -> Refined:
    """The fit of one window with these constants zero; ``ZeroDivisionError`` where something is divided by one."""
    rest = {n: float(v) for n, v in zip(fitted.names, fitted.constants[0], strict=True) if n not in names}
    rhs = tuple(substituted(e, dict.fromkeys(names, 0.0)) for e in fitted.rhs)
    return fit(rhs, rest, t, u[None], sigma=fitted.sigma, **options)
