"""Opening netCDF files that others made: whole ones only, with groups, with values that are missing unsaid, and in any
of the usual units."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

UNITS: Mapping[str, tuple[str, tuple[tuple[str, float, float], ...]]] = {
    "m": ("a height", (("m meter meters metre metres", 1.0, 0.0), ("cm centimeter centimeters", 0.01, 0.0),
                       ("mm millimeter millimeters", 0.001, 0.0))),
    "K": ("a temperature", (("K kelvin Kelvin degree_Kelvin degrees_Kelvin", 1.0, 0.0),
                            ("degC celsius Celsius degree_Celsius degrees_Celsius degree_C deg_C", 1.0, 273.15))),
    "s": ("a time difference", (("s sec second seconds", 1.0, 0.0), ("min minute minutes", 60.0, 0.0),
                                ("h hr hour hours", 3600.0, 0.0), ("d day days", 86400.0, 0.0))),
}  # fmt: skip
"""For each unit that containers have: what is measured in it, and names, factor and zero [in it] of the others."""


@contextmanager
def raw(path: str | Path, group: str = "") -> Iterator[xr.Dataset]:
    """Undecoded variables of a group, with those of the groups above it; what goes wrong names the file."""
    import netCDF4

    path, group = Path(path), group.strip("/")
    if not path.is_file():
        raise ValueError(f"{path} is a folder, not a file" if Path(path).is_dir() else f"there is no file {path}")
    above = ["/".join(group.split("/")[:i]) for i in range(len(group.split("/")), 0, -1)] if group else []
    try:
        with netCDF4.Dataset(path) as file:
            groups = list(every_group(file))
            classic = file.data_model in ("NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET")
        if classic:
            whole(path)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged or no netCDF file ({error})") from None
    try:
        if group and group not in groups:
            raise ValueError(f"there is no group {group!r}; there are {', '.join(groups) or 'no groups'}")
        with ExitStack() as stack:
            ds = xr.Dataset()
            for name in [*above, ""]:
                part = stack.enter_context(xr.open_dataset(path, engine="netcdf4", group=name or None, decode_cf=False))
                new = {n: v for n, v in part.variables.items() if n not in ds.variables}
                new = {n: v for n, v in new.items() if all(ds.sizes.get(d, s) == s for d, s in v.sizes.items())}
                ds = ds.assign(new).assign_attrs(dict(part.attrs) | ds.attrs)
            ds.attrs["groups"] = " ".join(groups)
            yield ds
    except (KeyError, TypeError, RuntimeError, OSError, OverflowError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def once(paths: Iterable[Path]) -> None:
    """Raise ``ValueError`` where two paths lead to the same file or to copies of one; files that are not there pass."""
    known: dict[bytes, Path] = {}
    for path in filter(Path.is_file, paths):
        with path.open("rb") as stream:
            first = known.setdefault(hashlib.file_digest(stream, "sha256").digest(), path)
        if first is not path:
            raise ValueError(f"the same file is given twice: {path} is {first} or a copy of it; leave one out")


def whole(path: Path) -> None:
    """Raise ``ValueError`` for a classic netCDF file that was cut short, which the library fills up with zeros."""
    from scipy.io import netcdf_file

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of maps that are still in use when the file is closed
            netcdf_file(path, mmap=True).close()
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise ValueError(f"it is cut short: {error}") from None


def grouped(path: Path) -> list[str]:
    """Groups of a file whose variables are all in groups."""
    import netCDF4

    with netCDF4.Dataset(path) as file:
        return [] if file.variables else list(every_group(file))


def every_group(file, above: str = "") -> Iterator[str]:
    """Paths of all groups in a file."""
    for name, group in file.groups.items():
        yield above + name
        yield from every_group(group, f"{above}{name}/")


def need(ds: xr.Dataset, names: Sequence[str], kind: str) -> Sequence[str]:
    """``names``, all of which must be there."""
    if lacking := [n for n in names if n not in ds.variables]:
        groups = f" and the groups {ds.attrs['groups']}" if ds.attrs["groups"] else ""
        raise ValueError(f"this is no {kind}: it lacks {', '.join(lacking)}; it holds {listed(ds.variables)}{groups}; "
                         "read other files with sciml.readers.cf")  # fmt: skip
    return names


def listed(names: Iterable, most: int = 12) -> str:
    """The first names of many."""
    every = [str(n) for n in names]
    return ", ".join(every[:most]) + (", ..." if len(every) > most else "") or "nothing"


def decoded(ds: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """These variables in memory, scaled, with dates, and NaN where they have no value, declared or not, or one outside
    their valid range."""
    import netCDF4

    ds = ds[list(names)].load()
    empty = {}
    for n, v in ds.variables.items():
        fill: Any = netCDF4.default_fillvals.get(v.dtype.str[1:]) if v.dtype.itemsize > 1 else None
        declared, whole_numbers = bool({"_FillValue", "missing_value"} & v.attrs.keys()), v.dtype.kind in "iu"
        if declared and whole_numbers and v.dtype.itemsize == 2:  # -32767 may be a measurement then
            fill = None
        if fill is not None and (nothing := np.isin(v.values, fills(v.dtype, fill, declared))).any():
            empty[n] = nothing
            if not declared:
                v.attrs["_FillValue"] = v.dtype.type(fill)
        if (outside := invalid(v)) is not None:
            empty[n] = outside | empty.get(n, False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", xr.SerializationWarning)  # of dates that a nanosecond calendar cannot hold
        ds = xr.decode_cf(ds, decode_coords=False, decode_timedelta=False).load()
    for n, v in ds.variables.items():
        if v.dtype == object and (dates := datable(v.values)) is not None:
            ds[n] = (v.dims, dates, v.attrs)
    for n, where in empty.items():
        nothing = np.datetime64("NaT") if np.issubdtype(ds[n].dtype, np.datetime64) else np.nan
        ds[n] = ds[n].where(~where, nothing)
    for n in names:
        if str(ds[n].attrs.get("standard_name")) == "time" and not np.issubdtype(ds[n].dtype, np.datetime64):
            raise ValueError(f"{n} holds no dates of the standard calendar: its units must be 'seconds since ...'")
    return ds


def fills(dtype: np.dtype, usual: Any, declared: bool) -> list[Any]:
    """Numbers that stand for nothing: the library's own, and the ends of the range of whole numbers without one."""
    ends = [] if declared or dtype.kind not in "iu" else [np.iinfo(dtype).min, np.iinfo(dtype).max]
    return [dtype.type(x) for x in [usual, *ends[dtype.kind == "u" :]]]


def datable(dates: np.ndarray) -> np.ndarray | None:
    """Dates of the standard calendar of which some are beyond the years 1678 to 2261, not a time; None for others."""
    usual = {"standard", "gregorian", "proleptic_gregorian"}
    if not dates.size or not all(getattr(d, "calendar", "") in usual for d in dates.flat):
        return None
    held = [np.datetime64(d.isoformat()) if 1678 <= d.year <= 2261 else np.datetime64("NaT") for d in dates.flat]
    out = np.array(held, "datetime64[ns]").reshape(dates.shape)
    return None if np.isnat(out).all() else out


def invalid(v: xr.Variable) -> np.ndarray | None:
    """Where stored numbers are outside ``valid_min``, ``valid_max`` or ``valid_range`` (CF 1.11, 2.5.1; of the unpacked
    numbers, where these are floating point and the stored ones are not); nothing where the variable states none."""
    low, high = v.attrs.get("valid_range", (v.attrs.get("valid_min"), v.attrs.get("valid_max")))
    stated = [np.asarray(limit) for limit in (low, high) if limit is not None]
    if not stated or v.dtype.kind not in "iuf" or any(limit.dtype.kind not in "iuf" for limit in stated):
        return None
    values = v.values
    if v.dtype.kind == "i" and str(v.attrs.get("_Unsigned", "false")) == "true":
        unsigned = v.dtype.str.replace("i", "u")
        values = values.view(unsigned)
        low, high = (x if x is None or np.asarray(x).dtype.kind == "f" else np.asarray(x).astype(unsigned)
                     for x in (low, high))  # fmt: skip
    if v.dtype.kind != "f" and any(limit.dtype.kind == "f" for limit in stated):
        values = values * v.attrs.get("scale_factor", 1.0) + v.attrs.get("add_offset", 0.0)
    elif v.dtype.kind == "f":  # 0.1 in single precision is more than 0.1
        low, high = (x if x is None else np.asarray(x, v.dtype) for x in (low, high))
    return (values < (-np.inf if low is None else low)) | (values > (np.inf if high is None else high))


def converted(v: xr.DataArray, wanted: str, difference: bool = False) -> xr.DataArray:
    """A variable in ``wanted`` units, one of :data:`UNITS`; of a ``difference`` of temperatures the zero is no matter.

    Raises ``ValueError`` where it states no units, or units of something else.
    """
    kind, known = UNITS[wanted]
    usual, units = ", ".join(names.split()[0] for names, _, _ in known), str(v.attrs.get("units", "")).strip()
    if not units:
        raise ValueError(f"{v.name} has no units, {kind} is in {usual}: give it the attribute units first")
    for names, factor, zero in known:
        if units in names.split():
            return (v.astype(np.float64) * factor + (0.0 if difference else zero)).assign_attrs(v.attrs, units=wanted)
    raise ValueError(f"{v.name} is in {units!r}, {kind} is in {usual}: take another variable or convert it first")
