"""The one figure of the closed loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from sciml.plot import pyplot

COLOURS = {"truth": "k", "truth again": "0.6", "imperfect": "#D55E00", "neural": "#CC79A7", "corrected": "#0072B2",
           "perfect": "#009E73"}  # fmt: skip
"""Okabe & Ito's, which the colour-blind can tell apart"""
STYLES = {"truth": "-", "truth again": ":", "imperfect": "--", "neural": "-.", "corrected": "-", "perfect": ":"}
METHODS = {"letkf": "LETKF", "fuxida": "FuXi-DA"}
CHANGES = {"as seen": "climate as seen", "shear": "stronger shear", "drag": "more drag"}


def story(ds: xr.Dataset, numbers: Mapping[str, Any], climates: Mapping[str, Mapping[str, Any]]):
    """Maps of the lower layer before and after; the equation found, errors of analyses and forecasts; climates."""
    figure, axes = pyplot().subplots(3, 3, figsize=(13.5, 12), layout="constrained")
    maps(figure, axes[0], ds)
    terms(axes[1, 0], numbers["found"]["terms"])
    analyses(axes[1, 1], numbers["scores"])
    forecasts(axes[1, 2], numbers["scores"]["letkf"])
    for ax, (how, own) in zip(axes[2], climates.items(), strict=True):
        spectra(ax, own, CHANGES[how])
    for letter, ax in zip("abcdefghi", axes.flat, strict=True):
        ax.set_title(f"({letter}) {ax.get_title()}", loc="left", fontsize=10)
        if ax.get_title(loc="center"):
            ax.set_title("", loc="center")
    return figure


def maps(figure, axes, ds: xr.Dataset) -> None:
    """Streamfunction of the lower layer at the end, on one scale."""
    day = float(ds["time"][-1]) / 86400
    shown = {f"truth, day {day:.0f}": "psi_truth", "LETKF, imperfect model": "psi_letkf_imperfect",
             "LETKF, corrected model": "psi_letkf_corrected"}  # fmt: skip
    fields = {title: ds[name].isel(time=-1, lev=1) / 1e3 for title, name in shown.items() if name in ds}
    limit = float(np.quantile(np.abs(next(iter(fields.values()))), 0.998))
    extent = (0.0, *[float(ds[a][-1] + ds[a][0]) / 1e3 for a in "xy"])
    for ax, (title, field) in zip(axes, fields.items(), strict=False):
        image = ax.imshow(
            field, origin="lower", extent=(0, extent[1], 0, extent[2]), cmap="RdBu_r", vmin=-limit, vmax=limit
        )
        ax.set(title=title, xlabel="x (km)", ylabel="y (km)")
    figure.colorbar(image, ax=list(axes), label="ψ of layer 2 (10³ m² s⁻¹)", shrink=0.9, extend="both")


def terms(ax, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Coefficients over their true values, two standard errors; terms that do not belong there over their own."""
    names = list(rows)
    for y, r in enumerate(rows.values()):
        unit = r["true"] or r["found"] or 1.0
        ax.plot(r["true"] / unit, y, "o", mfc="none", mec="k", ms=11)
        ax.errorbar(
            r["found"] / unit, y, xerr=2 * r["std"] / abs(unit), fmt="o", ms=5, capsize=4, c=COLOURS["corrected"]
        )
    ax.plot([], [], "o", mfc="none", mec="k", ms=11, label="true")
    ax.errorbar([], [], xerr=[], fmt="o", ms=5, capsize=4, c=COLOURS["corrected"], label="found, ± 2 std. errors")
    ax.axvline(0, c="0.8", lw=0.8)
    ax.set_yticks(range(len(names)), names)
    ax.set(title="what the model lacks", xlabel="coefficient / true value", ylim=(len(names) - 0.4, -0.6))
    ax.legend(loc="lower center", fontsize=8)


def analyses(ax, scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Errors of both layers by method and model."""
    names, x = [n for n in COLOURS if n in scores["letkf"]], np.arange(4)
    for i, name in enumerate(names):
        values = [scores[m][name]["analysis"][lev] for m in METHODS for lev in (0, 1)]
        ax.bar(
            x + (i - (len(names) - 1) / 2) * 0.8 / len(names), values, 0.8 / len(names), color=COLOURS[name], label=name
        )
    ax.set_xticks(x, [f"{m}\nlayer {lev}" for m in METHODS.values() for lev in (1, 2)], fontsize=8)
    ax.set(title="analyses", ylabel="error of ψ / climatological std", ylim=(0, 1.2 * ax.get_ylim()[1]))
    ax.legend(fontsize=7, ncols=len(names), loc="upper center", columnspacing=0.8, handlelength=1.2)


def forecasts(ax, scores: Mapping[str, Any]) -> None:
    """Errors of both layers against lead."""
    for name in dict.fromkeys(n for n in ("perfect", *COLOURS) if n in scores):
        error, days = np.asarray(scores[name]["forecast"]), scores[name]["days"]
        wide = {"lw": 6, "alpha": 0.35} if name == "perfect" else {}  # the corrected model's lie on its curves
        ax.plot(days, error[:, 0], "o-", c=COLOURS[name], ms=4, label=name, **wide)
        ax.plot(days, error[:, 1], "s--", c=COLOURS[name], ms=4, mfc="w", **wide)
    ax.plot([], [], "k-o", ms=4, label="layer 1")
    ax.plot([], [], "k--s", ms=4, mfc="w", label="layer 2")
    ax.set(
        title="forecasts from the LETKF's analyses",
        xlabel="lead (days)",
        ylabel="error of ψ / climatological std",
        ylim=(0, 1.3 * ax.get_ylim()[1]),
    )
    ax.legend(fontsize=7, ncols=3, loc="upper center")


def spectra(ax, climates: Mapping[str, Any], title: str) -> None:
    """Kinetic energy of the lower layer, which bottom and drag act on."""
    top = max(float(c.spectrum[1].max()) for c in climates.values() if c is not None)
    for name, c in climates.items():
        if c is None:
            ax.plot([], [], STYLES[name], c=COLOURS[name], label=f"{name}: blows up")
            continue
        ax.loglog(
            c.k[1:], c.spectrum[1, 1:], STYLES[name], c=COLOURS[name], label=name, lw=2 if name == "truth" else 1.4
        )
    ax.set(title=title, xlabel="k (rad m⁻¹)", ylabel="EKE of layer 2 per k (m³ s⁻²)", ylim=(1e-5 * top, 3 * top),
           xlim=(None, 2.1e-4))  # fmt: skip
    ax.legend(fontsize=8)
