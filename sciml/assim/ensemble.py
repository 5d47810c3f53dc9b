r"""Ensemble Kalman filters: stochastic, square root, finite-size, and the local ensemble transform filter.

With anomalies ``A`` of the forecast ensemble at the end of the window and ``Y`` of the observation equivalents along
its trajectories (in units of the observation error; Hunt et al. 2004 for observations at their own times), every filter
is a set of weights: ``E_a = mean + (w + T)^T A`` with ``C = Y Y^T``, innovations ``d`` and N members,

.. math:: w = (C + (N-1) I)^{-1} Y d, \qquad T = \sqrt{N-1} (C + (N-1) I)^{-1/2}.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.assim.base import Analysed, forecast, innovations, restarted
from sciml.observe import Window
from sciml.step import State, Step

Weights = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""``(Y (N, p), d (p,), generator) -> (N, N)``: column j holds member j's weights ``w + T_j``."""


# -- weights of the global filters -----------------------------------------------------------------------------------
def square_root(Y: Tensor, d: Tensor, generator: torch.Generator) -> Tensor:
    """Symmetric square root, the ETKF (Bishop et al. 2001; Hunt et al. 2007, eqs 21-24)."""
    return symmetric(Y @ Y.mT, Y @ d)


def symmetric(C: Tensor, b: Tensor, prior: Tensor | float = 1.0) -> Tensor:
    """``w + T`` from ``C = Y Y^T (..., N, N)`` and ``b = Y d (..., N)``; ``prior`` inflates the prior variance."""
    N = C.shape[-1]
    s, V = torch.linalg.eigh(C)
    s = s.clamp(min=0)
    inverse = prior / (prior * s + N - 1)
    w = (V * inverse[..., None, :]) @ (V.mT @ b[..., None])
    T = (V * (inverse * (N - 1)).sqrt()[..., None, :]) @ V.mT
    return w + T


def perturbed_observations(Y: Tensor, d: Tensor, generator: torch.Generator) -> Tensor:
    """Stochastic EnKF (Burgers et al. 1998), observation perturbations of mean zero."""
    N = len(Y)
    noise = torch.randn(N, len(d), generator=generator, dtype=Y.dtype).to(Y.device)
    noise = (noise - noise.mean(0)) * math.sqrt(N / (N - 1))
    eye = torch.eye(N, dtype=Y.dtype, device=Y.device)
    return eye + torch.linalg.solve(Y @ Y.mT + (N - 1) * eye, Y @ (d + noise - Y).mT)


def deterministic(Y: Tensor, d: Tensor, generator: torch.Generator) -> Tensor:
    """DEnKF (Sakov & Oke 2008): anomalies with half the gain."""
    N = len(Y)
    eye = torch.eye(N, dtype=Y.dtype, device=Y.device)
    both = torch.linalg.solve(Y @ Y.mT + (N - 1) * eye, torch.cat([(Y @ d)[:, None], Y @ Y.mT], 1))
    return both[:, :1] + eye - both[:, 1:] / 2


def finite_size(g: int = 0, certainty: float = 1.0) -> Weights:
    r"""EnKF-N: no inflation to tune (Bocquet 2011; Bocquet, Raanes & Hannart 2015, dual form).

    The prior's inflation ``l`` minimises :math:`D(l) = \sum_i d_i^2 / (l^2 s_i^2 + N - 1) + e_N / l^2 + c_N \ln l^2`
    with ``e_N = (N + 1) / N``, ``c_N = (N + g) / (N - 1)``, singular values s_i of Y and innovations d_i along its
    singular vectors. Where little is observed D would deflate to its prior's mode ``(e_N / c_N)^(1/2) < 1``, again in
    every cycle; so the mode is moved to 1 as far as directions are not observed (eq. 36 there): ``e_N / m``, ``m c_N``
    with ``m = (e_N / c_N)^(u / 2)``, u the mean of ``(N - 1) / (s_i^2 + N - 1)``. ``certainty`` (xN) multiplies both
    coefficients: how sure one is of l near 1 (Raanes et al. 2019).
    """

    def weights(Y: Tensor, d: Tensor, generator: torch.Generator) -> Tensor:
        from scipy.optimize import minimize_scalar

        N = len(Y)
        s2, V = torch.linalg.eigh(Y @ Y.mT)
        s2 = s2.clamp(min=0)
        b = V.mT @ (Y @ d)
        along = torch.where(s2 > 1e-12 * s2.amax(), b**2 / s2.clamp(min=1e-300), 0.0).double().cpu()
        variance = s2.double().cpu()
        unseen = float(((N - 1) / (variance + N - 1)).mean())
        shift = ((N + 1) / N / ((N + g) / (N - 1))) ** (unseen / 2)
        eN, cN = (N + 1) / N * certainty / shift, (N + g) / (N - 1) * certainty * shift

        def dual(log_l: float) -> float:
            l2 = math.exp(2 * log_l)
            return float((along / (l2 * variance + N - 1)).sum()) + eN / l2 + 2 * cN * log_l

        l2 = math.exp(2 * minimize_scalar(dual, bounds=(-3.0, 3.0), method="bounded").x)
        return symmetric(Y @ Y.mT, Y @ d, l2)

    return weights


# -- analyses --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class EnKF:
    """A global ensemble filter.

    ``inflation`` multiplies the anomalies after the analysis; ``rotate`` mixes them by a random rotation that keeps the
    mean, which square-root filters of nonlinear models need (Sakov & Oke 2008b). ``seed`` should not be the one from
    which torch drew the first ensemble: its numbers would come again as perturbations of the observations.

    Examples
    --------
    >>> from sciml.testbed import twin
    >>> t = twin(n=1)
    >>> found = sm.EnKF(inflation=1.02)(sm.State(t.prior), t.windows[0], t.step)
    >>> before, after = (t.psi(s.z).std(0).mean() for s in (found.background, found.state))
    >>> bool(after < before)  # observations make the ensemble narrower
    True
    """

    weights: Weights = square_root
    inflation: float = 1.0
    rotate: bool = False
    seed: int = 0

    def __post_init__(self):
        if not callable(self.weights) or not 0 < self.inflation < math.inf:
            raise ValueError(
                f"weights must be a function such as ensemble.square_root and inflation positive, got {self.weights!r} "
                f"and {self.inflation}"
            )

    def __call__(self, background: State, window: Window, step: Step, memory: Tensor | None = None) -> Analysed:
        generator = generator_of(memory, self.seed)
        _, end, equivalents = forecast(step, background, window)
        with torch.no_grad():
            z, seen = end.z, equivalents.mean(0)
            if len(window):
                Y, d = anomalies_and_innovation(window, equivalents)
                W = self.weights(Y, d, generator)
                if self.rotate:
                    w = W.mean(1, keepdim=True)
                    W = w + (W - w) @ rotation(len(Y), generator).to(W)
                z, seen = inflated(combined(z, W), self.inflation), combined(equivalents, W).mean(0)
        info = spread_info(window, equivalents)
        return Analysed(restarted(end, z), end, equivalents, generator.get_state(), info, seen)


def anomalies_and_innovation(window: Window, equivalents: Tensor) -> tuple[Tensor, Tensor]:
    """``Y (N, p)`` and ``d (p,)`` in units of the observation error."""
    if equivalents.ndim != 2 or len(equivalents) < 2:
        raise ValueError("an ensemble filter needs states with at least two members in the leading axis")
    mean = equivalents.mean(0)
    return (equivalents - mean) / window.sigma, innovations(window, mean)


def combined(z: Tensor, W: Tensor) -> Tensor:
    """``mean + W^T A`` for members in the leading axis."""
    mean = z.mean(0)
    A = (z - mean).flatten(1)
    return mean + (W.mT.to(A.dtype) @ A).reshape(z.shape)


def inflated(z: Tensor, factor: float) -> Tensor:
    """Anomalies times ``factor``."""
    mean = z.mean(0)
    return mean + factor * (z - mean)


def rotation(N: int, generator: torch.Generator) -> Tensor:
    """A random orthogonal matrix that leaves the vector of ones as it is."""
    q, r = torch.linalg.qr(torch.randn(N - 1, N - 1, generator=generator, dtype=torch.float64))
    q = q * torch.sign(torch.diagonal(r))
    ones = torch.ones(N, 1, dtype=torch.float64)
    basis = torch.linalg.qr(torch.cat([ones, torch.eye(N, dtype=torch.float64)[:, 1:]], 1))[0]
    inner = torch.eye(N, dtype=torch.float64)
    inner[1:, 1:] = q
    return basis @ inner @ basis.mT


def generator_of(memory: Tensor | None, seed: int) -> torch.Generator:
    """The generator as the last cycle left it."""
    generator = torch.Generator()
    if memory is None:
        return generator.manual_seed(seed)
    generator.set_state(memory)
    return generator


def spread_info(window: Window, equivalents: Tensor) -> dict[str, float]:
    """Mean squares of innovation and of forecast spread in units of the observation error (they differ by 1)."""
    if not len(window):
        return {}
    Y, d = anomalies_and_innovation(window, equivalents)
    return {"innovation2": float((d**2).mean()), "spread2": float((Y**2).sum(0).mean() / (len(Y) - 1))}
