"""Pictures of what a model lacks: coefficients, the path on which terms were chosen, increments, gap filling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sciml.plot import pyplot, sparse_ticks

FLOOR = 1e-12
"""Shares below are drawn here."""


def coefficients(names: Sequence[str], found: np.ndarray, std: np.ndarray, true: np.ndarray, labels: Sequence[str]):
    """Coefficients ``(n, p)`` over their true size (over their own, where they should be zero), a panel for each field,
    with two standard errors; terms that are neither true nor found are left out."""
    plt = pyplot()
    some = np.flatnonzero((found != 0).any(0) | (true != 0).any(0))
    some = some if some.size else np.arange(1)
    figure, axes = plt.subplots(
        1, len(found), figsize=(5 * len(found), 1.5 + 0.35 * some.size), sharey=True, squeeze=False
    )
    rows = np.arange(some.size)
    for ax, c, s, t, label in zip(axes[0], found, std, true, labels, strict=True):
        unit = np.where(t[some] != 0, np.abs(t[some]), np.abs(c[some]))
        unit = np.where(unit > 0, unit, 1.0)
        ax.plot(t[some] / unit, rows, "o", mfc="none", mec="k", ms=10, label="true")
        ax.errorbar(c[some] / unit, rows, xerr=2 * s[some] / unit, fmt="o", ms=4, capsize=3, label="found")
        ax.axvline(0, color="0.8", lw=0.8, zorder=0)
        ax.set(title=label, xlabel="coefficient over its true size", ylim=(some.size - 0.5, -0.5))
    axes[0, 0].set_yticks(rows, [names[int(i)] for i in some])
    axes[0, 0].legend()
    return figure


def paths(held_out: Mapping[str, np.ndarray], chosen: Mapping[str, int]):
    """Share of held-out increments that is left unexplained against the number of terms, ``(sets, folds)`` by field."""
    plt = pyplot()
    figure, ax = plt.subplots(figsize=(6, 4))
    for i, (field, shares) in enumerate(held_out.items()):
        n, mean = np.arange(len(shares)), np.maximum(shares.mean(1), FLOOR)
        ax.semilogy(n, mean, f"C{i}.-", label=field)
        ax.semilogy(n[chosen[field]], mean[chosen[field]], f"C{i}o", ms=10, mfc="none")
    ax.set(xlabel="terms", ylabel="share of held-out increments left unexplained", ylim=(0.5 * FLOOR, None))
    ax.legend(title=f"circles: chosen; at {FLOOR:g}: that or less")
    return figure


def increments(
    extent: Sequence[float], panels: Mapping[str, np.ndarray], labels: Sequence[str], unit: str = "", axis: str = ""
):
    """Maps ``(n, ny, nx)`` side by side, a row for each field, on one scale by row that the largest values may pass;
    ``extent`` is in units of ``axis``."""
    plt = pyplot()
    rows = len(labels)
    figure, axes = plt.subplots(rows, len(panels), figsize=(3.2 * len(panels), 3.6 * rows), squeeze=False)
    for i, label in enumerate(labels):
        top = max(float(np.quantile(np.abs(a[i]), 0.998)) for a in panels.values()) or 1.0
        for ax, (name, a) in zip(axes[i], panels.items(), strict=True):
            image = ax.imshow(a[i], origin="lower", extent=extent, cmap="RdBu_r", vmin=-top, vmax=top)
            ax.set(title=f"{name}, {label}")
            ax.label_outer()
        figure.colorbar(image, ax=list(axes[i]), shrink=0.8, extend="both", label=f"{label}{unit}")
        axes[i, 0].set_ylabel(f"y{axis}")
    for ax in axes[-1]:
        ax.set_xlabel(f"x{axis}")
    return figure


def spectral_bias(k: np.ndarray, ratios: Mapping[str, np.ndarray]):
    """Spectrum of the error of each interpolator over that of the truth; at one, a scale is missing."""
    plt = pyplot()
    figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, ratio in ratios.items():
        ax.loglog(k[1:], ratio[1:], label=name)
    ax.axhline(1, color="0.7", lw=0.8)
    least = min(float(np.min(ratio[1:])) for ratio in ratios.values())
    ax.set(xlabel="wavenumber", ylabel="power of the error over that of the truth", ylim=(max(1e-10, 0.3 * least), 10))
    sparse_ticks(ax.xaxis)
    ax.legend()
    return figure
