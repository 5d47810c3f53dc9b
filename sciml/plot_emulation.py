"""Pictures of emulators: skill of forecasts, spectra and energy of long runs, fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sciml.emulation import Climate, Skill
from sciml.grid import Grid
from sciml.plot import pyplot


def lines(i: int) -> str:
    """Colour and dashes: ten colours, then again dashed."""
    return f"C{i % 10}{'-' if i < 10 else '--'}"


def skill(found: Mapping[str, Skill], layers: Sequence[str]):
    """Correlation with the truth above, error over the size of the truth below, against lead; a column a layer."""
    figure, axes = pyplot().subplots(2, len(layers), figsize=(11, 6.5), sharex=True, sharey="row", layout="constrained")
    for lev, (above, below) in enumerate(axes.T):
        for i, (name, s) in enumerate(found.items()):
            above.plot(s.lead / 86400, s.correlation[:, lev], lines(i), label=name)
            below.plot(s.lead / 86400, s.nrmse[:, lev], lines(i))
        for level in (0.8, 0.5):
            above.axhline(level, color="k", lw=0.6, ls=":")
        below.axhline(1, color="k", lw=0.6, ls=":")
        above.set(title=layers[lev], ylim=(0, 1.02))
        below.set(xlabel="lead (days)", ylim=(0, 1.6))
    axes[0][0].set(ylabel="pattern correlation of q")
    axes[1][0].set(ylabel="RMSE of q / RMS of truth")
    axes[0][-1].legend(fontsize=8)
    return figure


def spectra(found: Mapping[str, Climate], layers: Sequence[str]):
    """Time means of the spectrum of eddy kinetic energy above, over the truth's (the first) below."""
    figure, axes = pyplot().subplots(2, len(layers), figsize=(11, 6.5), sharex=True, layout="constrained")
    true = next(iter(found.values()))
    points = true.variance.shape[-1] // 2
    shown = slice(1, points + 1)
    k = true.k[shown]
    for lev, (above, below) in enumerate(axes.T):
        for i, (name, c) in enumerate(found.items()):
            style = "k-" if i == 0 else lines(i - 1)
            above.loglog(k, c.spectrum[lev, shown], style, label=name)
            below.semilogx(k, c.spectrum[lev, shown] / true.spectrum[lev, shown], style)
        below.axvspan(2 / 3 * k[-1], k[-1], color="k", alpha=0.08, lw=0)
        below.axhspan(0.8, 1.2, color="k", alpha=0.08, lw=0)
        largest = true.spectrum[lev, shown].max()
        above.set(title=layers[lev], ylim=(1e-6 * largest, 3 * largest))
        below.set(xlabel="k (rad m⁻¹)", ylim=(0, 2.5))
    axes[0][0].set(ylabel="EKE per k (m³ s⁻²)")
    axes[1][0].set(ylabel="over truth")
    axes[0][-1].legend(fontsize=8)
    return figure


def energy(years: Mapping[str, np.ndarray], energies: Mapping[str, np.ndarray], layers: Sequence[str]):
    """Eddy kinetic energy over the truth's mean against time, a row a layer."""
    figure, axes = pyplot().subplots(len(layers), 1, figsize=(9, 5), sharex=True, squeeze=False, layout="constrained")
    for lev, ax in enumerate(axes[:, 0]):
        for i, name in enumerate(energies):
            ax.plot(years[name], energies[name][:, lev], lines(i), lw=0.9, label=name)
        ax.axhline(1, color="k", lw=0.6, ls=":")
        ax.set(ylabel=f"EKE / truth, {layers[lev]}", ylim=(0, None))
    axes[-1, 0].set(xlabel="years")
    axes[0, 0].legend(fontsize=8, ncols=4)
    return figure


def maps(fields: Mapping[str, np.ndarray], days: float, grid: Grid):
    """Potential vorticity [s-1] of several forecasts of one day, ``(n, ny, nx)``, a row a layer, on the first one's
    colours."""
    n = len(next(iter(fields.values())))
    figure, axes = pyplot().subplots(n, len(fields), figsize=(2.5 * len(fields) + 1, 2.7 * n), layout="constrained",
                                     sharex=True, sharey=True, squeeze=False)  # fmt: skip
    sizes = [np.percentile(np.abs(f), 99.5) for f in next(iter(fields.values()))]
    extent = (0.0, grid.Lx / 1e3, 0.0, grid.Ly / 1e3)
    for lev, row in enumerate(axes):
        for ax, (name, field) in zip(row, fields.items(), strict=True):
            image = ax.imshow(field[lev], origin="lower", extent=extent, cmap="RdBu_r", vmin=-sizes[lev],
                              vmax=sizes[lev])  # fmt: skip
            ax.set(title=name if lev == 0 else "", xlabel="x (km)" if lev == n - 1 else "")
        row[0].set(ylabel=f"layer {lev + 1}\ny (km)")
        figure.colorbar(image, ax=row, label="potential vorticity (s⁻¹)")
    figure.suptitle(f"after {days:g} days")
    return figure


def errors(found: Mapping[str, np.ndarray], label: str):
    """How errors of samples are distributed, a curve a network, with their mean."""
    figure, ax = pyplot().subplots(figsize=(7, 3.6), layout="constrained")
    for i, (name, e) in enumerate(found.items()):
        part = (np.arange(len(e)) + 0.5) / len(e)
        ax.semilogx(np.sort(e), part, lines(i), label=f"{name}, mean {e.mean():.3g}")
    ax.set(xlabel=label, ylabel="part of the samples below")
    ax.grid(alpha=0.3, which="both")
    ax.legend(fontsize=8)
    return figure


def solutions(given: np.ndarray, true: np.ndarray, found: Mapping[str, np.ndarray], names: tuple[str, str]):
    """What was given, the true solution, and the error of each network, all of these on the same colours; the box is
    the unit square."""
    figure, axes = pyplot().subplots(1, 2 + len(found), figsize=(3.1 * (2 + len(found)), 3), layout="constrained")
    extent = (0, 1, 0, 1)
    differences = {name: u - true for name, u in found.items()}
    size = max(float(np.abs(d).max()) for d in differences.values())
    for ax, title, field in zip(axes, names, (given, true), strict=False):
        image = ax.imshow(field, origin="lower", extent=extent, cmap="viridis")
        figure.colorbar(image, ax=ax, shrink=0.8)
        ax.set(title=title)
    for ax, (name, d) in zip(axes[2:], differences.items(), strict=True):
        image = ax.imshow(d, origin="lower", extent=extent, cmap="RdBu_r", vmin=-size, vmax=size)
        figure.colorbar(image, ax=ax, shrink=0.8)
        ax.set(title=f"error of {name}")
    for ax in axes:
        ax.set(xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), xlabel="x")
        ax.label_outer()
    axes[0].set(ylabel="y")
    return figure
