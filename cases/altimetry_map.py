r"""Maps of sea-surface height from altimeter tracks, by optimal interpolation and by quasi-geostrophic 4D-Var.

    oi      eta = C_xo (C_oo + R)^-1 y,  C = std^2 exp(-(r / length)^2 - (dt / time_scale)^2)
    4dvar   the trajectory of dq/dt + J(psi, q) + beta dpsi/dx = 0,  q = lap psi - psi / rd^2,  eta = f0 psi / g,
            that fits all tracks of the window best; the same C at its start

The model (one active layer over a deep one at rest) lives in a doubly periodic box that is larger than the map by a
margin on all sides. Bretherton et al. (1976, Deep-Sea Res. 23, 559), Le Traon et al. (1998, JTECH 15, 522); QG dynamics
for mapping: Ubelmann et al. (2015, JTECH 32, 177), Le Guillou et al. (2021, JTECH 38, 697).

Without --file the case makes SYNTHETIC tracks, files in the layout of DUACS level 3, of a two-layer flow that the
one-layer model does not know. Expected rms differences from withheld passes, whose noise is 0.02 m
(default, seed 0): prior mean 0.096 m, oi 0.031 m, 4dvar 0.030 m.
Real ones: --file A.nc B.nc --box 300 310 33 43. A Jason GDR pass: --reader jason_gdr --section 1e5 --withhold 3.

Writes map.nc, departures.nc, pictures and summary.json. Run time on one core: quick 40 s, default 80 s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import observation_files
import torch
import xarray as xr
from common import Common, Range, Refused, asked, device, goes_with, main, make_room
from observation_files import with_sigma
from tqdm import tqdm

import sciml as sm
from sciml import charts, plot, readers, score
from sciml.assim.base import trajectory
from sciml.assim.variational import FourDVar
from sciml.data import write_netcdf
from sciml.instruments import track
from sciml.interpolate import RADIUS, Prior, estimate, interpolated, map_axes
from sciml.observations import check, counts, good, number, observations
from sciml.observe import GRAVITY, Channel, Operator, Window, ssh

DAY = 86400.0
SIZES = {
    "quick": dict(nx=48, points=48, dt=14400.0, outer=1, inner=10),
    "default": dict(nx=96, points=96, dt=7200.0, outer=2, inner=15),
    "full": dict(nx=192, points=192, dt=3600.0, outer=3, inner=30),
}
Height = Annotated[float, Range(1e-6, 1e3)]
Box = tuple[float, float, float, float]
HERE = (-5.0, 5.0, -41.0, -31.0)
"""Box of the synthetic tracks: across Greenwich, south of Africa."""
WRITTEN = ("map.nc", "departures.nc", "tracks.png", "map.png", "along_track.png",
           "summary.json")  # fmt: skip
TITLE = "SYNTHETIC along-track sea level of a two-layer model, made by sciml"


@dataclass(frozen=True)
class Options(Common):
    file: tuple[str, ...] = ()
    """Along-track files, one or several (none: synthetic tracks are made)."""
    reader: Literal["duacs_l3", "jason_gdr", "cf"] = "duacs_l3"
    """What kind of files these are."""
    variable: str | None = None
    """Height to map, in m, cm or mm (default: the reader's own; cf needs it; not of jason_gdr)."""
    sigma: Height | None = None
    """Standard deviation of the observation error, m (default: the reader's own; cf needs it)."""
    box: tuple[float, float, float, float] | None = None
    """West, east, south and north edge of the map, degrees (default: all of the data, up to 25 degrees wide)."""
    date: str | None = None
    """Time of the map, such as 2019-01-06T12 (default: the middle of the data in the box)."""
    days: Annotated[float, Range(1e-3, 366)] = 10.0
    """Length of the window about that time, days (at most 366)."""
    method: Literal["oi", "4dvar", "both"] = "both"
    """How to map."""
    withhold: Annotated[int, Range(0, 10_000)] = 5
    """Of so many passes one is withheld for verification (0: none)."""
    section: Annotated[float, Range(1e3, 1e8)] | None = None
    """Length of the pieces into which passes are cut before that, m (default: whole passes)."""
    std: Height | None = None
    """Standard deviation of the signal, m (default: that of the observations)."""
    length: Annotated[float, Range(1e3, 1e8)] = 100e3
    """Scale of the covariance in space, m."""
    time_scale: Annotated[float, Range(1e-3, 1e5)] = 10.0
    """Scale of the covariance of oi in time, days."""
    points: Annotated[int, Range(2, 4_096)] | None = None
    """Points of the map on its longer side (default: 48, 96 or 192 with the preset)."""
    nx: Annotated[int, Range(8, 4_096)] | None = None
    """Points of the model from west to east (default: 48, 96 or 192 with the preset)."""
    dt: Annotated[float, Range(60, 1e6)] | None = None
    """Time step of the model, s (default: 14400, 7200 or 3600 with the preset)."""
    margin: Annotated[float, Range(0, 1e7)] = 200e3
    """Width of the model's box outside of the map, m."""
    rd: Annotated[float, Range(1e3, 1e7)] | None = None
    """Deformation radius of the model, m (default: 2.7 m/s over the Coriolis parameter)."""

    def size(self, name: str) -> Any:
        """A number that depends on the preset unless given."""
        return asked(self, SIZES[self.preset])[name]


class Setting(NamedTuple):
    """What to map, where and from what."""

    obs: xr.Dataset
    """all heights of the files, flagged"""
    usable: xr.Dataset
    """those in box and window"""
    withheld: np.ndarray
    """which of these are for verification"""
    box: Box
    start: np.datetime64
    date: np.datetime64
    prior: Prior
    axes: tuple[np.ndarray, np.ndarray]

    @property
    def used(self) -> xr.Dataset:
        return self.usable.isel(obs=np.flatnonzero(~self.withheld))


class Mapped(NamedTuple):
    """What a method makes: maps ``(lat, lon)`` of height and perhaps error, heights at the usable observations."""

    maps: dict[str, np.ndarray]
    at: np.ndarray
    info: dict[str, float]


# -- the plane that is tangent in the middle of a box, x east and y north [m] ----------------------------------------
def middle(box: Box) -> tuple[float, float]:
    """Longitude and latitude."""
    return (box[0] + box[1]) / 2, (box[2] + box[3]) / 2


def coriolis(box: Box) -> tuple[float, float]:
    """f0 [s-1] and beta [m-1 s-1]."""
    latitude = np.radians(middle(box)[1])
    return 2 * 7.2921e-5 * np.sin(latitude), 2 * 7.2921e-5 * np.cos(latitude) / RADIUS


def local(obs: xr.Dataset, box: Box, start, mean: float = 0.0) -> xr.Dataset:
    """Observations as anomalies on the plane, with times in seconds."""
    lon, lat = middle(box)
    east = np.radians(readers.wrapped(obs["lon"], lon - 180) - lon)
    x, y = RADIUS * np.cos(np.radians(lat)) * east, RADIUS * np.radians(obs["lat"].values - lat)
    seconds = (obs["time"].values - start) / np.timedelta64(1, "s")
    return observations(obs["value"].values - mean, obs["sigma"].values, seconds, x, y, channels=("ssh",), units=("m",))


def seen(eq: sm.TwoLayerQG, dt: float, steps: int, obs: xr.Dataset) -> Window:
    """Heights in a trajectory of the model at the places and times of local observations."""
    operator = Operator(eq.grid, lambda z: eq.grid.ifft(eq.psi(z)), (Channel("ssh", ssh(eq.f0), 1.0),))
    return Window(obs, operator, 0.0, dt, steps)


# -- synthetic tracks ------------------------------------------------------------------------------------------------
def synthetic(o: Options, out: Path, altimeters: int = 4, noise: float = 0.02) -> list[Path]:
    """Files of four altimeters that cross, every 17 hours each, a free two-layer flow 1600 km wide."""
    (lon0, lat0), (f0, beta), dt = middle(HERE), coriolis(HERE), 7200.0
    steps = int(np.ceil(o.days * DAY / dt))
    grid = sm.Grid(64, Lx=1.6e6, dealias=1.0, x0=-0.8e6, y0=-0.8e6)
    eq = sm.TwoLayerQG(grid=grid, rd=35e3, delta=0.2, H1=800.0, U1=0.04, beta=beta, f0=f0, filterfac=23.6)
    step = sm.rk4(eq, dt)
    state = step.init(sm.random_pv(eq, seed=o.seed, speed=0.25, scale=280e3))
    with torch.no_grad():
        for _ in tqdm(range(480), "synthetic ocean", disable=None, leave=False):
            state = step(state)
        states, _ = trajectory(step, state, steps)
    rng, files = np.random.default_rng(o.seed), []
    for i in range(altimeters):
        orbit = track(grid, 0.7 * DAY, 7e3, 23, 5 + 2 * i, 18.0 + 2 * i, (0.17 * i - 0.2) * DAY, 1.3e5 * i)
        seconds, x, y = orbit(0.0, steps * dt)
        at = observations(0 * x, 1.0, seconds, x, y, channels=("ssh",))
        height = seen(eq, dt, steps, at).equivalents(states).numpy() + noise * rng.standard_normal(len(x))
        lon, lat = lon0 + np.degrees(x / RADIUS) / np.cos(np.radians(lat0)), lat0 + np.degrees(y / RADIUS)
        files.append(out / f"synthetic_altimeter_{i + 1}.nc")
        write_netcdf(readers.level3(seconds / DAY, lon, lat, height, f"synthetic_{i + 1}", TITLE), files[-1])
    return files


# -- input -----------------------------------------------------------------------------------------------------------
def read(o: Options, files: list[Path]) -> tuple[xr.Dataset, xr.Dataset]:
    """Everything in the files, and the heights [m] among it."""
    every = observation_files.read(files, o.reader, o.variable, o.sigma, units="m")
    channel = number(every, "channel", "ssha") if o.reader == "jason_gdr" else 0
    heights = every.isel(obs=np.flatnonzero(every["channel"].values == channel))
    return every, with_sigma(heights, o.sigma)


def prepare(o: Options, heights: xr.Dataset) -> Setting:
    """Box, window, what is used and what is withheld; what cannot be used is flagged."""
    if heights.sizes["obs"] == 0:
        raise Refused("there are no heights in the files or, without --file, in so few --days")
    box = chosen_box(o, heights)
    inside = good(check(heights, box=box))
    first, last = (inside if inside.sizes["obs"] else heights)["time"].values[[0, -1]]
    date = first + (last - first) / 2 if o.date is None else np.datetime64(o.date, "ns")
    half = np.timedelta64(int(o.days * DAY * 5e8), "ns")
    obs = check(heights, date - half, date + half, box)
    usable = good(obs)
    piece = readers.passes(usable, section=o.section or np.inf)
    withheld = piece % o.withhold == o.withhold - 1 if o.withhold else piece < 0
    used = usable.isel(obs=np.flatnonzero(~withheld))
    if used.sizes["obs"] < 10:
        raise Refused(f"only {used.sizes['obs']} heights are left to be used in the box {box} and {o.days:g} days "
                      f"about {str(date)[:16]} ({withheld.sum()} are withheld); flags: {counts(obs)}")  # fmt: skip
    if not (std := o.std or float(used["value"].std())) >= 1e-6:
        raise Refused("all heights that are used are equal; give the standard deviation of the signal with --std")
    if o.std is None and std > 3:
        raise Refused(
            f"the heights vary by {std:.3g} m, no sea does: mend their units, or give --std if they are right"
        )
    prior = Prior(std, o.length, o.time_scale * DAY, mean=None)
    prior = replace(prior, mean=prior.mean_of(used))
    return Setting(obs, usable, withheld, box, date - half, date, prior, map_axes(box, o.size("points")))


def chosen_box(o: Options, heights: xr.Dataset) -> Box:
    """West, east, south, north with east > west: as asked for, or all of the data."""
    west, east, south, north = o.box or HERE
    if o.box is None and o.file:
        where = good(heights)
        if where.sizes["obs"] == 0:
            raise Refused(f"no height in the files may be used; flags: {counts(heights)}")
        lon, lat = readers.wrapped(where["lon"], float(where["lon"][0]) - 180), where["lat"].values
        hair = 1e-6  # degrees: what lies on the edge is inside
        west, east = float(lon.min()) - hair, float(lon.max()) + hair
        south, north = float(lat.min()) - hair, float(lat.max()) + hair
        if max(east - west, north - south) > 25:
            raise Refused(f"the data are not of one region: they cover {west:.0f} to {east:.0f} degrees east and "
                          f"{south:.0f} to {north:.0f} north; choose --box WEST EAST SOUTH NORTH")  # fmt: skip
    east += 360.0 * (east <= west)
    if not (0 < east - west <= 60 and -90 < south < north < 90 and north - south <= 60):
        raise Refused(f"--box is west, east, south and north edge, at most 60 degrees apart, got {o.box}")
    return west, east, south, north


# -- methods ---------------------------------------------------------------------------------------------------------
def by_interpolation(o: Options, s: Setting) -> Mapped:
    """Optimal interpolation."""
    ds = interpolated(s.used, *s.axes, s.date, s.prior).isel(time=0)
    return Mapped({n: ds[a].values for n, a in (("height", "value"), ("error", "error"))},
                  estimate(s.used, s.usable, s.prior)[0], {})  # fmt: skip


def model(o: Options, box: Box) -> sm.TwoLayerQG:
    """One active layer on the beta plane of the box, over a layer so deep that it rests (delta = 1e-4)."""
    f0, beta = coriolis(box)
    if abs(middle(box)[1]) < 5:
        raise Refused(f"the box is centred at {middle(box)[1]:g} north, too near the equator; use --method oi")
    Ly = RADIUS * np.radians(box[3] - box[2]) + 2 * o.margin
    Lx = RADIUS * np.radians(box[1] - box[0]) * np.cos(np.radians(middle(box)[1])) + 2 * o.margin
    nx, ny = o.size("nx"), max(8, 2 * round(o.size("nx") * Ly / Lx / 2))
    grid = sm.Grid(nx, ny, Lx=Lx, Ly=Ly, x0=-Lx / 2, y0=-Ly / 2, device=device(o.device))
    return sm.TwoLayerQG(grid=grid, rd=o.rd or 2.7 / abs(f0), delta=1e-4, beta=beta, f0=f0, filterfac=23.6)


def prior_covariance(eq: sm.TwoLayerQG, prior: Prior) -> sm.Covariance:
    """The covariance of the interpolation as one of potential vorticity, q_i = lap psi_i + S_i1 psi_1, psi_2 = 0."""
    grid = eq.grid
    power = torch.exp(-grid.K2 * prior.length**2 / 4)
    psi = (power / (grid.weight * power).sum() * grid.nx * grid.ny).sqrt() * prior.std * GRAVITY / abs(eq.f0)
    root = torch.zeros(2, 2, *grid.modes, dtype=torch.float64, device=grid.device)
    root[0, 0], root[1, 0] = (eq.S[0, 0] - grid.K2) * psi, eq.S[1, 0] * psi
    return sm.Covariance(grid, grid.real(root))


def by_4dvar(o: Options, s: Setting) -> Mapped:
    """The best trajectory through the window, from a state at rest."""
    eq, dt = model(o, s.box), o.size("dt")
    step, steps, mean = sm.rk4(eq, dt), int(np.ceil(o.days * DAY / dt)), float(s.prior.mean or 0)
    window = seen(eq, dt, steps, local(s.used, s.box, s.start, mean))
    method = FourDVar(prior_covariance(eq, s.prior), lag=2, outer=o.size("outer"), inner=o.size("inner"))
    done = method(sm.State(torch.zeros(2, *eq.grid.modes, dtype=eq.grid.cdtype, device=eq.grid.device)), window, step)
    with torch.no_grad():
        states, _ = trajectory(step, sm.State(done.memory.guesses[0]), steps)  # type: ignore[union-attr]
    if not bool(torch.isfinite(states.abs().sum())):
        raise sm.BlowUp("the model blew up; choose a smaller --dt")

    def at(obs: xr.Dataset) -> np.ndarray:
        return mean + seen(eq, dt, steps, local(obs, s.box, s.start)).equivalents(states).numpy(force=True)

    lon, lat = (a.ravel() for a in np.meshgrid(*s.axes))
    height = at(observations(0 * lon, 1.0, s.date, lon=lon, lat=lat)).reshape(s.axes[1].size, -1)
    info = (done.info or {}) | {"rd": eq.rd, "courant": float(eq.cfl(states[-1], dt))}
    return Mapped({"height": height}, at(s.usable), info)


METHODS: dict[str, Callable[[Options, Setting], Mapped]] = {"oi": by_interpolation, "4dvar": by_4dvar}
TITLES = {"oi": "optimal interpolation", "4dvar": "4D-Var"}


# -- output ----------------------------------------------------------------------------------------------------------
def scores(s: Setting, maps: dict[str, Mapped]) -> dict[str, Any]:
    """Root mean square differences from the observations, of each method and of the prior mean (climatology)."""
    parts = {"used": ~s.withheld} | ({"withheld": s.withheld} if s.withheld.any() else {})
    at, y = {"climatology": np.full(s.withheld.shape, s.prior.mean)}, s.usable["value"].values
    at |= {n: m.at for n, m in maps.items()}
    rms = {part: {n: float(np.sqrt(np.mean((a[i] - y[i]) ** 2))) for n, a in at.items()} for part, i in parts.items()}
    return {"rms": rms, "observations": {part: int(i.sum()) for part, i in parts.items()}, "flags": counts(s.obs),
            "prior_std": s.prior.std, "prior_mean": s.prior.mean, "date": str(s.date)[:19], "map_box": list(s.box),
            } | {n: m.info for n, m in maps.items() if m.info}  # fmt: skip


def write(s: Setting, maps: dict[str, Mapped], out: Path) -> None:
    """The maps at their time; the observations of the window with their differences from prior mean and maps."""
    about = {"units": "m", "long_name": "sea-surface height, or the standard deviation of its error"}
    data = {f"{kind}_{n}": (("lat", "lon"), a, about) for n, m in maps.items() for kind, a in m.maps.items()}
    coords: dict[str, Any] = {n: (n, a, s.obs[n].attrs) for n, a in zip(("lon", "lat"), s.axes, strict=True)}
    coords["time"] = ((), s.date, {"standard_name": "time"})
    attrs = {"Conventions": "CF-1.11", "title": "sea-surface height from altimeter tracks"}
    write_netcdf(xr.Dataset(data, coords, attrs), out / "map.nc")
    from_map = {"omb": s.prior.mean} | {f"oma_{n}": m.at for n, m in maps.items()}
    text = {"units": "m", "long_name": "observation minus prior mean (omb) or map (oma)"}
    new: dict[str, Any] = {n: ("obs", s.usable["value"].values - a, text) for n, a in from_map.items()}
    flag = {"units": "1", "long_name": "1 where the map did not use the observation"}
    new["withheld"] = ("obs", s.withheld.astype(np.int8), flag)
    write_netcdf(s.usable.assign(new), out / "departures.nc")


# -- pictures --------------------------------------------------------------------------------------------------------
def figures(s: Setting, every: xr.Dataset, maps: dict[str, Mapped]) -> dict[str, Any]:
    """Tracks, maps and the passes with most withheld heights (or used ones, where none is withheld)."""
    top, mean, std = 2.5 * s.prior.std, s.prior.mean or 0.0, s.prior.std
    panels = [charts.Panel(f"{TITLES[n]}: height minus mean", m.maps["height"] - mean, top) for n, m in maps.items()]
    panels += [charts.Panel(f"{TITLES[n]}: standard error", m.maps["error"], std, signed=False)
               for n, m in maps.items() if "error" in m.maps]  # fmt: skip
    if len(maps) == 2:
        difference = maps["4dvar"].maps["height"] - maps["oi"].maps["height"]
        panels.append(charts.Panel("4D-Var minus interpolation", difference, top))
    numbers, shown = readers.passes(s.usable), s.withheld if s.withheld.any() else ~s.withheld
    longest = np.argsort(-np.bincount(numbers, shown), kind="stable")[: min(4, numbers.max() + 1)]
    curves = {TITLES[n]: m.at for n, m in maps.items()}
    title = f"sea-surface height, {str(s.date)[:16]} (mean {mean:.3f} m); dots: observations used"
    return {
        "tracks": charts.tracks(s.obs, every, s.usable.isel(obs=np.flatnonzero(s.withheld)), s.box, mean, std),
        "map": charts.maps(panels, s.axes, s.box, s.used, title),
        "along_track": charts.along_track(s.usable, [numbers == one for one in longest], s.withheld, curves),
    }


def sensible(o: Options) -> None:
    """Refuse numbers that mean nothing."""
    if o.withhold == 1:
        raise Refused(f"--withhold must be 0 or at least 2, got {o.withhold}")
    try:
        if o.date is not None and not np.datetime64("1700") <= np.datetime64(o.date) < np.datetime64("2200"):
            raise Refused(f"--date must lie between the years 1700 and 2200, got {o.date}")
    except ValueError:
        raise Refused(f"--date must be a time such as 2019-01-06T12, got {o.date}") from None
    if (o.dt is not None or o.method != "oi") and not 60 <= o.size("dt") <= o.days * DAY:
        raise Refused(f"--dt must be from 60 s to {o.days * DAY:g} s, the length of the window, got {o.size('dt'):g}")


def remarks(o: Options, s: Setting, rms: dict[str, dict[str, float]]) -> list[str]:
    """What a reader of the scores must know: that nothing was withheld, which maps are no better than the mean."""
    if "withheld" not in rms:
        why = f"there are fewer than {o.withhold} passes or sections; lower --withhold or shorten --section"
        return [f"nothing is withheld for verification: {why}"] if o.withhold else []
    poor = [n for n in METHODS if rms["withheld"].get(n, 0.0) >= rms["withheld"]["climatology"]]
    return [f"{TITLES[n]} shows no skill: it is no nearer to withheld heights than the prior mean" for n in poor]


def run(o: Options, out: Path) -> dict[str, Any]:
    sensible(o)
    goes_with(o, o.method != "oi", "--method 4dvar or both", "nx", "dt", "margin", "rd")
    goes_with(o, o.method != "4dvar", "--method oi or both", "length", "time_scale")
    device(o.device)
    if o.box is not None:
        chosen_box(o, xr.Dataset())  # refused before files are made
    make_room(out, WRITTEN if o.file else (*WRITTEN, "synthetic_altimeter_*.nc"), o)
    every, heights = read(o, [Path(f) for f in o.file] or synthetic(o, out))
    s = prepare(o, heights)
    chosen = ("oi", "4dvar") if o.method == "both" else (o.method,)
    maps = {n: METHODS[n](o, s) for n in tqdm(chosen, "maps", disable=None, leave=False)}
    results = scores(s, maps)
    write(s, maps, out)
    for name, figure in figures(s, every, maps).items():
        plot.save(figure, out / f"{name}.png")
    print(f"observations: {results['observations']}; flags: {results['flags']}")
    print("root mean square difference from observations (m)")
    print(score.table(results["rms"]))
    for line in remarks(o, s, results["rms"]):
        print(line)
    return results


if __name__ == "__main__":
    main(run, Options)
