"""Scores of fields and spectra against a truth. Fields are tensors or DataArrays with y and x last."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def rmse(forecast, truth):
    """Root mean square error over the last two axes."""
    return np.sqrt(np.mean((np.asarray(forecast) - np.asarray(truth)) ** 2, axis=(-2, -1)))


def nrmse(forecast, truth):
    """RMSE over the root mean square of the truth."""
    return rmse(forecast, truth) / np.sqrt(np.mean(np.asarray(truth) ** 2, axis=(-2, -1)))


def correlation(forecast, truth):
    """Pattern (anomaly) correlation over the last two axes; 0 where one of the fields is constant."""
    a, b = (np.asarray(f) - np.mean(np.asarray(f), axis=(-2, -1), keepdims=True) for f in (forecast, truth))
    scale = np.sqrt(np.sum(a * a, (-2, -1)) * np.sum(b * b, (-2, -1)))
    return np.sum(a * b, (-2, -1)) / np.where(scale > 0, scale, 1)


def distribution_distance(a, b) -> float:
    """Wasserstein-1 distance between the values of two fields."""
    from scipy.stats import wasserstein_distance  # half a second to import

    return float(wasserstein_distance(np.ravel(a), np.ravel(b)))


def spectral_distance(k, a, b, k_max: float = np.inf) -> float:
    """RMS difference of two spectra below ``k_max``."""
    use = np.asarray(k) < k_max
    return float(np.sqrt(np.mean((np.asarray(a)[..., use] - np.asarray(b)[..., use]) ** 2)))


def similarity(model: float, baseline: float) -> float:
    """``1 - D(model, truth) / D(baseline, truth)``: 1 is perfect, 0 no better than the baseline (Ross et al. 2023)."""
    return 1 - model / baseline


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Named rows of named numbers as aligned text."""
    columns = {c: max(14, len(c) + 2) for row in rows.values() for c in row}
    width = max(map(len, rows), default=0)
    lines = [" " * width + "".join(f"{c:>{w}}" for c, w in columns.items())]
    for name, row in rows.items():
        cells = (f"{row[c]:>{w}.5g}" if c in row else " " * w for c, w in columns.items())
        lines.append(f"{name:<{width}}" + "".join(cells).rstrip())
    return "\n".join(lines)


def block_bootstrap(values, block: int, seed: int, samples: int = 2000, level: float = 0.95) -> list[float]:
    """Interval of the mean of a correlated series, from means of resampled blocks (Kunsch 1989, moving blocks).

    Few blocks vary less than the mean does: the interval is wider by ``sqrt(m / (m - 1))`` for m blocks, and by
    Student's t of m - 1 degrees of freedom over the normal quantile. One value has no interval but itself.
    """
    from scipy.stats import norm
    from scipy.stats import t as student

    values = np.asarray(values, dtype=float)
    n, block = len(values), max(1, min(block, len(values) // 2))
    starts = np.random.default_rng(seed).integers(0, n - block + 1, (samples, -(-n // block)))
    picked = values[(starts[..., None] + np.arange(block)).reshape(samples, -1)[:, :n]]
    tail, m = (1 - level) / 2, n / block
    wider = np.sqrt(m / (m - 1)) * student.ppf(1 - tail, m - 1) / norm.ppf(1 - tail) if m > 1 else 1.0
    return [float(values.mean() + wider * (v - values.mean())) for v in np.quantile(picked.mean(1), [tail, 1 - tail])]


def crps_gaussian(mean, std, truth):
    """CRPS of a normal distribution (Gneiting et al. 2005, MWR 133, 1098, eq. 5); averaged over nothing. Where ``std``
    is zero it is the absolute error; ``ValueError`` where it is negative."""
    from scipy.special import ndtr

    std, error = np.asarray(std, dtype=float), np.asarray(truth, dtype=float) - np.asarray(mean, dtype=float)
    if (std < 0).any():
        raise ValueError(f"standard deviations must not be negative, got {std.min():g}")
    z = error / np.where(std == 0, 1.0, std)
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return np.where(std == 0, np.abs(error), std * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi)))


def crps(ensemble, truth):
    """Continuous ranked probability score of members in the leading axis, ``E|X - y| - E|X - X'| / 2`` (fair version:
    Ferro 2014); averaged over nothing."""
    x, y = np.sort(np.asarray(ensemble, dtype=float), axis=0), np.asarray(truth, dtype=float)
    n = len(x)
    if n < 2:
        raise ValueError("the fair CRPS needs at least two members; of one forecast it is the absolute error")
    weight = (2 * np.arange(1, n + 1) - n - 1).reshape(-1, *[1] * (x.ndim - 1))
    return np.abs(x - y).mean(0) - (weight * x).sum(0) / (n * (n - 1))


def rank_histogram(ensemble, truth) -> np.ndarray:
    """How often the truth has each of the ``members + 1`` ranks, 0 where it is below all of them."""
    x, y = np.asarray(ensemble), np.asarray(truth)
    if not np.isfinite(x).all() or not np.isfinite(y).all():
        raise ValueError("members and truth must be finite everywhere: what is not has no rank")
    return np.bincount((x < y).sum(0).ravel(), minlength=len(x) + 1)


def data_challenge(estimate, truth, dt: float, dx: float) -> dict[str, float]:
    r"""The ocean data challenges' scores of maps ``(time, y, x)`` with steps ``dt`` and ``dx`` (2020a).

    ``mu = 1 - RMSE / RMS(truth)``; ``sigma``, the standard deviation in time of ``1 - rmse_t / rms_t``; ``lambda_x``
    and ``lambda_t``, the shortest wavelength and period on the contour 0.5 of ``1 - PSD(error) / PSD(truth)``, both
    power spectral densities of (time, x) with a Hann window, averaged over y. Infinite where no scale is resolved,
    twice the step where all are.
    """
    estimate, truth = (np.asarray(a, dtype=float) for a in (estimate, truth))
    if estimate.shape != truth.shape or truth.ndim != 3 or min(truth.shape) < 4:
        raise ValueError(f"two series of maps of at least 4 x 4 x 4, got {estimate.shape} and {truth.shape}")
    if not np.isfinite(estimate).all() or not np.isfinite(truth).all():
        raise ValueError("the maps are not finite everywhere")
    error = truth - estimate
    rms_t, rmse_t = (np.sqrt((a**2).mean((1, 2))) for a in (truth, error))
    out = {"mu": float(1 - np.sqrt((error**2).mean() / (truth**2).mean())), "sigma": float((1 - rmse_t / rms_t).std())}
    f_t, f_x = (np.fft.rfftfreq(n, d)[1:] for n, d in ((truth.shape[0], dt), (truth.shape[2], dx)))
    resolved = 1 - density(error)[: len(f_t), : len(f_x)] / density(truth)[: len(f_t), : len(f_x)]
    return out | shortest_resolved(1 / f_t, 1 / f_x, resolved, 2 * dt, 2 * dx)


def density(a: np.ndarray) -> np.ndarray:
    """Power of (time, x) at positive frequencies without zero, both directions of travel, averaged over y."""
    a = a - a.mean((0, 2), keepdims=True)
    nt, nx = a.shape[0], a.shape[2]
    window = np.hanning(nt + 1)[:-1, None, None] * np.hanning(nx + 1)[:-1]
    power = (np.abs(np.fft.fft(np.fft.rfft(a * window, axis=2), axis=0)) ** 2).mean(1)
    east, west = power[1 : nt // 2 + 1, 1:], power[::-1][: nt // 2, 1:]
    return east + west


def shortest_resolved(periods, wavelengths, resolved, least_t: float, least_x: float) -> dict[str, float]:
    """Smallest coordinates of the contour 0.5."""
    from contourpy import contour_generator

    lines = contour_generator(wavelengths, periods, resolved).lines(0.5)
    if not lines:
        nothing = resolved.max() < 0.5
        return {"lambda_x": np.inf if nothing else least_x, "lambda_t": np.inf if nothing else least_t}
    points = np.concatenate([np.asarray(line) for line in lines])
    return {"lambda_x": float(points[:, 0].min()), "lambda_t": float(points[:, 1].min())}


def desroziers(omb, oma, sigma) -> dict[str, float]:
    """Error variances that departures imply, over those assumed (Desroziers et al. 2005, eq. 3): 1 where they agree;
    "innovation" is larger than 1 by what the background's errors add."""
    omb, oma, sigma = (np.asarray(a, dtype=float) for a in (omb, oma, sigma))
    return {"observation": float(np.mean(omb * oma / sigma**2)), "innovation": float(np.mean(omb**2 / sigma**2))}
