r"""Sparse regression :math:`y = X c + \epsilon` on moments.

* :func:`relevance_vectors`: evidence maximisation with one precision for each coefficient (Tipping 2001, JMLR 1, 211;
  its iteration as in MEDIDA, Mojgani et al. 2022, Chaos 32, 061105).
* :func:`pysindy`: any optimiser of pysindy.
* :func:`backwards` and :func:`selected`: the path of ever fewer terms, and the point on it that data held out support.

Columns are standardised inside; coefficients come back in the units of the columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sciml.discover.moments import Moments, check

FOLDS = 8
"""of cross-validation"""


@dataclass(frozen=True)
class Fit:
    """Coefficients, zero for the columns that were left out."""

    names: tuple[str, ...]
    coefficients: np.ndarray
    covariance: np.ndarray
    unexplained: float
    """mean square of the residual over that of y"""
    evidence: float = np.nan
    """logarithm of the marginal likelihood, where there is one"""

    @property
    def active(self) -> np.ndarray:
        """Numbers of the columns that were kept."""
        return np.flatnonzero(self.coefficients)

    @property
    def std(self) -> np.ndarray:
        """Standard errors."""
        return np.sqrt(np.diag(self.covariance))


# -- least squares ---------------------------------------------------------------------------------------------------
def solve(m: Moments) -> np.ndarray:
    """Least squares of all columns."""
    standard, back = m.standardised()
    return back * np.linalg.lstsq(standard.xx.sum(0), standard.xy.sum(0), rcond=1e-13)[0]


def least_squares(m: Moments, chosen: np.ndarray | None = None) -> Fit:
    r"""Least squares on some columns, with errors that hold where the residuals within a block are correlated,

    .. math:: (X'X)^{-1} \sum_b g_b g_b' (X'X)^{-1}, \qquad g_b = X_b' (y_b - X_b c)

    times ``B / (B - p)`` (Liang & Zeger 1986, Biometrika 73, 13; MacKinnon & White 1985 for the factor).
    """
    p = len(m.names)
    chosen = np.arange(p) if chosen is None else np.asarray(chosen, int)
    c, cov = np.zeros(p), np.zeros((p, p))
    if len(chosen):
        sub, back = m.columns(chosen.tolist()).standardised()
        found = np.linalg.lstsq(sub.xx.sum(0), sub.xy.sum(0), rcond=1e-13)[0]
        inverse = np.linalg.pinv(sub.xx.sum(0), rcond=1e-13, hermitian=True)
        score = sub.xy - sub.xx @ found
        blocks = len(m)
        spread = inverse @ (score.T @ score) @ inverse * blocks / max(1, blocks - len(chosen))
        if blocks <= len(chosen):
            spread = inverse * sub.residual(found).sum() / max(1, sub.rows - len(chosen))
        c[chosen], cov[np.ix_(chosen, chosen)] = back * found, np.outer(back, back) * spread
    return Fit(m.names, c, cov, unexplained(m, c))


def unexplained(m: Moments, c: np.ndarray) -> float:
    """Share of the mean square of y that ``X c`` leaves."""
    return float(m.residual(c).sum() / max(m.yy.sum(), 1e-300))


# -- relevance vector machine ----------------------------------------------------------------------------------------
def relevance_vectors(
    m: Moments, most: float = 1e6, iterations: int = 3000, tolerance: float = 1e-4, effective: float = 1.0
) -> Fit:
    r"""Sparse Bayesian regression: precisions :math:`\alpha_i` of the coefficients and :math:`\beta` of the noise from

    .. math:: \Sigma = (\mathrm{diag}\,\alpha + \beta X'X)^{-1}, \quad m = \beta \Sigma X'y, \quad
              \gamma_i = 1 - \alpha_i \Sigma_{ii}, \quad \alpha_i \leftarrow \gamma_i / m_i^2, \quad
              \beta \leftarrow (N - \sum \gamma) / |y - X m|^2 .

    Columns whose precision passes ``most`` (of standardised columns: coefficients that explain less than about
    ``1 / most`` of the variance) are left out. ``effective`` is the share of rows that count as independent. Warns
    where ``iterations`` do not suffice.
    """
    check(m)
    if not 0 < effective <= 1:
        raise ValueError(f"effective, the share of rows that are independent, is from 0 to 1, got {effective}")
    standard, back = m.standardised()
    n = standard.rows * effective
    xx, xy, yy = (a.sum(0) * effective for a in (standard.xx, standard.xy, standard.yy))
    kept, alpha, beta = np.arange(len(xy)), np.full(len(xy), 1e-6), 1.0
    for _ in range(iterations):
        mean, sigma = posterior(xx, xy, kept, alpha[kept], beta)
        gamma = np.clip(1 - alpha[kept] * np.diag(sigma), 1e-12, 1.0)
        new = gamma / np.maximum(mean**2, 1e-300)
        rest = yy - 2 * mean @ xy[kept] + mean @ xx[np.ix_(kept, kept)] @ mean
        beta = (n - gamma.sum()) / max(rest, 1e-14 * yy, 1e-300)
        moved = np.abs(np.log(new / alpha[kept])).max(initial=0.0)
        alpha[kept] = new
        kept = kept[new < most]
        if moved < tolerance or not len(kept):
            break
    else:
        warnings.warn(f"the relevance vector machine has not converged in {iterations} iterations: a precision still "
                      f"changes by a factor of {np.exp(moved):.3g}; more data, fewer columns or more iterations help",
                      stacklevel=2)  # fmt: skip
    mean, sigma = posterior(xx, xy, kept, alpha[kept], beta)
    c, cov = np.zeros(len(xy)), np.zeros((len(xy),) * 2)
    c[kept], cov[np.ix_(kept, kept)] = mean, sigma
    log_evidence = 0.5 * (
        np.log(alpha[kept]).sum() + n * np.log(beta / (2 * np.pi)) + np.linalg.slogdet(sigma)[1]
        - beta * yy + mean @ np.linalg.solve(sigma, mean)
    )  # fmt: skip
    return Fit(m.names, back * c, np.outer(back, back) * cov, unexplained(m, back * c), float(log_evidence))


def posterior(xx: np.ndarray, xy: np.ndarray, kept: np.ndarray, alpha: np.ndarray, beta: float):
    """Mean and covariance of the coefficients of the columns ``kept``."""
    sigma = np.linalg.inv(np.diag(alpha) + beta * xx[np.ix_(kept, kept)])
    return beta * sigma @ xy[kept], sigma


# -- pysindy ---------------------------------------------------------------------------------------------------------
def pysindy(m: Moments, optimiser: Any) -> Fit:
    """What an optimiser of pysindy (``STLSQ``, ``SR3``, ``SSR``, ``EnsembleOptimizer`` ...) keeps of standardised
    columns; the coefficients of these by least squares.

    Least squares on p rows ``R`` with ``R'R = X'X / N`` and ``R c = z``, and one with the residual, is the same problem
    as on all rows. To draw data instead, as ``EnsembleOptimizer(bagging=True)`` does with rows, use :func:`bagged`.
    """
    check(m)
    standard, _ = m.standardised()
    values, vectors = np.linalg.eigh(standard.xx.sum(0) / standard.rows)
    root = np.sqrt(values)[:, None] * vectors.T
    z = np.linalg.solve(root.T, standard.xy.sum(0) / standard.rows)
    scale = np.sqrt(len(z))  # for optimisers that take means over rows
    rest = max(standard.yy.sum() / standard.rows - z @ z, 0.0)  # what least squares leaves
    root, z = np.vstack([root, 0 * z]), np.append(z, np.sqrt(rest))
    kept = np.asarray(optimiser.fit(scale * root, scale * z[:, None]).coef_).ravel()
    return least_squares(m, np.flatnonzero(kept))


def bagged(m: Moments, fit: Callable[[Moments], Fit], samples: int = 50, seed: int = 0) -> np.ndarray:
    """How often each column is kept by fits to blocks drawn with replacement (Fasel et al. 2022, Proc. R. Soc. A 478,
    20210904, with blocks for rows)."""
    rng = np.random.default_rng(seed)
    counts = np.zeros(len(m.names))
    for _ in range(samples):
        counts[fit(m[rng.integers(len(m), size=len(m))]).active] += 1
    return counts / samples


# -- the path of ever fewer terms ------------------------------------------------------------------------------------
def backwards(m: Moments) -> list[np.ndarray]:
    """Sets of columns from none to all: the one that matters least is left out first (stepwise sparse regression,
    Boninsegna et al. 2018, J. Chem. Phys. 148, 241723)."""
    standard, _ = m.standardised()
    xx, xy = standard.xx.sum(0) / m.rows, standard.xy.sum(0) / m.rows
    kept, path = np.arange(len(xy)), [np.arange(len(xy))]
    while len(kept):
        inverse = np.linalg.pinv(xx[np.ix_(kept, kept)], rcond=1e-13, hermitian=True)
        loss = (inverse @ xy[kept]) ** 2 / np.diag(inverse)  # growth of the mean square without each
        kept = np.delete(kept, loss.argmin())
        path.append(kept)
    return path[::-1]


@dataclass(frozen=True)
class Path:
    """Sets of columns, and by set the share of y that it leaves unexplained in the folds that were held out."""

    sets: list[np.ndarray]
    held_out: np.ndarray
    """``(sets, folds)``"""
    chosen: int

    @property
    def mean(self) -> np.ndarray:
        return self.held_out.mean(1)


def selected(m: Moments, share: float = 1e-4, errors: float = 3.0, least: float = 1e-6) -> tuple[Fit, Path]:
    """The smallest set of columns on the path that leaves no more of held-out data unexplained than the best one, but
    for ``errors`` standard errors (over folds, of the difference) and for ``share`` of the mean square of y or
    ``least`` of that of the whole: what a model's own time stepping adds to increments is smaller. A set that leaves
    more than twice what the best one leaves is no match for it, whatever the errors: few folds may hold all of a term.
    """
    check(m)
    sets, folds = backwards(m), np.array_split(np.arange(len(m)), min(FOLDS, len(m)))
    if len(folds) < 2:
        raise ValueError("data must come in at least 2 blocks to hold some out; give more samples")
    held_out = np.zeros((len(sets), len(folds)))
    for j, fold in enumerate(folds):
        rest, own = m[np.setdiff1d(np.arange(len(m)), fold)], m[fold]
        for i, chosen in enumerate(sets):
            c = np.zeros(len(m.names))
            c[chosen] = solve(rest.columns(chosen.tolist())) if len(chosen) else 0.0
            held_out[i, j] = own.residual(c).sum() / max(m.yy.sum() / m.rows * own.rows, 1e-300)
    best = held_out.mean(1).argmin()
    more = held_out - held_out[best]
    tolerated = max(share, least * m.whole.sum() / max(m.yy.sum(), 1e-300))
    allowed = tolerated + errors * more.std(1, ddof=1) / np.sqrt(len(folds))
    twice = held_out.mean(1) <= 2 * held_out[best].mean() + tolerated
    chosen = int(np.flatnonzero((more.mean(1) <= allowed) & twice)[0])
    return least_squares(m, sets[chosen]), Path(sets, held_out, chosen)
