"""A look at a satellite file: what is in it, what may be used and why the rest may not, on maps.

Reads Jason-1 GDR passes, GHRSST L2P swaths, DUACS tracks (level 3) and maps (level 4), and any CF trajectory, swath or
map into the one container of observations, with the usual editing, and perhaps makes superobservations of them. What
is written, observations.nc, is what cases/altimetry_map.py and sciml.windows start from.

Without --file the case makes a SYNTHETIC swath of sea-surface temperature across Greenwich in the layout of GHRSST L2P
(GHRSST Data Processing Specification 2.0, 2012), with land and clouds. Expected of it: 62 % of the pixels good.

Writes observations.nc, values.png, flags.png and summary.json. Run time on one core: any preset 5 s, large files 20 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import observation_files
import xarray as xr
from common import Common, Range, Refused, goes_with, main, make_room
from observation_files import with_sigma

from sciml import charts, plot, score
from sciml.data import write_netcdf
from sciml.observations import check, counts, good, names, units_of
from sciml.superob import superob

WRITTEN = ("observations.nc", "values.png", "flags.png", "summary.json")


@dataclass(frozen=True)
class Options(Common):
    device: Literal["auto", "cpu"] = "auto"
    """Where to compute: files are read on the CPU."""
    file: tuple[str, ...] = ()
    """Files of one kind, one or several (none: a synthetic swath is made)."""
    reader: Literal["ghrsst_l2p", "jason_gdr", "duacs_l3", "duacs_l4", "cf"] = "ghrsst_l2p"
    """What kind of files these are."""
    variable: str | None = None
    """What to read (default: the reader's own; cf needs it)."""
    sigma: Annotated[float, Range(1e-9, 1e6)] | None = None
    """Standard deviation of the observation error, m or K as they are (default: the reader's own, or of
    the file; cf needs it)."""
    quality: Annotated[int, Range(0, 5)] = 4
    """Lowest quality level of ghrsst_l2p that is used, from 0 to 5."""
    every: Annotated[int, Range(1, 10_000)] = 4
    """Of duacs_l4, the factor by which points are thinned in both directions."""
    box: tuple[float, float, float, float] | None = None
    """West, east, south and north edge, degrees (default: all of the data)."""
    superob: Annotated[float, Range(1e-3, 90)] | None = None
    """Size of the cells in which observations are averaged, degrees (default: they are not)."""
    cell_days: Annotated[float, Range(1e-6, 1e5)] = 0.25
    """Length of these cells in time, days."""


# -- a synthetic swath -----------------------------------------------------------------------------------------------
def synthetic(path: Path, seed: int, lines: int = 300, pixels: int = 120) -> Path:
    """A file in the layout of GHRSST L2P: a wide swath across Greenwich, eddies, clouds, a round island."""
    rng = np.random.default_rng(seed)
    along, across = np.meshgrid(np.linspace(-1, 1, lines), np.linspace(-1, 1, pixels), indexing="ij")
    lon, lat = (4.0 * along + 6.0 * across + 180.0) % 360.0 - 180.0, -36.0 + 12.0 * along - 1.5 * across
    eddies = sum(np.cos(k * lon + a) * np.cos(k * lat + b) / k for k, a, b in rng.uniform(0.3, 6.0, (40, 3)))
    clouds = sum(np.cos(k * along + a) * np.cos(k * across + b) for k, a, b in rng.uniform(1.0, 9.0, (8, 3)))
    quality = np.where(clouds > 1.0, 1, np.where(clouds > 0.6, 3, 5))
    land = (lon + 1.0) ** 2 + (lat + 31.0) ** 2 < 4.0
    noise = 0.3 * rng.standard_normal(lon.shape)
    sst = 291.0 + 0.5 * (lat + 36.0) + 0.3 * eddies + noise
    dims = ("time", "nj", "ni")
    fields: dict[str, tuple] = {
        "sea_surface_temperature": (sst, {"units": "kelvin"}),
        "sst_dtime": (180.0 * (along + 1) / 2, {"units": "seconds"}),
        "sses_bias": (0.0 * sst, {"units": "kelvin"}),
        "sses_standard_deviation": (0.3 + 0.0 * sst, {"units": "kelvin"}),
        "quality_level": (np.where(land, 0, quality).astype(np.int8), {"units": "1"}),
        "l2p_flags": (2 * land.astype(np.int16), {"units": "1"}),
    }
    ds = xr.Dataset(
        {n: (dims, a[None], about) for n, (a, about) in fields.items()},
        {"lat": (dims[1:], lat, {"units": "degrees_north"}), "lon": (dims[1:], lon, {"units": "degrees_east"}),
         "time": ("time", [1.2e9], {"units": "seconds since 1981-01-01", "standard_name": "time"})},
        {"Conventions": "CF-1.11", "title": "SYNTHETIC swath, made by sciml",
         "platform": "none", "sensor": "synthetic"},
    )  # fmt: skip
    write_netcdf(ds, path)
    return path


# -- input -----------------------------------------------------------------------------------------------------------
def read(o: Options, files: list[Path]) -> xr.Dataset:
    """All observations of the files, flagged."""
    obs = observation_files.read(files, o.reader, o.variable, o.sigma, quality=o.quality, every=o.every)
    if o.sigma is not None and len(units_of(obs)) > 1:
        raise Refused(f"--sigma is one number, the channels are several: {', '.join(units_of(obs))}")
    obs = with_sigma(obs, o.sigma)
    return obs if o.box is None else check(obs, box=o.box)


def table(obs: xr.Dataset) -> dict[str, dict[str, float]]:
    """Of each channel: how many observations may be used, their mean, spread and range, and their error."""
    out, used = {}, good(obs)
    for code, (name, unit) in enumerate(units_of(obs).items()):
        own = used.isel(obs=np.flatnonzero(used["channel"].values == code))
        if own.sizes["obs"]:
            value = own["value"].values
            found = {"mean": value.mean(), "std": value.std(), "min": value.min(), "max": value.max()}
            found |= {"sigma": own["sigma"].values.mean()}
            out[f"{name} ({unit})"] = {"good": float(own.sizes["obs"])} | {n: float(v) for n, v in found.items()}
    return out


def run(o: Options, out: Path) -> dict[str, Any]:
    if o.box is not None and not (-90 <= o.box[2] < o.box[3] <= 90 and max(map(abs, o.box[:2])) <= 360):
        raise Refused(f"--box is west, east, south and north edge in degrees, got {o.box}")
    goes_with(o, o.reader == "ghrsst_l2p", "--reader ghrsst_l2p", "quality")
    goes_with(o, o.reader == "duacs_l4", "--reader duacs_l4", "every")
    goes_with(o, o.superob is not None, "--superob", "cell_days")
    make_room(out, WRITTEN if o.file else (*WRITTEN, "synthetic_swath.nc"), o)
    obs = read(o, [Path(f) for f in o.file] or [synthetic(out / "synthetic_swath.nc", o.seed)])
    flags = counts(obs)
    if not flags.get("good"):
        raise Refused(f"none of the observations may be used; flags: {flags or 'there are none at all'}")
    made = obs if o.superob is None else superob(obs, o.superob, 86400.0 * o.cell_days)
    write_netcdf(made, out / "observations.nc")
    for name, figure in (("values", charts.values(made)), ("flags", charts.flags(obs))):
        plot.save(figure, out / f"{name}.png")
    times = good(obs)["time"].values
    print(f"{obs.sizes['obs']} observations of {', '.join(names(obs, 'platform'))}; flags: {flags}")
    print(f"from {str(times.min())[:19]} to {str(times.max())[:19]}")
    print(score.table(table(made)))
    return {"flags": flags, "channels": table(made), "written": int(made.sizes["obs"])}


if __name__ == "__main__":
    main(run, Options)
