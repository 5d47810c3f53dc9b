"""Figures of observations and maps in longitude and latitude. Each returns its matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from sciml.observations import QC, good, names
from sciml.plot import pyplot
from sciml.readers import wrapped

Box = tuple[float, float, float, float]
"""west, east, south and north edge, degrees"""
UNUSABLE = ("missing", "bad_sigma", "land", "edited", "time_order", "gross_error", "duplicate")


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
