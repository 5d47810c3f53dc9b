"""SINDy as a baseline: sparse regression of rates on a library of functions (Brunton, Proctor & Kutz 2016), by pysindy.

Rates are never needed by themselves: a differentiation is a pair of matrices W, V with V u = W u', so that finite
differences, splines and the weak form (Messenger & Bortz 2021) are one regression, V u = W Theta(u) Xi.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement

import torch
from torch import Tensor

from sciml.equation.expression import Apply, Expr, Field, Number, Param, canonical, cos, parts, sin
from sciml.prose.compiled import compiled
from sciml.prose.shooting import run
from sciml.prose.smoothing import smoothed, weak_form

Differentiation = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""Times ``(n,)`` and samples ``(n, D)`` to states ``(n, D)`` for the library, W ``(K, n)`` and V u ``(K, D)``."""
THRESHOLDS = (0.005, 0.01, 0.02, 0.04, 0.07, 0.1, 0.14, 0.2, 0.3, 0.45, 0.7, 1.0)


# -- libraries -------------------------------------------------------------------------------------------------------
def polynomials(dim: int, degree: int = 3) -> tuple[Expr, ...]:
    """All monomials of ``u_0`` ... up to a degree, the constant included."""
    fields = [Field(f"u_{i}") for i in range(dim)]
    products = (
        math.prod(c, start=Number(1.0)) for k in range(degree + 1) for c in combinations_with_replacement(fields, k)
    )
    return tuple(products)


def generic(dim: int, degree: int = 3) -> tuple[Expr, ...]:
    """Polynomials and the sine and cosine of each field."""
    waves = (wave(Field(f"u_{i}")) for i in range(dim) for wave in (sin, cos))
    return (*polynomials(dim, degree), *waves)


def terms_of(rhs: Sequence[Expr]) -> tuple[Expr, ...]:
    """The functions that right-hand sides are linear combinations of: products multiplied out, factors left out.

    Parameters inside functions must have numbers, or pysindy could not evaluate them.
    """
    found = [_bare(term) for e in rhs for term in parts(distributed(e), "add")]
    return tuple(dict.fromkeys(found))


def support_of(rhs: Sequence[Expr], terms: Sequence[Expr]) -> Tensor:
    """Which of the terms each right-hand side has, bool ``(T, D)``."""
    own = [terms_of((e,)) for e in rhs]
    return torch.tensor([[term in mine for mine in own] for term in terms])


def distributed(e: Expr) -> Expr:
    """A product of sums, and a small whole power of a sum, as a sum of products."""
    if not isinstance(e, Apply) or e.op not in ("add", "mul"):
        return e
    args = [distributed(a) for a in e.args]
    if e.op == "add":
        return canonical(Apply("add", tuple(args)))
    terms: list[Expr] = [Number(1.0)]
    for a in args:
        terms = [term * part for term in terms for part in parts(a, "add")]
    return canonical(Apply("add", tuple(terms)))


def _bare(term: Expr) -> Expr:
    kept = [f for f in parts(term, "mul") if not isinstance(f, Number | Param)]
    return math.prod(kept, start=Number(1.0))


# -- differentiation -------------------------------------------------------------------------------------------------
def finite_difference(t: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """pysindy's finite differences of samples smoothed by a Savitzky-Golay filter."""
    import pysindy as ps

    window = min(11, len(t) - 1 + len(t) % 2)
    rates = ps.SmoothedFiniteDifference(smoother_kws={"window_length": window, "polyorder": 3})
    values = torch.as_tensor(rates._differentiate(u.numpy(), t.numpy())).to(u)
    return torch.as_tensor(rates.smoothed_x_).to(u), torch.eye(len(t)).to(u), values


def spline(t: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Central differences of :func:`~sciml.prose.smoothing.smoothed` samples."""
    smooth = smoothed(t, u)[0]
    return smooth, torch.eye(len(t)).to(u), torch.gradient(smooth, spacing=(t,), dim=0, edge_order=2)[0]


def weak(width: int) -> Differentiation:
    """The weak form with test functions over ``2 width + 1`` samples, the library read on smoothed samples."""

    def of(t: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        w, v = weak_form(t, width)
        return smoothed(t, u)[0], w, v @ u

    return of


METHODS: tuple[Differentiation, ...] = (finite_difference, spline, weak(8), weak(14), weak(22))


# -- regression ------------------------------------------------------------------------------------------------------
def sindy(
    t: Tensor,
    u: Tensor,
    library: Sequence[Expr],
    *,
    support: Tensor | None = None,
    sigma: Tensor | None = None,
    methods: Sequence[Differentiation] = METHODS,
    thresholds: Sequence[float] = THRESHOLDS,
    held: float = 0.3,
    substeps: int = 4,
) -> tuple[tuple[Expr, ...], Tensor]:
    """Right-hand sides with numbers for the window u ``(n, D)`` at times t ``(n,)``, and the initial state ``(D,)``.

    Each equation may have all terms of the library, or has those of ``support``, bool ``(T, D)``, by least squares.
    Sequentially thresholded least squares is run for all methods and thresholds on all but the last ``held`` of it;
    each model is integrated over all of it from the smoothed first sample, and the choice of the lowest
    misfit + (number of terms) ln N is fitted to the whole window. The noise's size ``sigma``, ``(1,)`` or ``(D,)``, is
    that of :func:`~sciml.prose.smoothing.smoothed` where none is given. Raises ``ValueError`` where the window is not
    finite or its shape is another, and where no model can be integrated.
    """
    if u.ndim != 2 or len(u) != len(t) or not u.isfinite().all():
        raise ValueError(f"give finite samples ({len(t)}, D), one window; got {tuple(u.shape)}")
    t, u = t.double().cpu(), u.double().cpu()
    terms = tuple(library)
    allowed = torch.ones(len(terms), u.shape[1], dtype=torch.bool) if support is None else support
    thresholds = thresholds if support is None else (0.0,)
    cut = len(t) - round(held * len(t))
    found = [xi for method in methods for xi in _sparse(terms, allowed, *method(t[:cut], u[:cut]), thresholds)]
    smooth, estimate = smoothed(t, u)
    sigma = estimate if sigma is None else sigma.to(u)
    score = _score(terms, torch.stack(found), t, u, smooth[0], sigma, substeps)
    best = int(score.argmin())
    if not score[best].isfinite():
        raise ValueError("no sparse model can be integrated over the window; use a smaller library")
    method, threshold = methods[best // len(thresholds)], thresholds[best % len(thresholds)]
    return written(terms, _sparse(terms, allowed, *method(t, u), (threshold,))[0]), smooth[0]


def written(terms: Sequence[Expr], coefficients: Tensor) -> tuple[Expr, ...]:
    """One sum for each column of the coefficients ``(T, D)``."""
    columns = coefficients.T.tolist()
    return tuple(sum((c * e for c, e in zip(column, terms, strict=True) if c), Number(0.0)) for column in columns)


def _sparse(
    terms: Sequence[Expr], allowed: Tensor, states: Tensor, w: Tensor, target: Tensor, thresholds: Sequence[float]
) -> list[Tensor]:
    """Coefficients ``(T, D)`` of sequentially thresholded least squares, for each threshold."""
    scale = w.sum(1, keepdim=True)  # rows in units of rates, so that the ridge term is as small for all methods
    features, rates = w @ values(terms, states.shape[-1])(states) / scale, target / scale
    found = [torch.zeros(len(terms), target.shape[1]).to(target) for _ in thresholds]
    for xi, threshold in zip(found, thresholds, strict=True):
        for d, mine in enumerate(allowed.T):
            xi[mine, d] = _stlsq(features[:, mine], rates[:, d], threshold)
    return found


def _stlsq(features: Tensor, rates: Tensor, threshold: float) -> Tensor:
    import pysindy as ps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of columns that are all below the threshold, or nearly dependent
        fitted = ps.STLSQ(threshold=threshold, alpha=1e-6, max_iter=50).fit(features.numpy(), rates[:, None].numpy())
    return torch.as_tensor(fitted.coef_[0]).to(features)


def values(terms: Sequence[Expr], dim: int) -> Callable[[Tensor], Tensor]:
    """The library as a function of states ``(..., dim)``: ``(..., T)``."""
    padded = (*terms, *[Number(0.0)] * (-len(terms) % dim))
    functions = [compiled(padded[i : i + dim]) for i in range(0, len(padded), dim)]
    return lambda u: torch.cat([f(u, {}) for f in functions], -1)[..., : len(terms)]


def _score(
    terms: Sequence[Expr], coefficients: Tensor, t: Tensor, u: Tensor, start: Tensor, sigma: Tensor, substeps: int
) -> Tensor:
    """Misfit + (number of terms) ln N of models ``(R, T, D)`` over the window; infinite where one blows up."""
    library = values(terms, u.shape[-1])

    def f(u: Tensor, c: Tensor) -> Tensor:
        return torch.einsum("...t,...td->...d", library(u), c.unflatten(-1, coefficients.shape[1:]))

    states = start.expand(len(coefficients), 1, -1)
    u_model = run(f, states, coefficients.flatten(1), t.diff()[None], substeps)[:, 0]
    misfit = ((u_model - u) / sigma.clamp(min=1e-12)).square().sum((1, 2))
    score = misfit + (coefficients != 0).sum((1, 2)) * math.log(u.numel())
    return torch.where(score.isfinite(), score, torch.inf)
