"""Observations as one xarray Dataset along ``obs``: values with error, time, place, channel, platform and quality.

Model worlds have ``x, y`` (m) and time in seconds since the start of the run; real data have ``lon, lat`` (degrees) and
dates. ``qc`` is 0 where an observation may be used and the code of the reason where it may not (:data:`FLAGS`);
nothing is dropped silently: :func:`check` flags, :func:`counts` counts, :func:`good` selects.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from sciml.flagging import FEW, GROSS, ascending, impossible, outlying, repeated
from sciml.grid import Grid

FLAGS = ("good", "missing", "bad_sigma", "outside_domain", "outside_window", "time_order", "land", "edited",
         "gross_error", "thinned", "duplicate", "future")  # fmt: skip
"""Meanings of ``qc``: 0 is the first, and so on."""
QC = {name: np.int8(code) for code, name in enumerate(FLAGS)}
EVERY = ("value", "sigma", "channel", "platform", "qc")
MIXED = {"units": "1", "comment": "in channel_units of the channel"}
"""Attributes of measured variables where channels have several units."""


def observations(
    value, sigma, time, x=None, y=None, *, lon=None, lat=None, channel=0, platform=0, qc=0,
    channels: Sequence[str] = ("value",), platforms: Sequence[str] = ("unknown",), units: Sequence[str] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:  # fmt: skip
    """The container; scalars are spread over all observations.

    ``channel`` and ``platform`` are numbers into ``channels`` and ``platforms``; ``units`` are those of each channel.
    Exactly one of the pairs ``x, y`` [m] and ``lon, lat`` [degrees] is needed. Raises ``ValueError`` where lengths or
    numbers of channels do not fit.
    """
    if (x is None) == (lon is None) or (x is None) != (y is None) or (lon is None) != (lat is None):
        raise ValueError("observations need either x and y, or lon and lat")
    value = np.atleast_1d(np.asarray(value, dtype=np.float64))
    n = value.shape[0]
    places = {"x": x, "y": y} if lon is None else {"lon": lon, "lat": lat}
    given: dict[str, Any] = {"sigma": sigma, "time": time, "channel": channel, "platform": platform, "qc": qc} | places
    wrong = {
        name: np.shape(a) for name, a in given.items() if np.ndim(a) > 1 or (np.ndim(a) == 1 and np.shape(a)[0] != n)
    }
    if value.ndim != 1 or wrong:
        raise ValueError(f"observations are one-dimensional and of one length: value has {value.shape}, {wrong}")
    full = {name: np.broadcast_to(np.asarray(a), (n,)).copy() for name, a in given.items()}
    for name, names in (("channel", channels), ("platform", platforms)):
        if n and not (full[name].min() >= 0 and full[name].max() < len(names)):
            raise ValueError(f"{name} numbers must be 0 to {len(names) - 1}: {', '.join(names)}")
    is_date = np.issubdtype(full["time"].dtype, np.datetime64)
    time_attrs = {"standard_name": "time", "axis": "T"}
    if not is_date:
        time_attrs |= {"units": "s", "long_name": "time since the start of the run"}
    coords = {"time": ("obs", full["time"] if is_date else full["time"].astype(np.float64), time_attrs)}
    coords |= {name: ("obs", full[name].astype(np.float64), PLACES[name]) for name in places}
    own = list(units or ["1"] * len(channels))
    measured = MIXED | ({"units": own[0]} if len(set(own)) == 1 else {})
    about = {
        "value": measured | {"long_name": "observed value", "ancillary_variables": "sigma qc"},
        "sigma": measured | {"long_name": "standard deviation of the observation error"},
        "channel": codes(channels) | {"channel_units": own},
        "platform": codes(platforms),
        "qc": codes(FLAGS) | {"standard_name": "quality_flag"},
    }
    full["value"] = value
    kind = {name: np.float64 if name in ("value", "sigma") else np.int8 for name in about}
    data = {name: ("obs", full[name].astype(kind[name]), attributes) for name, attributes in about.items()}
    return xr.Dataset(data, coords, {"Conventions": "CF-1.11", "featureType": "point", **(attrs or {})})


PLACES = {
    "x": {"units": "m", "axis": "X", "standard_name": "projection_x_coordinate"},
    "y": {"units": "m", "axis": "Y", "standard_name": "projection_y_coordinate"},
    "lon": {"units": "degrees_east", "standard_name": "longitude"},
    "lat": {"units": "degrees_north", "standard_name": "latitude"},
}


def codes(names: Sequence[str]) -> dict[str, Any]:
    """CF attributes of numbers that stand for names, at most 127."""
    if len(names) > 127:
        raise ValueError(f"at most 127 channels or platforms can be told apart, got {len(names)}")
    return {
        "units": "1",
        "flag_values": np.arange(len(names), dtype=np.int8),
        "flag_meanings": " ".join(n.replace(" ", "_") for n in names),
    }


def names(obs: xr.Dataset, variable: str) -> list[str]:
    """What the numbers of ``channel``, ``platform`` or ``qc`` mean."""
    if "flag_meanings" not in obs[variable].attrs:
        raise ValueError(f"the numbers of {variable} have no names: the attribute 'flag_meanings' is missing")
    return str(obs[variable].attrs["flag_meanings"]).split()


def units_of(obs: xr.Dataset) -> dict[str, str]:
    """Unit of each channel."""
    known = names(obs, "channel")
    units = np.atleast_1d(obs["channel"].attrs.get("channel_units", ["1"] * len(known)))
    if len(units) != len(known):
        raise ValueError(f"channel_units names {len(units)} units for {len(known)} channels: {', '.join(known)}")
    return dict(zip(known, map(str, units), strict=True))


def number(obs: xr.Dataset, variable: str, name: str) -> int:
    """The number of a channel or platform; a name that is not there is an error that lists those that are."""
    if (spelt := name.replace(" ", "_")) not in (known := names(obs, variable)):
        raise ValueError(f"there is no {variable} {name!r}; there are {', '.join(known)}")
    return known.index(spelt)


def concatenate(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """All observations of several containers, sorted by time; channels and platforms are joined by name."""
    if not parts:
        raise ValueError("there are no observations to join")
    joined = []
    known: dict[str, list[str]] = {"channel": [], "platform": []}
    units: dict[str, str] = {}
    for part in parts:
        own = units_of(part)
        for name in set(own) & set(units):
            if own[name] != units[name]:
                raise ValueError(
                    f"channel {name} is in {units[name]} here and in {own[name]} there; convert one of them"
                )
        units |= own
        for variable, found in known.items():
            found += [n for n in names(part, variable) if n not in found]
    for part in parts:
        new = part.copy()
        for variable, found in known.items():
            table = np.array([found.index(n) for n in names(part, variable)], dtype=np.int8)
            new[variable] = ("obs", table[part[variable].values], codes(found))
        joined.append(new)
    out: Any = xr.concat(
        joined, "obs", data_vars="minimal", coords="minimal", compat="override", combine_attrs="override"
    )
    out["channel"].attrs["channel_units"] = [units[n] for n in known["channel"]]
    for name in ("value", "sigma", "omb", "oma"):
        if name in out and len(set(units.values())) > 1:
            out[name].attrs |= MIXED
    order = np.argsort(np.asarray(out["time"]), kind="stable")
    return out.isel(obs=order)


# -- quality ---------------------------------------------------------------------------------------------------------
FAR = 6.0
"""Climatological standard deviations from the mean beyond which it is one, where they are known."""


def check(
    obs: xr.Dataset, start=None, end=None, box: tuple[float, float, float, float] | None = None, gross: float = GROSS,
    usual: Mapping[str, tuple[float, float]] | None = None,
) -> xr.Dataset:  # fmt: skip
    """Flag what cannot be used: missing values or places, sigmas that are not positive (or a thousandth of their
    channel's), times outside ``(start, end]``, places outside ``box = (west, east, south, north)``, values more than
    ``gross`` robust standard deviations (or sigmas) from the median of their channel, such as undeclared fill values,
    times that run backwards within a platform (as few as possible), dates later than tomorrow, and what is there twice.
    What :mod:`sciml.flagging` knows for fill values, and what nothing on Earth has, are gross errors first, so that
    many of them do not move the median. Channels of which a third is, and sigmas that do not fit, are warned of.

    ``usual`` gives mean and standard deviation of channels, as a climatology has them: values farther than
    :data:`FAR` times ``sqrt(std^2 + sigma^2)`` from the mean are gross errors, too.

    Flags that are set already stay. Longitudes are compared modulo 360. Raises ``ValueError`` where the data set as a
    whole means nothing: variables are lacking, numbers stand for no channel, platform or flag, units are not those of
    the container.
    """
    understood(obs)
    first, second = ("lon", "lat") if "lon" in obs.variables else ("x", "y")
    qc, time = obs["qc"].values.copy(), obs["time"].values
    value, sigma, channel = (obs[name].values for name in ("value", "sigma", "channel"))
    here, known = [obs[name].values for name in (first, second)], names(obs, "channel")
    expected = {name.replace(" ", "_"): numbers for name, numbers in (usual or {}).items()}
    timeless = np.isnat(time) if np.issubdtype(time.dtype, np.datetime64) else ~np.isfinite(time)

    def flag(where: np.ndarray, reason: str) -> None:
        qc[(qc == 0) & where] = QC[reason]

    def among(own: np.ndarray, where) -> np.ndarray:
        out = np.zeros(qc.shape, bool)
        out[own] = where
        return out

    nowhere = ~np.isfinite(here[0]) | ~np.isfinite(here[1])
    if first == "lon":
        with np.errstate(invalid="ignore"):
            nowhere |= (np.abs(here[0]) > 720) | (np.abs(here[1]) > 90)
    flag(~np.isfinite(value) | timeless | nowhere, "missing")
    own_units = units_of(obs)
    for code in np.unique(channel) if np.isfinite(gross) else ():
        own = np.flatnonzero(channel == code)
        flag(among(own, impossible(value[own], sigma[own], own_units[known[code]])), "gross_error")
    if np.issubdtype(time.dtype, np.datetime64):
        flag(time > np.datetime64("now") + np.timedelta64(1, "D"), "future")
    with np.errstate(invalid="ignore"):
        flag(~((sigma > 0) & np.isfinite(sigma)), "bad_sigma")
        if start is not None:
            flag(~timeless & ~(time > start), "outside_window")
        if end is not None:
            flag(~timeless & ~(time <= end), "outside_window")
    if box is not None:
        west, east, south, north = box
        if north < south or (east < west and first == "x"):
            raise ValueError(f"a box is (west, east, south, north), got {box}")
        wide = (east - west) % 360.0 or 360.0
        with np.errstate(invalid="ignore"):
            across = (here[0] - west) % 360.0 > wide if first == "lon" else (here[0] < west) | (here[0] > east)
            flag(across | (here[1] < south) | (here[1] > north), "outside_domain")
    for code in np.unique(channel):
        own = np.flatnonzero((channel == code) & (qc == 0))
        mean, std = expected.get(known[code], (0.0, np.inf))
        flag(among(own, np.abs(value[own] - mean) > FAR * np.hypot(std, sigma[own])), "gross_error")
        own = own[qc[own] == 0]
        flag(among(own, repeated(value[own], gross)), "gross_error")
        own = own[qc[own] == 0]
        if own.size >= FEW:
            typical = float(np.median(sigma[own]))
            flag(among(own, (sigma[own] > 1e6 * typical) | (sigma[own] < 1e-3 * typical)), "bad_sigma")
            flag(among(own, outlying(value[own], sigma[own], gross)), "gross_error")
    for code in np.unique(obs["platform"].values):
        own = np.flatnonzero((obs["platform"].values == code) & (qc == 0))
        flag(among(np.delete(own, ascending(time[own])), True), "time_order")
    own = np.flatnonzero(qc == 0)
    table = np.rec.fromarrays(
        [time[own], *(a[own] for a in here), channel[own], obs["platform"].values[own], value[own]]
    )
    flag(among(np.delete(own, np.unique(table, return_index=True)[1]), True), "duplicate")
    doubtful(obs, qc)
    return obs.assign(qc=("obs", qc, codes(FLAGS) | {"standard_name": "quality_flag"}))


def doubtful(obs: xr.Dataset, qc: np.ndarray) -> None:
    """Warn of channels of which much is a gross error, and of typical sigmas that are a ten thousandth of the spread of
    their values, or a hundred times that."""
    value, sigma, channel, platform = (obs[n].values for n in ("value", "sigma", "channel", "platform"))
    known, platforms = names(obs, "channel"), names(obs, "platform")
    judged = ~np.isin(qc, [QC["missing"], QC["land"], QC["edited"]])
    for c, code in np.unique(np.stack([channel[judged], platform[judged]]), axis=1).T:
        own = judged & (channel == c) & (platform == code)
        wrong, good = own & (qc == QC["gross_error"]), value[own & (qc == 0)]
        if own.sum() >= FEW and wrong.sum() > own.sum() / 3:
            numbers, count = np.unique(value[wrong], return_counts=True)
            most = f", {count.max()} of them {numbers[count.argmax()]:g}" if count.max() >= FEW else ""
            warnings.warn(
                f"{wrong.sum()} of {own.sum()} values of {known[c]} from {platforms[code]} are gross errors{most}: the "
                "others may be wrong, too, such as in other units, or these right (check and readers.cf flag none with "
                "gross=inf)", stacklevel=3
            )  # fmt: skip
        spread = 1.4826 * float(np.median(np.abs(good - np.median(good)))) if good.size >= FEW else 0.0
        typical = float(np.median(sigma[own & (qc == 0)])) if spread else 1.0
        if spread > 0 and not 1e-4 < typical / spread < 100:
            text = f"{known[c]} varies by {spread:.3g} and has sigmas of {typical:.3g}: is that their unit?"
            warnings.warn(text, stacklevel=3)


def understood(obs: xr.Dataset) -> None:
    """Raise ``ValueError`` unless variables, numbers that stand for names, and units are those of the container."""
    if missing := {*EVERY, "time"} - set(obs.variables):
        raise ValueError(f"this is no observation data set: it lacks {sorted(missing)}")
    pairs = [p for p in (("x", "y"), ("lon", "lat")) if set(p) <= set(obs.variables)]
    if len(pairs) != 1:
        raise ValueError("this is no observation data set: it needs either x and y, or lon and lat")
    for variable in (*EVERY, "time", *pairs[0]):
        kinds = "iu" if variable in ("channel", "platform", "qc") else "iufM" if variable == "time" else "iuf"
        if obs[variable].dims != ("obs",) or obs[variable].dtype.kind not in kinds:
            raise ValueError(
                f"{variable} must be {'whole numbers' if kinds == 'iu' else 'numbers'} along the dimension obs, not "
                f"{obs[variable].dtype} along {obs[variable].dims}"
            )
    for variable in ("channel", "platform", "qc"):
        known, found = names(obs, variable), obs[variable].values
        values = np.atleast_1d(obs[variable].attrs.get("flag_values", np.arange(len(known))))
        if not np.array_equal(values, np.arange(len(known))):
            raise ValueError(f"flag_values of {variable} must be 0 to {len(known) - 1} in order; number them anew")
        if found.size and not (found.min() >= 0 and found.max() < len(known)):
            raise ValueError(f"numbers of {variable} must be 0 to {len(known) - 1}: {', '.join(known)}")
    units = set(units_of(obs).values())
    for name in ("value", "sigma"):
        stated = obs[name].attrs.get("units", MIXED["units"])
        if len(units) == 1 and stated not in (MIXED["units"], *units):
            raise ValueError(f"{name} is in {stated!r}, its channels in {units.pop()!r} (channel_units); convert one")
    if (own := names(obs, "qc")) != list(FLAGS[: len(own)]):
        raise ValueError(f"the numbers of qc must mean {', '.join(FLAGS)}, not {', '.join(own)}")
    wanted = {name: PLACES[name]["units"] for name in pairs[0]}
    wanted |= {} if np.issubdtype(obs["time"].dtype, np.datetime64) else {"time": "s"}
    for name, unit in wanted.items():
        also = {"s": "seconds", "m": "m"}.get(unit, "degrees")
        if (stated := str(obs[name].attrs.get("units", "no unit"))) not in (unit, also):
            raise ValueError(f"{name} must be in {unit}, not in {stated!r}; convert it, or set its attribute units")


def counts(obs: xr.Dataset) -> dict[str, int]:
    """How many observations carry each flag."""
    found = np.bincount(obs["qc"].values.astype(int), minlength=len(FLAGS))
    return {name: int(n) for name, n in zip(FLAGS, found, strict=True) if n}


def good(obs: xr.Dataset, sound: bool = False) -> xr.Dataset:
    """The observations that may be used; ``ValueError`` where they must be ``sound`` and are not."""
    right = obs["qc"].values == 0
    used = obs if right.all() else obs.isel(obs=np.flatnonzero(right))
    if sound:
        numbers = [used[n].values for n in ("value", "sigma", "time", "x", "y", "lon", "lat") if n in used.variables]
        lacking = any((np.isnat(a) if a.dtype.kind == "M" else ~np.isfinite(a)).any() for a in numbers)
        if lacking or not (used["sigma"].values > 0).all():
            raise ValueError("some values, times or places are not finite or some sigmas not positive; flag them with "
                             "observations.check first")  # fmt: skip
    return used


def without(obs: xr.Dataset, platform: str) -> xr.Dataset:
    """All observations but those of one platform."""
    return obs.isel(obs=np.flatnonzero(obs["platform"].values != number(obs, "platform", platform)))


# -- departures ------------------------------------------------------------------------------------------------------
def with_departures(obs: xr.Dataset, background: np.ndarray, analysis: np.ndarray) -> xr.Dataset:
    """Add ``omb`` (value minus background equivalent) and ``oma`` (minus analysis equivalent)."""
    both = {"omb": ("observation minus background", background), "oma": ("observation minus analysis", analysis)}
    units = obs["value"].attrs.get("units", "1")
    return obs.assign({
        n: ("obs", obs["value"].values - np.asarray(h), {"long_name": t, "units": units}) for n, (t, h) in both.items()
    })  # fmt: skip


# -- gridded view ----------------------------------------------------------------------------------------------------
def within(grid: Grid, x: np.ndarray, y: np.ndarray) -> None:
    """Refuse places outside the box: taken modulo its lengths they would stand for another place."""
    west, east, south, north = grid.box
    outside = ~((x >= west) & (x <= east) & (y >= south) & (y <= north))
    if outside.any():
        i = np.flatnonzero(outside)[0]
        raise ValueError(
            f"{outside.sum()} of {len(x)} observations lie outside the box, such as x = {x[i]:g}, y = {y[i]:g}: it is "
            f"{west:g} to {east:g} by {south:g} to {north:g}; flag them with observations.check, or take places modulo "
            "its lengths where the flow is periodic"
        )


def gridded(obs: xr.Dataset, grid: Grid, start: float, end: float, frames: int = 1) -> xr.Dataset:
    """Good observations of ``(start, end]`` in cells of a periodic grid, ``(frame, channel, y, x)``.

    ``value`` is the mean weighted by ``1 / sigma^2``, ``mask`` says where there is one, ``count`` how many, ``sigma``
    is ``(sum 1 / sigma_i^2)^(-1/2)``, ``age`` the mean time before ``end`` [s]; all are 0 where there is none. Raises
    ``ValueError`` for places outside the grid's box.
    """
    if frames < 1 or not end > start:
        raise ValueError(f"a gridded view needs frames >= 1 and end > start, got {frames}, {start:g} and {end:g}")
    if "x" not in obs.variables:
        raise ValueError("a gridded view needs observations with x and y")
    if np.issubdtype(obs["time"].dtype, np.datetime64):
        raise ValueError("a gridded view needs times in seconds, these are dates; take (time - start) / 1 s")
    used = good(obs, sound=True)
    used = used.isel(obs=np.flatnonzero((used["time"].values > start) & (used["time"].values <= end)))
    within(grid, used["x"].values, used["y"].values)
    time = used["time"].values
    frame = np.clip(np.ceil((time - start) / (end - start) * frames).astype(int) - 1, 0, frames - 1)
    column = np.round((used["x"].values - grid.x0) / grid.dx).astype(int) % grid.nx
    row = np.round((used["y"].values - grid.y0) / grid.dy).astype(int) % grid.ny
    channels = names(obs, "channel")
    shape = (frames, len(channels), grid.ny, grid.nx)
    cell = np.ravel_multi_index((frame, used["channel"].values.astype(int), row, column), shape)
    weight = used["sigma"].values ** -2.0

    def total(a: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(cell, a, minlength=int(np.prod(shape))).reshape(shape)

    count, weights = total(), total(weight)
    safe = np.where(count > 0, weights, 1.0)
    filled = {
        "value": (total(weight * used["value"].values) / safe, obs["value"].attrs),
        "mask": (count > 0, {"long_name": "whether there is an observation", "units": "1"}),
        "count": (count.astype(np.int32), {"long_name": "number of observations", "units": "1"}),
        "sigma": (np.where(count > 0, safe**-0.5, 0.0), obs["sigma"].attrs),
        "age": (total(weight * (end - time)) / safe, {"long_name": "time before the end of the window", "units": "s"}),
    }
    data = {n: (("frame", "channel", "y", "x"), a, {k: v for k, v in attrs.items() if k in ("long_name", "units")})
            for n, (a, attrs) in filled.items()}  # fmt: skip
    edges = start + (end - start) * (np.arange(frames) + 0.5) / frames
    when = ("frame", edges, {"units": "s", "long_name": "middle of the frame"})
    return xr.Dataset(data, {**grid.coords(), "channel": channels, "frame": when}, {"start": start, "end": end})
