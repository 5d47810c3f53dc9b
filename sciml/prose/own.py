"""The equations behind a trajectory of one's own: sparse regression for their terms, multiple shooting for the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciml.equation.expression import Expr, Number, Param
from sciml.prose.rank import pruned
from sciml.prose.refine import LEAST, Refined, fit
from sciml.prose.sindy import polynomials, sindy, support_of, values, written
from sciml.prose.smoothing import noise, smoothed

STEP = 0.1
"""Longest step of the solver while fitting, in units of the time in which the fields change"""

SEGMENT = 1.0
"""Longest segment of multiple shooting in the same units: longer ones of a chaotic or stiff flow cannot be fitted"""
TERMS, FAR = 300, 0.1
"""Constants of all equations together, and how small a part of its size a field may vary by"""
MOST = 5000
"""Times of a window, whose smoothing takes their cube"""
LEAST_NOISE = 1e-4
"""Noise that is reckoned with at least, for what the solver makes of smooth data, as a part of the fields"""

WELL = 1.5
"""Misfit over noise, mean squares, up to which equations explain a window"""


@dataclass(frozen=True)
class Identified:
    r"""Polynomial equations :math:`\dot u_i = \sum_k c_{ik} \theta_k(u)` of one window, fitted through a solver.

    Parameters
    ----------
    fit : in units of ``span`` and ``size``, one constant for each term
    terms : equation and function of each constant that is left
    start, span : first time of the window, and the unit of time
    size : units of the fields ``(D,)``
    reduced : mean square of the misfit over that of the noise that the smoothness of the window tells, near 1 where the
        equations explain the window; errors of constants are of the larger of the two
    """

    fit: Refined
    terms: tuple[tuple[int, Expr], ...]
    start: float
    span: float
    size: Tensor
    reduced: float

    @property
    def factors(self) -> Tensor:
        """What makes constants of those of the fit ``(P,)``."""
        each = [self.size[i] / values((e,), len(self.size))(self.size)[0] for i, e in self.terms]
        return torch.stack(each) / self.span if each else self.size.new_zeros(0)

    @property
    def constants(self) -> Tensor:
        """Of the terms ``(P,)``."""
        return self.fit.constants[0] * self.factors

    @property
    def deviations(self) -> Tensor:
        """Standard deviations of the constants ``(P,)``."""
        variance = self.fit.covariance[0].diagonal()[: len(self.terms)]
        return variance.clamp(min=0).sqrt() * self.factors.abs()

    @property
    def rhs(self) -> tuple[Expr, ...]:
        """The right-hand sides with numbers, in fields ``u_0``, ``u_1``, ..."""
        library = list(dict.fromkeys(e for _, e in self.terms))
        table = self.size.new_zeros(len(library), len(self.size))
        for (i, e), c in zip(self.terms, self.constants.tolist(), strict=True):
            table[library.index(e), i] = c
        return written(library, table)

    def predict(self, times: Tensor, runs: int = 0, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Fields and their standard deviations ``(n, D)`` at increasing times from the window's start on; see
        :meth:`~sciml.prose.refine.Refined.predict`."""
        scaled = (torch.as_tensor(times).double() - self.start) / self.span
        states, spread = self.fit.predict(scaled, runs, torch.Generator().manual_seed(seed))
        return states[0] * self.size, spread[0] * self.size


def identify(t: Tensor, u: Tensor, degree: int = 2, *, iterations: int = 30) -> Identified:
    """Polynomial equations up to ``degree`` of a window u ``(n, D)`` at increasing times t ``(n,)``, with noise or not.

    Fields are scaled by their root mean squares and times by the time in which they change, so that units do not
    matter. Terms are those of :func:`~sciml.prose.sindy.sindy`; their constants and the initial state are fitted by
    multiple shooting (Bock 1983; :func:`~sciml.prose.refine.fit`), and terms that the data do not need are left out
    (:func:`~sciml.prose.rank.pruned`), by the criterion of Chen & Chen (2008, Biometrika 95, 759, gamma = 1), which
    knows how many there were to choose from. All fields that matter must be among u; the noise of each is what its
    smoothness tells.

    Where the misfit is larger than noise, all terms are fitted at once and left out from there.

    Raises ``ValueError`` for fewer times than three for each term to choose from, values that are not finite, fields
    that are constant, far from zero for what they vary, or multiples of each other, and where no equations are found.
    """
    t, u = torch.as_tensor(t).double(), torch.as_tensor(u).double()
    check(t, u, degree)
    span, size = units(t, u)
    s, v = (t - t[0]) / span, u / size
    sigma = noise(s, v).clamp(min=LEAST_NOISE)[None]
    library = polynomials(u.shape[1], degree)
    substeps = max(1, math.ceil(float(s.diff().max()) / STEP))
    everything = torch.ones(len(library), u.shape[1], dtype=torch.bool)
    try:
        chosen = support_of(sindy(s, v, library, sigma=sigma[0], substeps=substeps)[0], library)
    except ValueError:  # all of its models blow up
        chosen = everything
    penalty = 2 * math.log(everything.numel())
    options: dict = dict(segments=max(8, math.ceil(float(s[-1]) / SEGMENT)), substeps=substeps, iterations=iterations)

    def fitted(support: Tensor) -> tuple[Refined, dict[str, tuple[int, Expr]]]:
        rhs, names = summed(library, support)
        found = louder(fit(rhs, dict.fromkeys(names, math.nan), s, v[None], sigma=sigma, **options))
        level = math.sqrt(math.log(u.numel()) + penalty)
        return pruned(found, s, v, level=level, penalty=penalty, **options), names

    best, names = fitted(chosen)
    if not misfit(best, sigma) <= WELL and chosen is not everything:
        best, names = min((best, names), fitted(everything), key=lambda f: cost(f[0], penalty))
    if math.isinf(cost(best, penalty)):
        raise ValueError(f"no equations of degree {degree} were found that can be integrated over the window: a "
                         "variable may be missing, the record be mostly noise, or the degree be wrong")  # fmt: skip
    terms = tuple(names[n] for n in best.names)
    return Identified(best, terms, float(t[0]), float(span), size, misfit(best, sigma))


def check(t: Tensor, u: Tensor, degree: int) -> None:
    """Refuse windows that cannot tell equations."""
    if degree < 1:
        raise ValueError(f"degree must be at least 1, got {degree}")
    if u.ndim != 2 or t.shape != u.shape[:1] or len(t) < LEAST:
        raise ValueError(f"give a window (times, fields) of at least {LEAST} times, got {tuple(u.shape)} at {len(t)}")
    if not u.isfinite().all() or not t.isfinite().all():
        raise ValueError("values must be finite: cut the window where data are missing")
    if (t.diff() <= 0).any():
        raise ValueError(f"times must increase; numbers {int((t.diff() <= 0).nonzero()[0, 0]) + 1} and the next do not")
    if len(t) > MOST:
        raise ValueError(f"{len(t)} times are more than can be smoothed, at most {MOST}: thin them or cut the window")
    terms, advice = math.comb(u.shape[1] + degree, degree), "give a lower degree or fewer variables"
    if terms * u.shape[1] > TERMS:
        raise ValueError(f"{terms} terms in {u.shape[1]} equations are too many, at most {TERMS}: {advice}")
    if len(t) < 3 * terms:
        raise ValueError(f"{len(t)} times cannot tell {terms} terms apart, three times as many can: {advice}")
    spread, size = u.std(0), u.square().mean(0).sqrt()
    if still := (spread <= 1e-12 * size).nonzero()[:, 0].tolist():
        raise ValueError(f"field {still[0]} is constant: leave it out")
    if degree > 1 and (far := (spread < FAR * size).nonzero()[:, 0].tolist()):
        raise ValueError(f"field {far[0]} varies by {spread[far[0]]:.3g} about {u[:, far[0]].mean():.3g}, so that its "
                         "powers are all alike: subtract a value near its mean")  # fmt: skip
    like = torch.corrcoef(u.T).abs().reshape(u.shape[1], -1).triu(1) > 1 - 1e-6
    if like.any():
        i, j = like.nonzero()[0].tolist()
        raise ValueError(f"fields {i} and {j} are multiples of each other: leave one out")


def louder(found: Refined) -> Refined:
    """The same fit with as much noise as its residuals show, where that is more than was reckoned with."""
    factor = found.reduced.clamp(min=1)
    sigma, covariance = found.sigma * factor.sqrt()[:, None], found.covariance * factor[:, None, None]
    return replace(
        found, sigma=sigma, covariance=covariance, misfit=found.misfit / factor, reduced=found.reduced / factor
    )


def misfit(found: Refined, sigma: Tensor) -> float:
    """Mean square of residuals over that of noise of size ``sigma``."""
    return float(found.reduced[0] * (found.sigma / sigma).square().mean())


def cost(found: Refined, penalty: float) -> float:
    """The criterion of Chen & Chen for noise of unknown size, but for a constant."""
    constants, n = found.covariance.shape[-1], found.samples
    square = float(found.misfit[0] * found.sigma[0].log().mul(2).mean().exp())
    total = n * math.log(max(square, 1e-300)) + constants * math.log(n) + penalty * len(found.names)
    return total if math.isfinite(square) else math.inf


def units(t: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """The time in which the fields change by as much as they vary, and their root mean squares ``(D,)``."""
    smooth, size = smoothed(t, u)[0], u.square().mean(0).sqrt()
    rates = torch.gradient(smooth, spacing=(t,), dim=0)[0] / size
    return (smooth / size).std(0).norm() / rates.square().mean(0).sum().sqrt(), size


def summed(library: Sequence[Expr], support: Tensor) -> tuple[tuple[Expr, ...], dict[str, tuple[int, Expr]]]:
    """Right-hand sides with a constant before each term of ``support``, bool ``(T, D)``, and what each of these is."""
    rhs: list[Expr] = []
    names: dict[str, tuple[int, Expr]] = {}
    for i, column in enumerate(support.T.tolist()):
        rhs.append(Number(0.0))
        for term in (e for e, there in zip(library, column, strict=True) if there):
            name = f"c{len(names):03d}"
            names[name] = i, term
            rhs[i] = rhs[i] + Param(name) * term
    return tuple(rhs), names
