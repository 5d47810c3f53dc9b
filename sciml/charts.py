"""Figures of observations and maps in longitude and latitude. Each returns its matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from sciml.observations import FLAGS, QC, good, names, units_of
from sciml.plot import pyplot
from sciml.readers import wrapped

Box = tuple[float, float, float, float]
"""west, east, south and north edge, degrees"""
UNUSABLE = ("missing", "bad_sigma", "land", "edited", "time_order", "gross_error", "duplicate", "future")


class Panel(NamedTuple):
    """A map ``(lat, lon)`` and how it is coloured: from -top to top, or from 0."""

    title: str
    values: np.ndarray
    top: float
    signed: bool = True


def degrees(axis, letters: str) -> None:
    """Label an axis as 5°W, 0°, 5°E."""
    axis.set_major_formatter(lambda a, _: f"{abs(b := (a + 180) % 360 - 180):g}°" + (letters[int(b < 0)] if b else ""))


def chart(ax, box: Box, title: str) -> None:
    """Limits, labels and aspect of a map."""
    middle = (box[2] + box[3]) / 2
    ax.set(xlim=box[:2], ylim=box[2:], title=title, aspect=1 / max(0.5, np.cos(np.radians(middle))))
    degrees(ax.xaxis, "EW")
    degrees(ax.yaxis, "NS")


def tracks(heights: xr.Dataset, every: xr.Dataset, withheld: xr.Dataset, box: Box, mean: float, std: float):
    """All heights, those in the box, and brightness temperatures along the track where ``every`` has channels in K."""
    import cmocean  # noqa: F401

    warm = [c for c, u in enumerate(np.atleast_1d(every["channel"].attrs["channel_units"])) if u == "K"]
    size = (17 if warm else 11.5, 5)
    figure, axes = pyplot().subplots(1, 3 if warm else 2, figsize=size, layout="constrained")
    bad = np.isin(heights["qc"], [QC[n] for n in UNUSABLE])
    west = (box[0] + box[1]) / 2 - 180
    lon, lat, height = wrapped(heights["lon"], west), heights["lat"].values, heights["value"].values - mean
    for ax, size in zip(axes, (3, 8), strict=False):
        if bad.any():
            ax.plot(lon[bad], lat[bad], ".", c="0.75", ms=size / 3, label="edited, land or missing")
        colours = dict(cmap="cmo.balance", vmin=-2.5 * std, vmax=2.5 * std)
        dots = ax.scatter(lon[~bad], lat[~bad], s=size, c=height[~bad], **colours)
    axes[1].plot(wrapped(withheld["lon"], west), withheld["lat"], "k.", ms=0.8, label="withheld")
    axes[0].plot(np.take(box, [0, 1, 1, 0, 0]), np.take(box, [2, 2, 3, 3, 2]), "k-", lw=1, label="box")
    chart(axes[0], (np.nanmin(lon), np.nanmax(lon), np.nanmin(lat), np.nanmax(lat)), "all heights of the files")
    chart(axes[1], box, "box")
    label = "height minus mean (m), both maps"
    figure.colorbar(dots, ax=list(axes[:2]), label=label, location="bottom", shrink=0.6, aspect=40)
    for c in warm:
        own = good(every.isel(obs=np.flatnonzero(every["channel"].values == c)))
        axes[2].plot(own["lat"], own["value"], ".", ms=2, label=names(every, "channel")[c])
        axes[2].set(xlabel="latitude", ylabel="brightness temperature (K)", title="radiometer, edited")
        degrees(axes[2].xaxis, "NS")
    for ax in axes:
        ax.legend(fontsize=8, markerscale=3, loc="upper right")
    return figure


def maps(panels: Sequence[Panel], axes_of_map: tuple[np.ndarray, np.ndarray], box: Box, used: xr.Dataset, title: str):
    """Maps of heights in metres, two in a row, with the places of the observations used."""
    import cmocean  # noqa: F401

    rows, columns = (len(panels) + 1) // 2, min(2, len(panels))
    figure, axes = pyplot().subplots(
        rows, columns, figsize=(5.5 * columns, 4.8 * rows), layout="constrained", squeeze=False
    )
    for ax, one in zip(axes.flat, panels, strict=False):
        style = dict(cmap="cmo.balance", vmin=-one.top) if one.signed else dict(cmap="cmo.amp", vmin=0)
        mesh = ax.pcolormesh(*axes_of_map, one.values, shading="gouraud", rasterized=True, vmax=one.top, **style)
        ax.plot(wrapped(used["lon"], box[0]), used["lat"], "k.", ms=0.7, alpha=0.5)
        chart(ax, box, one.title)
        figure.colorbar(mesh, ax=ax, label="m")
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    figure.suptitle(title)
    return figure


def along_track(obs: xr.Dataset, passes: Sequence[np.ndarray], withheld: np.ndarray, curves: Mapping[str, np.ndarray]):
    """Observed heights against latitude, a panel for each pass (a mask of ``obs``), with curves at the same places."""
    size = (8, 0.6 + 2.4 * len(passes))
    figure, axes = pyplot().subplots(len(passes), figsize=size, layout="constrained", squeeze=False)
    for ax, own in zip(axes[:, 0], passes, strict=True):
        here, dark = obs.isel(obs=np.flatnonzero(own)), withheld[own]
        for name, where, colour in (("used", ~dark, "0.75"), ("withheld", dark, "k")):
            if where.any():
                ax.plot(here["lat"][where], here["value"][where], ".", c=colour, ms=3, label=f"observed, {name}")
        for name, values in curves.items():
            ax.plot(here["lat"], values[own], lw=1.5, label=name)
        platform = names(here, "platform")[int(here["platform"][0])]
        ax.set(ylabel="height (m)", title=f"{platform}, {str(here['time'].values[0])[:16]}")
        ax.grid(alpha=0.3)
        degrees(ax.xaxis, "NS")
    axes[0, 0].legend(fontsize=8, ncols=4)
    return figure


def around(obs: xr.Dataset) -> tuple[np.ndarray, np.ndarray, Box]:
    """Longitudes that begin after the widest gap, so that data across Greenwich stay together, latitudes, and a box
    about them."""
    lon, lat = wrapped(obs["lon"], 0.0), obs["lat"].values
    placed = np.sort(lon[np.isfinite(lon)])
    gaps = np.diff(placed, append=placed[:1] + 360.0)
    widest = int(np.argmax(gaps))
    start = float(placed[(widest + 1) % placed.size]) if gaps[widest] > 20.0 else 0.0
    lon = wrapped(lon, start - 360.0 * (start > 180.0))
    pad = 0.02 * max(np.ptp(placed := lon[np.isfinite(lon)]), np.nanmax(lat) - np.nanmin(lat), 0.1)
    south, north = max(-90.0, np.nanmin(lat) - pad), min(90.0, np.nanmax(lat) + pad)
    return lon, lat, (float(placed.min() - pad), float(placed.max() + pad), float(south), float(north))


def panels_of(obs: xr.Dataset, n: int):
    """A figure of ``n`` maps, of the shape of the data, with longitudes, latitudes and box of :func:`around`."""
    lon, lat, box = around(obs)
    columns = min(2, n)
    rows = -(-n // columns)
    tall = (box[3] - box[2]) / max(0.5, np.cos(np.radians((box[2] + box[3]) / 2))) > box[1] - box[0]
    size = ((4.5 if tall else 8.0) * columns + 1.5, (6.0 if tall else 4.8) * rows)
    figure, axes = pyplot().subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for ax in axes.flat[n:]:
        ax.set_axis_off()
    return figure, axes.flat, lon, lat, box


def dot(n: int) -> float:
    """Area [points^2] of dots of which ``n`` cover a map."""
    return float(np.clip(2e5 / max(n, 1), 0.5, 12))


def values(obs: xr.Dataset):
    """What may be used, one map for each channel, coloured from the 2nd to the 98th percentile; the rest in grey."""
    import cmocean  # noqa: F401

    units, right = units_of(obs), obs["qc"].values == 0
    seen = [c for c in range(len(units)) if (right & (obs["channel"].values == c)).any()]
    figure, axes, lon, lat, box = panels_of(obs, len(seen))
    for ax, c in zip(axes, seen, strict=False):
        own = obs["channel"].values == c
        name, unit = list(units.items())[c]
        shown, hidden = own & right, own & ~right
        size = dot(int(own.sum()))
        value = obs["value"].values[shown]
        low, high = np.percentile(value, (2, 98))
        warm, height = unit in ("K", "degC"), unit in ("m", "cm", "mm")
        if height:
            low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
        ax.plot(lon[hidden], lat[hidden], ".", c="0.85", ms=size**0.5, zorder=0, rasterized=True)
        style = dict(cmap="cmo.thermal" if warm else "cmo.balance" if height else "viridis", vmin=low, vmax=high)
        dots = ax.scatter(lon[shown], lat[shown], s=size, c=value, linewidths=0, rasterized=True, **style)
        figure.colorbar(dots, ax=ax, label=f"{name} ({unit})", extend="both", shrink=0.8)
        chart(ax, box, f"{name}: {shown.sum()} good of {own.sum()}")
    figure.suptitle(f"{', '.join(names(obs, 'platform'))[:60]}, grey: not used")
    return figure


def flags(obs: xr.Dataset):
    """Where observations carry which flag; what is good lies below, in light grey."""
    figure, (ax, *_), lon, lat, box = panels_of(obs, 1)
    size = dot(obs.sizes["obs"]) ** 0.5
    found = np.bincount(obs["qc"].values.astype(int), minlength=len(FLAGS))
    colours = ["0.85", "#000000", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#8c564b", "#d55e00", "#cc79a7",
               "#7f7f7f", "#e69f00", "#5d0a8c"]  # fmt: skip
    for code, (name, colour) in enumerate(zip(FLAGS, colours, strict=True)):
        if found[code]:
            own = obs["qc"].values == code
            label = f"{name.replace('_', ' ')}: {found[code]}"
            ax.plot(lon[own], lat[own], ".", c=colour, ms=size, label=label, rasterized=True)
    chart(ax, box, "")
    figure.legend(loc="outside lower center", ncols=4, markerscale=10 / max(size, 1), fontsize=9)
    figure.suptitle(", ".join(names(obs, "platform"))[:60])
    return figure
