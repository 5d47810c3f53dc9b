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
    """Pattern (anomaly) correlation over the last two axes."""
    a, b = (np.asarray(f) - np.mean(np.asarray(f), axis=(-2, -1), keepdims=True) for f in (forecast, truth))
    return np.sum(a * b, (-2, -1)) / np.sqrt(np.sum(a * a, (-2, -1)) * np.sum(b * b, (-2, -1)))


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
