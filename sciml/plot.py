"""Figures: maps, spectra with reference slopes, budgets, time series, movies. Each returns its matplotlib figure."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sciml.files import replacing


def pyplot():
    import matplotlib

    if not os.environ.get("DISPLAY") and "inline" not in matplotlib.get_backend():
        matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    return plt


def save(figure, path: Path) -> None:
    """Write a PNG, replacing an older one only by a complete one, and close the figure."""
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=120, bbox_inches="tight")
    pyplot().close(figure)


def unit(da: xr.DataArray) -> str:
    """The unit with raised exponents, in brackets; nothing for numbers without one."""
    units = da.attrs.get("units", "1")
    raised = re.sub(r"-?\d+", lambda m: m[0].translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")), units)
    return f" ({raised})" if units != "1" else ""


def length_axis(da: xr.DataArray, axis: str) -> tuple[np.ndarray, str]:
    """Coordinate values in a readable unit, with its label."""
    values = da[axis].values
    if da[axis].attrs.get("units") == "m" and np.ptp(values) > 1e4:
        return values / 1e3, f"{axis} (km)"
    return values, axis + unit(da[axis])


def maps(da: xr.DataArray, title: str = "", robust: float = 99.8):
    """One map per layer of ``da ([lev,] y, x)``, with a symmetric colour scale for each.

    Raises ``ValueError`` for arrays of other dimensions.
    """
    import cmocean  # noqa: F401  # registers its colour maps

    if not {"y", "x"} <= set(da.dims) <= {"lev", "y", "x"}:
        raise ValueError(f"maps are of ([lev,] y, x), the array is ({', '.join(map(str, da.dims))}): choose one of the "
                         "others with isel, or rename them")  # fmt: skip
    named = "lev" in da.dims
    da = da if named else da.expand_dims(lev=[1])
    plt = pyplot()
    n = da.sizes["lev"]
    (x, x_label), (y, y_label) = length_axis(da, "x"), length_axis(da, "y")
    size = (5.2 * n, 1 + 4.2 * np.ptp(y) / np.ptp(x))
    figure, axes = plt.subplots(1, n, figsize=size, squeeze=False, layout="compressed")
    for ax, lev in zip(axes[0], da["lev"].values, strict=True):
        layer = da.sel(lev=lev)
        limit = float(np.percentile(np.abs(layer), robust)) or 1.0
        colours = dict(cmap=plt.get_cmap("cmo.balance"), vmin=-limit, vmax=limit)
        mesh = ax.pcolormesh(x, y, layer, shading="gouraud", rasterized=True, **colours)
        figure.colorbar(mesh, cax=ax.inset_axes((1.04, 0, 0.045, 1)), label=f"{da.name}{unit(da)}")
        ax.set(title=f"layer {lev}" if named else "", xlabel=x_label, ylabel=y_label, aspect="equal")
    figure.suptitle(title or str(da.attrs.get("long_name", da.name)))
    return figure


def spectra(ds: xr.Dataset, slopes: tuple[float, ...] = (-3.0, -5.0)):
    """Kinetic energy and enstrophy spectra of each layer, log-log, with reference slopes for the energy.

    Raises ``ValueError`` for a Dataset without these.
    """
    if missing := {"KEspec", "Ensspec", "k", "lev"} - set(map(str, ds.variables)):
        raise ValueError(f"the Dataset has no {', '.join(sorted(missing))}; spectra.from_dataset(ds, eq) makes them")
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
    k = ds["k"].values
    panels = {"KEspec": "kinetic energy", "Ensspec": "enstrophy ½q²"}
    for ax, (name, label) in zip(axes, panels.items(), strict=True):
        for lev in ds["lev"].values:
            ax.loglog(k[1:], _mean(ds[name]).sel(lev=lev)[1:], label=f"layer {lev}")
        top = float(_mean(ds[name]).max())
        ax.set(ylabel=label + unit(ds[name]), ylim=(top * FLOOR, top * 10))
        wavenumber_axis(ax, ds)
        ax.legend(loc="lower left")
        ax.grid(alpha=0.3)
    drawn = slice(visible(ds).size + 1)
    draw_slopes(axes[0], k[drawn], _mean(ds["KEspec"]).isel(lev=0).values[drawn], slopes)
    return figure


def wavenumber_axis(ax, ds: xr.Dataset) -> None:
    """Logarithmic axis over the visible wavenumbers."""
    k = visible(ds)
    ax.set(xlabel=f"wavenumber k{unit(ds['k'])}", xlim=(0.9 * k[0], 1.1 * k[-1]))
    sparse_ticks(ax.xaxis)


def sparse_ticks(axis) -> None:
    """Label a logarithmic axis at 1, 2 and 5."""
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(np.inf, np.inf)))
    axis.set_minor_locator(NullLocator())


FLOOR = 1e-8
"""Spectra are drawn down to this part of their largest value."""


def visible(ds: xr.Dataset) -> np.ndarray:
    """The wavenumbers, without 0, up to the last one where some layer's energy is worth drawing."""
    energy = _mean(ds["KEspec"])
    drawn = np.flatnonzero((energy > FLOOR * energy.max("k")).any("lev"))
    return ds["k"].values[1 : max(3, drawn[-1] + 1 if drawn.size else 0)]


def draw_slopes(ax, k: np.ndarray, spectrum: np.ndarray, slopes: tuple[float, ...]) -> None:
    """Power laws through a point above the spectrum, right of its peak."""
    peak = int(np.argmax(spectrum[1:])) + 1
    span = k[(k >= 1.2 * k[peak]) & (k <= 3.2 * k[peak])]
    if span.size < 2:
        return
    for slope in slopes:
        line = 2 * spectrum[peak] * (span / span[0]) ** slope
        ax.plot(span, line, "k:", lw=1)
        ax.annotate(f"$k^{{{slope:g}}}$", (span[-1], line[-1]), (2, 2), textcoords="offset points", fontsize=9)


def budget(ds: xr.Dataset):
    """Terms of the spectral energy budget against k, times k so that equal areas are equal energy rates."""
    from sciml.spectra import budget_names

    plt = pyplot()
    figure, ax = plt.subplots(figsize=(7.5, 4.4), layout="constrained")
    k = visible(ds)
    for i, name in enumerate([str(n) for n in budget_names(ds.data_vars)] + (["residual"] if "residual" in ds else [])):
        style: dict = {"ls": ("-", "--", "-.", ":")[i % 4], "lw": 1.8}  # not by colour alone
        style = {"color": "k", "lw": 1, "ls": "--"} if name == "residual" else style
        ax.semilogx(k, k * _mean(ds[name])[1 : k.size + 1], label=name, **style)
    ax.axhline(0, color="0.6", lw=0.8)
    rate = " (m² s⁻³)" if unit(ds["k"]) else ""
    ax.set(ylabel=f"k × energy change per k{rate}")
    wavenumber_axis(ax, ds)
    ax.legend(fontsize=8)
    ax.grid(alpha=0.3)
    return figure


def series(time, values, labels, ylabel: str, xlabel: str = "time (days)"):
    """Lines against time; ``values (time, n)``, on a logarithmic axis where their sizes differ by more than ten."""
    plt = pyplot()
    figure, ax = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
    means = np.nanmean(np.asarray(values, float), 0)
    if np.nanmin(values) > 0 and means.max() > 10 * means.min():
        ax.set_yscale("log")
    for v, label in zip(np.asarray(values).T, labels, strict=True):
        ax.plot(time, v, label=label)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    ax.grid(alpha=0.3)
    return figure


def analysis(truth: np.ndarray, ds: xr.Dataset, obs: xr.Dataset):
    """Truth, background, analysis and error of psi ``(lev, y, x)``, a row a layer, with the places of ``obs``."""
    import cmocean  # noqa: F401

    plt = pyplot()
    (x, x_label), (y, y_label) = length_axis(ds["psi_analysis"], "x"), length_axis(ds["psi_analysis"], "y")
    n = len(truth)
    figure, axes = plt.subplots(
        n, 4, figsize=(15, 3.6 * n), squeeze=False, layout="compressed", sharex=True, sharey=True
    )
    scale = 1e3 if np.ptp(ds["x"].values) > 1e4 else 1.0
    for i, row in enumerate(axes):
        fields = {"truth": truth[i]} | {k: ds[f"psi_{k}"].values[i] for k in ("background", "analysis")}
        fields["analysis - truth"] = fields["analysis"] - truth[i]
        limit = float(np.percentile(np.abs(truth[i]), 99.8)) or 1.0
        for ax, (name, field) in zip(row, fields.items(), strict=True):
            mesh = ax.pcolormesh(
                x, y, field, cmap="cmo.balance", vmin=-limit, vmax=limit, shading="gouraud", rasterized=True
            )
            ax.set(title=f"layer {i + 1}: {name}", aspect="equal")
        row[0].set_ylabel(y_label)
        figure.colorbar(mesh, ax=row[-1], label="ψ (m² s⁻¹)")
    axes[0][0].scatter(obs["x"].values / scale, obs["y"].values / scale, s=2, c="k", alpha=0.5)
    axes[0][0].set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    for ax in axes[-1]:
        ax.set_xlabel(x_label)
    figure.suptitle(f"streamfunction, {clock(ds['time'])}; dots: observations of the window")
    return figure


def error_spectra(grid, error, truth):
    """Spectra of an error and of the truth, coefficients ``(time, lev, *modes)``, for each layer."""
    from sciml.spectra import isotropic

    plt = pyplot()
    figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    for lev in range(error.shape[1]):
        for z, style, name in ((truth, "-", "truth"), (error, "--", "analysis error")):
            density = (grid.weight * z[:, lev].abs() ** 2).mean(0)
            k, spectrum = isotropic(grid, density)
            ax.loglog(k[1:], spectrum[1:], style, color=f"C{lev}", label=f"layer {lev + 1}: {name}")
    top = ax.get_ylim()[1]
    ax.set(xlabel="k (rad m⁻¹)", ylabel="variance of ψ per k (m⁵ s⁻²)", ylim=(1e-10 * top, top))
    ax.set_title("mean over the scored analyses")
    ax.legend(fontsize=8)
    ax.grid(alpha=0.3)
    return figure


def forecasts(errors: Mapping[str, Mapping], labels: Sequence[str], ylabel: str):
    """Error of methods against lead, a panel a layer; ``errors[method]`` has ``days`` and ``psi (lead, lev)``."""
    plt = pyplot()
    figure, axes = plt.subplots(1, len(labels), figsize=(5.5 * len(labels), 4), sharey=True, squeeze=False)
    for lev, ax in enumerate(axes[0]):
        for i, (method, one) in enumerate(errors.items()):  # ten colours, then again with another line
            style = f"C{i % 10}{'.-' if i < 10 else 'x--'}"
            ax.plot(one["days"], np.asarray(one["psi"])[:, lev], style, label=method)
        ax.set(title=labels[lev], xlabel="lead (days)")
        ax.grid(alpha=0.3)
    axes[0][0].set(ylabel=ylabel, ylim=(0, None))
    axes[0][-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    return figure


def compared_spectra(grid, analyses: Mapping[str, Any], truth):
    """Variance of the analyses of several methods over that of the truth, and of their errors, by wavenumber, a column
    a layer; coefficients ``(time, lev, *modes)``."""
    from sciml.spectra import isotropic

    def spectrum(z):
        return isotropic(grid, (grid.weight * z.abs() ** 2).mean(0))

    figure, axes = pyplot().subplots(2, truth.shape[1], figsize=(11, 7), sharex=True, layout="constrained")
    for lev, (above, below) in enumerate(axes.T):
        k, true = spectrum(truth[:, lev])
        shown = true > 1e-6 * true.max()
        shown[0] = False
        below.loglog(k[shown], true[shown], "k", label="truth")
        for name, z in analyses.items():
            above.loglog(k[shown], (spectrum(z[:, lev])[1] / true)[shown], label=name)
            below.loglog(k[shown], spectrum(z[:, lev] - truth[:, lev])[1][shown], "--", label=name)
        above.axhline(1, color="k", lw=0.8)
        above.set(title=f"layer {lev + 1}", ylabel="variance of analysis / truth", ylim=(0.03, 30))
        below.set(xlabel="k (rad m⁻¹)", ylabel="variance of ψ per k (m⁵ s⁻²), errors dashed")
    axes[0][0].legend(fontsize=8, ncols=2)
    axes[1][0].legend(handles=axes[1][0].lines[:1], fontsize=8)
    for ax in axes.flat:
        ax.grid(alpha=0.3)
    return figure


def costs(results: Mapping[str, Mapping], labels: Sequence[str], ylabel: str):
    """Error of the analyses of ψ against the time of one, a panel a layer."""
    figure, axes = pyplot().subplots(1, len(labels), figsize=(11, 4), sharey=True, squeeze=False, layout="constrained")
    for lev, ax in enumerate(axes[0]):
        for name, one in results.items():
            where = one["seconds_per_window"], one["psi"]["analysis"][lev]
            ax.loglog(*where, "o")
            ax.annotate(f" {name}", where, fontsize=8)
        ax.set(title=labels[lev], xlabel="seconds per analysis, forecast included")
        ax.margins(x=0.15)
        ax.grid(alpha=0.3, which="both")
    axes[0][0].set(ylabel=ylabel)
    return figure


def responses(grid, cases: Sequence[Mapping[str, Any]]):
    """Answers of methods to single changed observations, a row a case and layer, each over its own largest; a case
    has ``fields`` (``(lev, y, x)`` by name), ``x``, ``y`` [m] and ``channel``."""
    import cmocean  # noqa: F401

    names, levels = list(cases[0]["fields"]), len(next(iter(cases[0]["fields"].values())))
    shape = (levels * len(cases), len(names))
    figure, axes = pyplot().subplots(*shape, figsize=(2.6 * shape[1], 2.5 * shape[0]), layout="constrained",
                                     sharex=True, sharey=True)  # fmt: skip
    extent = (0.0, grid.Lx / 1e3, 0.0, grid.Ly / 1e3)
    for row, ax_row in enumerate(axes):
        case, lev = cases[row // levels], row % levels
        for ax, name in zip(ax_row, names, strict=True):
            field = case["fields"][name][lev].cpu().numpy()
            top = max(float(np.abs(field).max()), 1e-300)
            image = ax.imshow(field / top, origin="lower", extent=extent, cmap="cmo.balance", vmin=-1, vmax=1)
            ax.plot(case["x"] / 1e3, case["y"] / 1e3, "k+", ms=9)
            if row == 0:
                ax.set_title(name)
        ax_row[0].set_ylabel(f"{case['channel']}, layer {lev + 1}\ny (km)", fontsize=8)
    for ax in axes[-1]:
        ax.set_xlabel("x (km)", fontsize=8)
    figure.colorbar(image, ax=axes, label="change of ψ, over its largest in the panel", shrink=0.5, aspect=40)
    return figure


def ranks(counts, labels: Sequence[str]):
    """Rank histograms of the truth among the members, as ratios to a flat one; ``counts (lev, ranks)``."""
    plt = pyplot()
    figure, axes = plt.subplots(1, len(labels), figsize=(4.5 * len(labels), 3), sharey=True, squeeze=False)
    for ax, found, label in zip(axes[0], np.asarray(counts, dtype=float), labels, strict=True):
        ax.bar(np.arange(len(found)), found / found.mean(), width=1.0)
        ax.axhline(1, color="k", lw=0.8)
        ax.set(title=label, xlabel="rank of the truth")
    axes[0][0].set_ylabel("frequency × ranks")
    figure.tight_layout()
    return figure


def movie(da: xr.DataArray, path: Path, frames_per_second: int = 12) -> None:
    """Animated GIF of ``da (time, lev, y, x)``; its colour scales are those of the last time."""
    figure = maps(da.isel(time=-1))
    axes = figure.axes[: da.sizes["lev"]]

    def draw(i: int):
        for ax, layer in zip(axes, da.isel(time=i).transpose("lev", "y", "x").values, strict=True):
            ax.collections[0].set_array(layer)
        figure.suptitle(f"{da.attrs.get('long_name', da.name)}, {clock(da['time'][i])}")

    film(figure, draw, da.sizes["time"], path, frames_per_second)


def film(figure, draw: Callable[[int], Any], frames: int, path: Path, frames_per_second: int = 12) -> None:
    """Animated GIF of a figure, which ``draw`` changes to show a frame; the figure is closed."""
    from matplotlib.animation import FuncAnimation, PillowWriter

    with replacing(path) as partial:
        FuncAnimation(figure, draw, frames=frames).save(partial, PillowWriter(frames_per_second), dpi=70)
    pyplot().close(figure)


def clock(time: xr.DataArray) -> str:
    """A time in days where it is counted in seconds."""
    seconds = time.attrs.get("units", "").startswith("s")
    return f"day {float(time) / 86400:.1f}" if seconds else f"t = {float(time):g}"


def _mean(da: xr.DataArray) -> xr.DataArray:
    return da.mean("member") if "member" in da.dims else da
