"""Figures: maps, spectra with reference slopes, budgets, time series, movies. Each returns its matplotlib figure."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import xarray as xr


def _pyplot():
    import matplotlib

    if not os.environ.get("DISPLAY") and "inline" not in matplotlib.get_backend():
        matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    return plt


def save(figure, path: Path) -> None:
    """Write a PNG under a temporary name, then rename it, and close the figure."""
    partial = path.with_name(f".{path.name}")
    figure.savefig(partial, format="png", dpi=120, bbox_inches="tight")
    os.replace(partial, path)
    _pyplot().close(figure)


def length_axis(da: xr.DataArray, axis: str) -> tuple[np.ndarray, str]:
    """Coordinate values in a readable unit, with its label."""
    values, units = da[axis].values, da[axis].attrs.get("units", "1")
    if units == "m" and np.ptp(values) > 1e4:
        return values / 1e3, f"{axis} (km)"
    return values, f"{axis} ({units})" if units != "1" else axis


def maps(da: xr.DataArray, title: str = "", robust: float = 99.8):
    """One map per layer of ``da (lev, y, x)``, with a symmetric colour scale for each."""
    import cmocean  # noqa: F401  # registers its colour maps

    plt = _pyplot()
    n = da.sizes["lev"]
    (x, x_label), (y, y_label) = length_axis(da, "x"), length_axis(da, "y")
    aspect = np.ptp(y) / np.ptp(x)
    figure, axes = plt.subplots(1, n, figsize=(5.2 * n, 1 + 4.2 * aspect), squeeze=False, layout="constrained")
    for ax, lev in zip(axes[0], da["lev"].values, strict=True):
        layer = da.sel(lev=lev)
        limit = float(np.percentile(np.abs(layer), robust)) or 1.0
        mesh = ax.pcolormesh(x, y, layer, cmap=plt.get_cmap("cmo.balance"), vmin=-limit, vmax=limit, rasterized=True)
        figure.colorbar(mesh, ax=ax, shrink=0.85, label=f"{da.name} ({da.attrs.get('units', '1')})")
        ax.set(title=f"layer {lev}", xlabel=x_label, ylabel=y_label, aspect="equal")
    figure.suptitle(title or str(da.attrs.get("long_name", da.name)))
    return figure


def spectra(ds: xr.Dataset, slopes: tuple[float, ...] = (-3.0, -5.0)):
    """Kinetic energy and enstrophy spectra of each layer, log-log, with reference slopes for the energy."""
    plt = _pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
    k = ds["k"].values
    panels = {"KEspec": "kinetic energy (m³ s⁻²)", "Ensspec": "enstrophy ½q² (m s⁻²)"}
    for ax, (name, label) in zip(axes, panels.items(), strict=True):
        for lev in ds["lev"].values:
            ax.loglog(k[1:], _mean(ds[name]).sel(lev=lev)[1:], label=f"layer {lev}")
        top = float(_mean(ds[name]).max())
        ax.set(xlabel="wavenumber k (rad m⁻¹)", ylabel=label, ylim=(top * 1e-8, top * 3))
        ax.legend()
        ax.grid(alpha=0.3, which="both")
    draw_slopes(axes[0], k, _mean(ds["KEspec"]).isel(lev=0).values, slopes)
    return figure


def draw_slopes(ax, k: np.ndarray, spectrum: np.ndarray, slopes: tuple[float, ...]) -> None:
    """Power laws through a point above the spectrum, right of its peak."""
    peak = int(np.argmax(spectrum[1:])) + 1
    span = k[(k >= 1.5 * k[peak]) & (k <= 8 * k[peak])]
    if span.size < 2:
        return
    for slope in slopes:
        line = 2 * spectrum[peak] * (span / span[0]) ** slope
        ax.loglog(span, line, "k:", lw=1)
        ax.annotate(f"$k^{{{slope:g}}}$", (span[-1], line[-1]), fontsize=9)


def budget(ds: xr.Dataset):
    """Terms of the spectral energy budget against k, times k so that equal areas are equal energy rates."""
    from sciml.spectra import budget_names

    plt = _pyplot()
    figure, ax = plt.subplots(figsize=(7.5, 4.4), layout="constrained")
    k = ds["k"].values
    for name in [str(n) for n in budget_names(ds.data_vars)] + (["residual"] if "residual" in ds else []):
        style = {"color": "k", "lw": 1, "ls": "--"} if name == "residual" else {}
        ax.semilogx(k[1:], (k * _mean(ds[name]))[1:], label=name, **style)
    ax.axhline(0, color="0.6", lw=0.8)
    ax.set(xlabel="wavenumber k (rad m⁻¹)", ylabel="k × energy change per k (m² s⁻³)")
    ax.legend(fontsize=8)
    ax.grid(alpha=0.3)
    return figure


def series(time, values, labels, ylabel: str, xlabel: str = "time (days)"):
    """Lines against time; ``values (time, n)``."""
    plt = _pyplot()
    figure, ax = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
    for v, label in zip(np.asarray(values).T, labels, strict=True):
        ax.plot(time, v, label=label)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    ax.grid(alpha=0.3)
    return figure


def movie(da: xr.DataArray, path: Path, frames_per_second: int = 12) -> None:
    """Animated GIF of ``da (time, lev, y, x)``."""
    from matplotlib.animation import FuncAnimation, PillowWriter

    figure = maps(da.isel(time=-1))
    meshes = [c for ax in figure.axes for c in ax.collections if hasattr(c, "set_array") and c.get_array() is not None]
    meshes = meshes[: da.sizes["lev"]]

    def draw(i: int):
        for mesh, lev in zip(meshes, da["lev"].values, strict=True):
            mesh.set_array(da.isel(time=i).sel(lev=lev).values)
        return meshes

    partial = path.with_name(f".{path.name}")
    FuncAnimation(figure, draw, frames=da.sizes["time"]).save(partial, PillowWriter(frames_per_second), dpi=70)
    os.replace(partial, path)
    _pyplot().close(figure)


def _mean(da: xr.DataArray) -> xr.DataArray:
    return da.mean("member") if "member" in da.dims else da
