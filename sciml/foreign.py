"""Opening netCDF files that others made: whole ones only, with groups, and with values that are missing unsaid."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr


@contextmanager
def raw(path: str | Path, group: str = "") -> Iterator[xr.Dataset]:
    """Undecoded variables of a group, with those of the groups above it; what goes wrong names the file."""
    import netCDF4

    path, group = Path(path), group.strip("/")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
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


def whole(path: Path) -> None:
    """Raise ``ValueError`` for a classic netCDF file that was cut short, which the library fills up with zeros."""
    from scipy.io import netcdf_file

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of maps that are still in use when the file is closed
            netcdf_file(path, mmap=True).close()
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise ValueError(f"it is cut short: {error}") from None


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
    """These variables in memory, scaled, with dates, and NaN where they have no value, declared or not."""
    import netCDF4

    ds = ds[list(names)].load()
    empty = {}
    for n, v in ds.variables.items():
        fill: Any = netCDF4.default_fillvals.get(v.dtype.str[1:]) if v.dtype.itemsize > 1 else None
        if fill is not None and np.any(v.values == fill):
            empty[n] = v.values == fill
            if not {"_FillValue", "missing_value"} & v.attrs.keys():
                v.attrs["_FillValue"] = v.dtype.type(fill)
    ds = xr.decode_cf(ds, decode_coords=False, decode_timedelta=False)
    for n, where in empty.items():
        nothing = np.datetime64("NaT") if np.issubdtype(ds[n].dtype, np.datetime64) else np.nan
        ds[n] = ds[n].where(~where, nothing)
    for n in names:
        if str(ds[n].attrs.get("standard_name")) == "time" and not np.issubdtype(ds[n].dtype, np.datetime64):
            raise ValueError(f"{n} holds no dates of the standard calendar: its units must be 'seconds since ...'")
    return ds
