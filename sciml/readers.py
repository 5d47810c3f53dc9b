"""Real files into the one container of ``observations.py``: altimeter tracks, swaths, maps, any CF trajectory or swath.

Every sample of a file becomes an observation; what may not be used keeps its place and carries the reason in ``qc``
(land, edited, missing, bad_sigma, time_order, ...), and :func:`sciml.observations.counts` counts it. Conventions:

- longitudes are in [0, 360) degrees east, whatever the file has; :func:`wrapped` brings them to any other origin;
- times are ``datetime64[ns]``; heights are in metres and temperatures in kelvins, whichever of the usual units the file
  states (none or others are refused); only :func:`cf` leaves values in the units of the file unless told otherwise;
- a value that is the fill value of the netCDF library for its type counts as missing also where the file does not
  declare it (DUACS maps have land that way), other undeclared ones are gross errors;
- observations of tracks stay in the order of the file, so that times that run backwards are seen and flagged; pixels of
  swaths are ordered by time, for a file may store them along or across the track.

All readers raise ``ValueError`` with the path and what to do: no such file or no netCDF, wrong kind of file, missing
variable or group, wrong units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sciml.flagging import GROSS
from sciml.foreign import UNITS, converted, decoded, listed, need, raw
from sciml.observations import QC, check, observations

JASON_LIMITS: Mapping[str, tuple[float, float]] = {
    "range_numval_ku": (10, np.inf), "range_rms_ku": (0, 0.2), "sig0_numval_ku": (10, np.inf), "sig0_rms_ku": (0, 1),
    "model_dry_tropo_corr": (-2.5, -1.9), "rad_wet_tropo_corr": (-0.5, -0.001), "iono_corr_alt_ku": (-0.4, 0.04),
    "sea_state_bias_ku": (-0.5, 0), "ocean_tide_sol1": (-5, 5), "solid_earth_tide": (-1, 1), "pole_tide": (-0.15, 0.15),
    "swh_ku": (0, 11), "sig0_ku": (7, 30), "wind_speed_alt": (0, 30), "off_nadir_angle_wf_ku": (-0.2, 0.64),
}  # fmt: skip
"""Smallest and largest good value of each parameter (m, dB, m/s, degrees^2, counts): editing criteria of the AVISO and
PODAAC User Handbook, IGDR and GDR Jason Products, and of the yearly Jason-1 validation reports of CLS."""
BRIGHTNESS = ("tb_187", "tb_238", "tb_340")
GROUND_SPEED = 5800.0
Edited = Callable[[xr.Dataset], Any]


# -- altimeter tracks ------------------------------------------------------------------------------------------------
def jason_gdr(
    path: str | Path, ssha_sigma: float = 0.033, tb_sigma: float = 1.0,
    limits: Mapping[str, tuple[float, float]] | None = None,
) -> xr.Dataset:  # fmt: skip
    """Jason-1 GDR, one pass at 1 Hz: channels ``ssha`` [m] and the nadir brightness temperatures
    ``tb_187 tb_238 tb_340`` [K] of the JMR, sample by sample.

    Editing (AVISO and PODAAC User Handbook, IGDR and GDR Jason Products, SALP-MU-M5-OP-13184-CN): *land* where
    ``surface_type`` is not 0; of ssha, *edited* where ``qual_alt_1hz_range_ku``, ``rain_flag`` or ``ice_flag`` is set
    or a parameter is outside ``limits`` (:data:`JASON_LIMITS` are the handbook's; none by default); of brightness
    temperatures, *edited* near coasts (``rad_surf_type``), in rain, and where their own quality flag or
    ``interp_flag_tb`` is set.

    ``ssha_sigma`` is the handbook's error budget of the sea-surface height, orbit included; ``tb_sigma`` is a choice.
    """
    limits = limits or {}
    own = [f"qual_rad_1hz_{name.replace('_', '')}" for name in BRIGHTNESS]
    flags = "surface_type rad_surf_type qual_alt_1hz_range_ku rain_flag ice_flag interp_flag_tb".split()
    with raw(path) as file:
        ds = decoded(file, need(file, ["time", "lon", "lat", "ssha", *BRIGHTNESS, *flags, *own, *limits], "Jason GDR"))
        set_ = {n: (ds[n] != 0).values for n in (*flags, *own)}  # a flag that is missing is NaN: set
        bad = set_["qual_alt_1hz_range_ku"] | set_["rain_flag"] | set_["ice_flag"]
        for name, (low, high) in limits.items():
            bad = bad | ~((ds[name] >= low) & (ds[name] <= high)).values
        coast = set_["rad_surf_type"] | set_["rain_flag"] | set_["interp_flag_tb"]
        edited = np.stack([bad, *(coast | set_[n] for n in own)], 1)
        channels = ("ssha", *BRIGHTNESS)
        values = np.stack([converted(ds[n], "K" if n in BRIGHTNESS else "m").values for n in channels], 1)
        n, m = values.shape
        return container(
            values, np.tile([ssha_sigma, *[tb_sigma] * 3], n), *(np.repeat(ds[c], m) for c in ("time", "lon", "lat")),
            land=np.repeat(set_["surface_type"], m), edited=edited, channel=np.tile(np.arange(m), n),
            channels=channels, units=("m", "K", "K", "K"), platforms=(file.attrs.get("mission_name", "Jason-1"),),
            short=True, attrs=provenance(file, path),
        )  # fmt: skip


def duacs_l3(path: str | Path, variable: str | None = None, sigma: float = 0.03) -> xr.Dataset:
    """DUACS (Copernicus Marine) level 3: sea-level anomalies [m] of one altimeter along its tracks.

    ``variable`` is ``sla_unfiltered`` where there is one, else ``sla_filtered`` (or ``adt_unfiltered``, ...). The
    product is edited already. ``sigma`` [m], the noise of unfiltered 1 Hz heights, is a choice; the files have none.
    """
    with raw(path) as file:
        found = [n for n in ("sla_unfiltered", "sla_filtered", "adt_unfiltered") if n in file.variables]
        name = variable or next(iter(found), "sla_unfiltered")
        need(file, ["time", "longitude", "latitude", name], "DUACS level 3 track file")
        if file[name].dims != ("time",):
            raise ValueError(f"{name} has dimensions {file[name].dims}, a track only time; read maps with duacs_l4")
        ds = decoded(file, ["time", "longitude", "latitude", name])
        platform = str(file.attrs.get("platform") or Path(path).stem)
        return container(
            converted(ds[name], "m").values, sigma, ds["time"], ds["longitude"], ds["latitude"], channels=(name,),
            units=("m",), platforms=(platform,), attrs=provenance(file, path),
        )  # fmt: skip


def level3(days, lon, lat, height, platform: str, title: str) -> xr.Dataset:
    """The layout that :func:`duacs_l3` reads: heights [m] at times in days since 2019-01-01, as files have them."""
    about = {"long_name": "sea level anomaly", "units": "m", "standard_name": "sea_surface_height_above_sea_level"}
    columns = {
        "sla_unfiltered": (height, about),
        "time": (25202.0 + np.asarray(days), {"standard_name": "time", "units": "days since 1950-01-01"}),
        "longitude": (eastward(lon), {"units": "degrees_east", "standard_name": "longitude"}),
        "latitude": (lat, {"units": "degrees_north", "standard_name": "latitude"}),
    }
    ds = xr.Dataset({n: ("time", *c) for n, c in columns.items()})
    ds["sla_unfiltered"].encoding = {"dtype": "int16", "scale_factor": 0.001, "_FillValue": np.int16(-32768)}
    return ds.assign_attrs(Conventions="CF-1.11", title=title, platform=platform)


# -- swaths ----------------------------------------------------------------------------------------------------------
def ghrsst_l2p(path: str | Path, quality: int = 4) -> xr.Dataset:
    """GHRSST L2P swath: sea-surface temperature [K] with its sensor-specific error statistics.

    The value is ``sea_surface_temperature - sses_bias``, sigma is ``sses_standard_deviation``, the time of a pixel
    ``time + sst_dtime``. *Land* is bit 1 of ``l2p_flags``; *edited* is a ``quality_level`` below ``quality`` (5 best,
    4 acceptable; GHRSST Data Processing Specification 2.0). Temperatures may also be in degrees Celsius, ``sst_dtime``
    in minutes, hours or days.
    """
    names = ["sea_surface_temperature", "sst_dtime", "sses_bias", "sses_standard_deviation", "quality_level",
             "l2p_flags", "lat", "lon", "time"]  # fmt: skip
    with raw(path) as file:
        ds = decoded(file, need(file, names, "GHRSST L2P file"))
        for name, unit in zip(names[:4], "KsKK", strict=True):
            ds[name] = converted(ds[name], unit, difference=name != "sea_surface_temperature")
        sst, *others = xr.broadcast(ds["sea_surface_temperature"], *(ds[n] for n in names[1:]))
        dtime, bias, spread, level, flags, lat, lon, time = (a.transpose(*sst.dims) for a in others)
        after = dtime.values
        seconds = np.where(np.isfinite(after), 1e9 * np.nan_to_num(after), np.iinfo(np.int64).min)  # NaT
        when = time.values.astype("datetime64[ns]") + seconds.astype("timedelta64[ns]")
        no_land = np.nan_to_num(flags.values).astype(int) & 2 == 0
        return container(
            (sst - bias).values, spread.values, when, lon, lat, land=~no_land, edited=~(level.values >= quality),
            swath=True, short=True, channels=("sst",), units=("K",), attrs=provenance(file, path), platforms=(
                "_".join(str(file.attrs.get(n, "")) for n in ("platform", "sensor")).strip("_") or "unknown",),
        )  # fmt: skip


# -- maps ------------------------------------------------------------------------------------------------------------
def duacs_map(path: str | Path, variable: str = "adt", time: int = 0) -> xr.Dataset:
    """One time of a DUACS level 4 map as a Dataset ``(lat, lon)`` [m], NaN on land, longitudes ascending in [0, 360).

    ``err_<variable>`` or ``err``, the formal mapping error, comes as ``error`` where the file has it.
    """
    with raw(path) as file:
        need(file, ["time", "longitude", "latitude", variable], "DUACS level 4 map")
        if file[variable].dims != ("time", "latitude", "longitude"):
            raise ValueError(f"{variable} has dimensions {file[variable].dims}; a map has time, latitude, longitude")
        if not -file.sizes["time"] <= time < file.sizes["time"]:
            raise ValueError(f"there is no time {time}; there are {file.sizes['time']}")
        errors = [n for n in (f"err_{variable}", "err") if n in file.variables][:1]
        ds = decoded(file[[variable, *errors]].isel(time=time), [variable, *errors, "time", "longitude", "latitude"])
        ds = ds.rename({"longitude": "lon", "latitude": "lat"} | dict.fromkeys(errors, "error"))
        for name in (variable, "error")[: 1 + len(errors)]:
            ds[name] = converted(ds[name], "m")
        del ds.attrs["groups"]
        return ds.assign_coords(lon=("lon", eastward(ds["lon"].values), ds["lon"].attrs)).sortby(["lat", "lon"])


def duacs_l4(path: str | Path, variable: str = "adt", sigma: float = 0.05, every: int = 1) -> xr.Dataset:
    """DUACS level 4 map as observations [m], each ``every``-th point in both directions; *land* where it has no value.

    sigma is the formal mapping error of the file, or the number given (a choice) where it has none.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    ds = duacs_map(path, variable).isel(lat=slice(None, None, every), lon=slice(None, None, every))
    lat, lon = xr.broadcast(ds["lat"], ds["lon"])
    value = ds[variable].values
    error = ds["error"].values if "error" in ds else np.full(value.shape, sigma)
    when = np.full(value.shape, ds["time"].values)
    return container(
        value, error, when, lon, lat, land=~np.isfinite(value), channels=(variable,), units=("m",),
        platforms=("map",), attrs={"source": Path(path).name},
    )  # fmt: skip


# -- any CF trajectory or swath --------------------------------------------------------------------------------------
def cf(
    path: str | Path, variable: str, sigma: float | str, group: str = "", edited: Edited | None = None,
    units: str | None = None, gross: float = GROSS,
) -> xr.Dataset:  # fmt: skip
    """``variable`` of a CF file whose time, longitude and latitude can be told from their attributes (or names).

    Trajectories (one ``obs`` or ``time`` dimension, contiguous or indexed ragged arrays, or one row each), swaths with
    2-D places, and grids (CF-1.11, sections 4, 9 and appendix H). Coordinates are also looked for in the groups above
    ``group``. Each trajectory becomes a platform.

    Parameters
    ----------
    sigma : standard deviation of the error in the units of the result, or the name of the variable that holds it
    group : path of the group that holds the variable, such as ``"data_01/ku"``
    edited : function of the decoded Dataset of that group that is true where samples must not be used
    units : of the result, ``"m"``, ``"K"`` or ``"s"``: the variable is converted, or refused where it has no units or
        those of something else (default: the units of the file)
    gross : robust standard deviations beyond which values are gross errors, infinite for none
        (:func:`sciml.observations.check`)
    """
    if units is not None and units not in UNITS:
        raise ValueError(f"units must be one of {', '.join(UNITS)}, got {units!r}; leave out for those of the file")
    with raw(path, group) as file:
        need(file, [variable, *([sigma] if isinstance(sigma, str) else [])], "file with these variables")
        axes = [coordinate(file, variable, axis) for axis in AXES]
        instances = [n for n, v in file.variables.items() if {"sample_dimension", "instance_dimension"} & set(v.attrs)]
        used = [variable, *axes, *instances, *([sigma] if isinstance(sigma, str) else [])]
        ds = decoded(file, [str(n) for n in (file.variables if edited else used)])
        value = ds[variable]
        bad = False if edited is None else edited(ds)
        if units is not None:
            value = converted(value, units)
            if isinstance(sigma, str):
                ds[sigma] = converted(ds[sigma], units, difference=True)
        elif isinstance(sigma, str) and (own := value.attrs.get("units")) != (its := ds[sigma].attrs.get("units", own)):
            raise ValueError(f"{sigma} is in {its!r}, {variable} in {own!r}: give units, to which both are converted")
        parts = [ds[n].reset_coords(drop=True) for n in axes]
        parts += [ds[sigma] if isinstance(sigma, str) else xr.DataArray(sigma), xr.DataArray(bad)]
        for name, a in zip([*axes, sigma, "edited"], parts, strict=True):
            if not set(a.dims) <= set(value.dims):
                raise ValueError(f"{name} has dimensions {a.dims}, {variable} has {value.dims}; they do not fit")
        placed = {d for a in parts[:3] for d in a.dims}
        if extra := [str(d) for d in value.dims if d not in placed and value.sizes[d] > 1]:
            raise ValueError(f"{variable} has several values at each time and place, along {', '.join(extra)}: select "
                             "one of each first")  # fmt: skip
        full = [a.variable.set_dims(dict(value.sizes)).transpose(*value.dims).values for a in parts]
        platform = trajectories(ds, value, rows(file))
        names = [str(file.attrs.get("platform", "unknown"))]
        names = names if platform is None else [f"trajectory_{i}" for i in range(int(platform.max(initial=0)) + 1)]
        if len(names) > 127:
            raise ValueError(f"there are {len(names)} trajectories; a container holds 127 platforms, split the file")
        return container(
            value.values, full[3], *full[:3], edited=full[4], channels=(variable,), platforms=names,
            units=(str(value.attrs.get("units", "1")),), platform=0 if platform is None else platform,
            swath=platform is None and sum(n > 1 for n in value.shape) > 1, gross=gross, attrs=provenance(file, path),
        )  # fmt: skip


AXES: Mapping[str, tuple[str, ...]] = {
    "time": ("time", "t", "juld"),
    "longitude": ("degrees_east", "degree_east", "lon", "longitude", "nav_lon"),
    "latitude": ("degrees_north", "degree_north", "lat", "latitude", "nav_lat"),
}
"""Standard names of the coordinates, and their units and usual names."""


def coordinate(ds: xr.Dataset, variable: str, axis: str) -> str:
    """Name of the coordinate of a variable; the ones it names itself go first, then standard names, units, names."""
    named = str(ds[variable].attrs.get("coordinates", "")).split()
    fitting = [n for n in (*named, *map(str, ds.variables))
               if n in ds.variables and n != variable and set(ds[n].dims) <= set(ds[variable].dims)]  # fmt: skip
    tests: list[Callable[[str], bool]] = [
        lambda n: ds[n].attrs.get("standard_name") == axis,
        lambda n: (
            ds[n].attrs.get("units") in AXES[axis] or (axis == "time" and " since " in str(ds[n].attrs.get("units")))
        ),
        lambda n: n.lower() in AXES[axis],
    ]
    for test in tests:
        if found := [n for n in fitting if test(n)]:
            if axis != "time" and str(ds[found[0]].attrs.get("units", "")).startswith("rad"):
                raise ValueError(f"{found[0]} is in radians; convert it to degrees first")
            return found[0]
    raise ValueError(f"{variable} {ds[variable].dims} has no {axis}: no variable with that standard name or units "
                     f"shares its dimensions; there are {listed(ds.variables)}")  # fmt: skip


def rows(file: xr.Dataset) -> set:
    """Dimensions that number trajectories: of a variable of their names (``cf_role``), or usual ones."""
    return {"trajectory", "traj", "drifter"} | {
        v.dims[0] for v in file.variables.values() if v.dims and v.attrs.get("cf_role") == "trajectory_id"
    }


def trajectories(ds: xr.Dataset, value: xr.DataArray, named: set) -> np.ndarray | None:
    """Number of the trajectory of each sample, in the shape of the values, whose first dimension may be one of those
    ``named``; None where there is only one."""
    for v in ds.variables.values():
        if v.attrs.get("sample_dimension") in value.dims:
            own = np.repeat(np.arange(v.size), v.values.ravel().astype(int))
            if own.size != value.size:
                raise ValueError(f"the row sizes of the trajectories add up to {own.size}, not {value.size} samples")
            return own
        if "instance_dimension" in v.attrs and v.dims == value.dims:
            return v.values.astype(int)
    if len(value.dims) == 2 and value.dims[0] in named:
        return np.indices(value.shape)[0]
    return None


# -- what readers share ----------------------------------------------------------------------------------------------
def provenance(ds: xr.Dataset, path: str | Path) -> dict[str, str]:
    """Where observations come from."""
    return {"source": Path(path).name} | {n: str(ds.attrs[n]) for n in ("title", "institution") if n in ds.attrs}


def container(
    value, sigma, time, lon, lat, land: Any = False, edited: Any = False, swath: bool = False, short: bool = False,
    gross: float = GROSS, **more: Any,
) -> xr.Dataset:  # fmt: skip
    """The container of arrays of any one shape, flagged and checked; latitudes beyond the poles are no places, nor are
    longitudes beyond two turns. Dated pixels of a ``swath`` are ordered by time, others keep their place. In a file as
    ``short`` as a pass or an orbit, times a day from the middle one are out of order."""
    size = np.size(value)
    flat = {n: np.broadcast_to(np.ravel(np.asarray(a)), (size,)) for n, a in
            dict(sigma=sigma, time=time, lon=lon, lat=lat, land=land, edited=edited).items()}  # fmt: skip
    if not np.issubdtype(flat["time"].dtype, np.datetime64):
        raise ValueError("the times are no dates: their units must be 'seconds since ...', or days, hours, minutes")
    lon, lat = eastward(flat["lon"]), flat["lat"].astype(np.float64)
    lat = np.where(np.abs(lat) <= 90, lat, np.nan)
    somewhere = np.isfinite(lon) & np.isfinite(
        lat
    )  # elsewhere flags mean nothing: check says that the place is missing
    qc = np.where(flat["land"].astype(bool), QC["land"], np.where(flat["edited"].astype(bool), QC["edited"], 0))
    more["qc"] = np.where(somewhere, qc, 0)
    when = flat["time"].astype("datetime64[ns]")
    if short and (dated := np.sort(when[~np.isnat(when)])).size:
        with np.errstate(over="ignore"):
            off = np.abs(when - dated[dated.size // 2]) > np.timedelta64(1, "D")
        more["qc"] = np.where(off & (more["qc"] == 0), QC["time_order"], more["qc"])
    if "platform" in more:
        more["platform"] = np.broadcast_to(np.ravel(more["platform"]), (size,))
    obs = observations(np.ravel(value), flat["sigma"], when, lon=lon, lat=lat, **more)
    if swath:
        order, dated = np.arange(size), np.flatnonzero(~np.isnat(when))
        order[dated] = dated[np.argsort(when[dated], kind="stable")]
        obs = obs.isel(obs=order)
    return check(obs, gross=gross)


def eastward(lon) -> np.ndarray:
    """Longitudes in [0, 360); NaN beyond 720 either way, where only fill values are."""
    lon = np.asarray(lon, dtype=np.float64)
    return wrapped(np.where(np.abs(lon) <= 720, lon, np.nan), 0.0)


def wrapped(lon, west: float) -> np.ndarray:
    """Longitudes in ``[west, west + 360)``: continuous over a box whose western edge is ``west``."""
    turned = (np.asarray(lon, dtype=np.float64) - west) % 360.0
    return west + np.where(turned >= 360.0, 0.0, turned)  # rounding makes 360 of a hair less than west


def passes(obs: xr.Dataset, gap: float = 600.0, section: float = np.inf) -> np.ndarray:
    """Number of the pass of each observation, in their order: a new one where the platform changes, where ``gap``
    seconds go by without a sample, and after each ``section`` metres along the track (at 5800 m/s, that of altimeters).

    Observations must be sorted by time within a platform.
    """
    number, so_far = np.zeros(obs.sizes["obs"], dtype=int), 0
    for code in np.unique(obs["platform"].values):
        own = np.flatnonzero(obs["platform"].values == code)
        seconds = (obs["time"].values[own] - obs["time"].values[own[0]]) / np.timedelta64(1, "s")
        first = np.concatenate([[0], np.flatnonzero(np.abs(np.diff(seconds)) > gap) + 1])
        since = seconds - np.repeat(seconds[first], np.diff([*first, own.size]))
        new = np.diff(since // (section / GROUND_SPEED)) != 0
        new[first[1:] - 1] = True
        number[own] = so_far + np.concatenate([[0], np.cumsum(new)])
        so_far = int(number[own[-1]]) + 1
    return number
