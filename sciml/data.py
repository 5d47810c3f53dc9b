"""Datasets and files: tensors to and from xarray, CF names and units, netCDF and zarr."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciml.equation.base import Equation
from sciml.equation.qg import QuasiGeostrophic
from sciml.files import refusing, replacing
from sciml.grid import Grid
from sciml.rollout import Trajectory

DIMS = ("member", "time", "lev", "y", "x")
NAMES = {
    "q": ("s-1", "potential vorticity anomaly", None),
    "psi": ("m2 s-1", "streamfunction anomaly", None),
    "u": ("m s-1", "eastward velocity anomaly", "sea_water_x_velocity"),
    "v": ("m s-1", "northward velocity anomaly", "sea_water_y_velocity"),
}
"""Units, long name and CF standard name of the fields of quasi-geostrophic runs."""


# -- tensors and Datasets --------------------------------------------------------------------------------------------
def qg_fields(eq: QuasiGeostrophic, z: Tensor) -> dict[str, Tensor]:
    """``q, psi, u, v`` on the grid, each ``(..., n, ny, nx)``."""
    u, v = eq.velocity(z)
    return {"q": eq.read(z), "psi": eq.grid.ifft(eq.psi(z)), "u": u, "v": v}


def coordinates(eq: Equation, members: int | None = None) -> dict[str, Any]:
    """Coordinates ``[member,] lev, y, x`` of an equation's Datasets."""
    lev = np.arange(1, len(eq.prognostic) + 1, dtype=np.int32)
    attrs = {"units": "1", "long_name": "layer, 1 = top", "positive": "down", "axis": "Z"}
    member = {} if members is None else {"member": member_coordinate(members)}
    return {**member, "lev": ("lev", lev, attrs), **eq.grid.coords()}


def member_coordinate(members: int) -> xr.DataArray:
    """CF coordinate of an ensemble."""
    attrs = {"units": "1", "long_name": "ensemble member", "standard_name": "realization"}
    return xr.DataArray(np.arange(members, dtype=np.int32), dims="member", name="member", attrs=attrs)


def time_coordinate(times) -> tuple[str, np.ndarray, dict[str, str]]:
    """CF time in seconds since the start of the run, which stands at the beginning of a calendar of 360-day years."""
    attrs = {"units": "seconds since 0001-01-01", "calendar": "360_day", "standard_name": "time", "axis": "T"}
    attrs["long_name"] = "time since the start of the run"
    return "time", np.atleast_1d(np.asarray(times, dtype=np.float64)), attrs


def to_dataset(trajectory: Trajectory, eq: Equation) -> xr.Dataset:
    """CF Dataset with dimensions ``([member,] time, lev, y, x)`` of a trajectory of a layered model.

    Quasi-geostrophic models get ``q, psi, u, v``; other equations their prognostic fields by name, without ``lev``.

    Examples
    --------
    >>> eq = sm.preset("eddy", nx=16)
    >>> run = sm.rollout(sm.ab3(eq, 7200.0), 24, every=12)(sm.random_pv(eq, seed=0))
    >>> ds = sm.to_dataset(run, eq)
    >>> ds["q"].dims, bool(torch.allclose(sm.from_dataset(ds, eq), run.fields[-1]))
    (('time', 'lev', 'y', 'x'), True)
    """
    fields = trajectory.fields.detach()
    batch = fields.ndim - 4
    if batch not in (0, 1):
        raise ValueError(f"fields must have shape (time[, member], n, ny, nx), got {tuple(fields.shape)}")
    coords = coordinates(eq, fields.shape[1] if batch else None) | {"time": time_coordinate(trajectory.time)}
    dims = ("time", *(("member",) * batch))
    if isinstance(eq, QuasiGeostrophic):
        values = qg_fields(eq, eq.init(fields)) | {"q": fields}
        data = {n: ((*dims, "lev", "y", "x"), f.cpu().numpy(), attributes(n)) for n, f in values.items()}
    else:
        coords.pop("lev")
        values = {n: fields[..., i, :, :].cpu().numpy() for i, n in enumerate(eq.prognostic)}
        data = {n: ((*dims, "y", "x"), f, {"units": eq.units.get(n, "1")}) for n, f in values.items()}
    ds = xr.Dataset(data, coords, {"Conventions": "CF-1.11", **model_attributes(eq)})
    ds = dimensionless(ds) if getattr(eq, "nondimensional", False) else ds
    return ds.transpose(*(d for d in DIMS if d in ds.dims))


def from_dataset(ds: xr.Dataset, eq: Equation, time: int = -1) -> Tensor:
    """The fields ``q ([member,] lev, y, x)`` of a Dataset at the time with the number ``time``, for ``step.init``.

    Examples
    --------
    >>> eq = sm.preset("eddy", nx=16)
    >>> run = sm.rollout(sm.ab3(eq, 7200.0), 2)(sm.random_pv(eq, seed=0))
    >>> q = sm.from_dataset(sm.to_dataset(run, eq), eq)  # the last time
    >>> bool(torch.equal(q, run.fields[-1]))
    True
    """
    missing = {"q", "x", "y"} - set(ds.variables)
    if missing:
        raise ValueError(f"the data set has no {sorted(missing)}; it holds {sorted(map(str, ds.variables))}")
    found, own = Grid.from_coords(ds), eq.grid
    if found.shape != own.shape:
        raise ValueError(f"the data set is on a grid of {found.shape} points (y, x), the model on {own.shape}")
    if not (math.isclose(found.Lx, own.Lx, rel_tol=1e-4) and math.isclose(found.Ly, own.Ly, rel_tol=1e-4)):
        raise ValueError(f"the data set covers a box of {found.Lx:g} x {found.Ly:g}, the model {own.Lx:g} x {own.Ly:g}")
    ds = ds.sortby("lev") if "lev" in ds["q"].coords and ds["q"]["lev"].ndim else ds
    q = ds["q"].isel(time=time) if "time" in ds["q"].dims else ds["q"]
    return eq.grid.real(torch.as_tensor(q.transpose(..., "lev", "y", "x").values))


def attributes(name: str) -> dict[str, str]:
    units, long_name, standard = NAMES[name]
    return {"units": units, "long_name": long_name} | ({"standard_name": standard} if standard else {})


def model_attributes(eq: Equation) -> dict[str, Any]:
    """The model as global attributes: its numbers, its grid, and all terms as text."""
    own = {f.name: getattr(eq, f.name) for f in dataclasses.fields(eq)}
    numbers = {n: v for n, v in own.items() if isinstance(v, bool | int | float | str)}
    numbers |= {n: [float(a) for a in v] for n, v in own.items() if n in ("H", "gprime")}
    numbers |= {n: float(v) for n, v in eq.params.items()}
    grid = {n: getattr(eq.grid, n) for n in ("nx", "ny", "Lx", "Ly", "dealias", "x0", "y0")}
    return {
        "title": type(eq).__name__,
        "source": f"sciml {version('sciml')}",
        "equation_parameters": json.dumps(numbers),
        "grid": json.dumps(grid),
        "terms": "; ".join(f"{t.field}: {t.expr} [{t.name}]" for t in eq.terms),
    }


def dimensionless(ds: xr.Dataset) -> xr.Dataset:
    """The Dataset of a set-up without dimensions: every unit is 1, and no quantity has a CF standard name."""
    ds = ds.copy()
    for n, v in ds.variables.items():
        ds[n].attrs = {k: a for k, a in v.attrs.items() if k not in ("standard_name", "calendar") or n == "member"} | {
            "units": "1"
        }
    return ds


# -- files -----------------------------------------------------------------------------------------------------------
def write_netcdf(ds: xr.Dataset, path: Path) -> None:
    """Write a whole Dataset; an existing file is replaced only when the new one is complete."""
    with replacing(path) as partial:
        ds.to_netcdf(partial, engine="netcdf4")


class NetCDFAppender:
    """Appends records along ``time``; a record cut short by a crash leaves all earlier ones readable.

    The file is netCDF in the 64-bit-data classic format, whose header counts whole records; HDF5 files do not survive
    a kill during a write. ``start`` records are kept, later ones are overwritten.
    """

    def __init__(self, path: Path, template: xr.Dataset, start: int = 0):
        import netCDF4

        self.path, self.next = Path(path), start
        if start:
            if (held := whole_records(path)) < start:
                raise ValueError(cut_short(path, held, start))
            self.file = netCDF4.Dataset(path, "a")
            return
        template = template.transpose("time", ...)
        with replacing(path) as partial:
            self.file = netCDF4.Dataset(partial, "w", format=CLASSIC)
            for dim, size in template.sizes.items():
                self.file.createDimension(str(dim), None if dim == "time" else size)
            for name, v in template.variables.items():
                var = self.file.createVariable(str(name), v.dtype, tuple(map(str, v.dims)))
                var.setncatts(v.attrs)
                if "time" not in v.dims:
                    var[...] = v.values
            self.file.setncatts(template.attrs | {BEFORE: np.int64(0)})
            self.file.sync()
            self.file.setncattr(BEFORE, np.int64(partial.stat().st_size))
            self.file.sync()

    def append(self, record: xr.Dataset) -> None:
        """Write one record: a Dataset with one time. Raises ``OSError`` before the disk is full, since the library
        does not survive that."""
        if shutil.disk_usage(self.path.parent).free < 2 * record.nbytes:
            raise OSError(f"no space is left for {self.path}; free some and go on with --resume")
        for name in varying(record):
            self.file[name][self.next] = record[name].isel(time=0).values
        self.file.sync()
        self.next += 1

    def close(self) -> None:
        self.file.close()


def cut_short(path: Path, held: int, start: int) -> str:
    return (
        f"{path} is cut short: it holds {held} whole records, the restart file counts {start}; start again with "
        "--overwrite, or give back the whole file"
    )


CLASSIC = "NETCDF3_64BIT_DATA"
BEFORE = "bytes_before_records"


def varying(record: xr.Dataset) -> list[str]:
    """Names of the variables along time; ``time`` comes last, so that a record with a time is whole."""
    return sorted((str(n) for n, v in record.variables.items() if "time" in v.dims), key=lambda n: n == "time")


def whole_records(path: Path) -> int:
    """Records that a file of :class:`NetCDFAppender` holds in full; classic files read missing bytes as zeros."""
    import netCDF4

    with refusing(path), netCDF4.Dataset(path) as file:
        times = np.ma.filled(file["time"][:], np.inf)
        if file.data_model != CLASSIC or BEFORE not in file.ncattrs():
            return times.size
        growing = [v for v in file.variables.values() if "time" in v.dimensions]
        bytes_each = sum(v.dtype.itemsize * math.prod(v.shape[1:]) for v in growing)
        held = (path.stat().st_size - int(file.getncattr(BEFORE))) // bytes_each
        return int(np.isfinite(times[: max(held, 0)]).sum())


class ZarrAppender:
    """Appends records along ``time`` to a zarr store, one chunk each. ``start`` records are kept.

    The consolidated metadata, by which readers go, is renewed after every record and so counts whole ones only.
    """

    def __init__(self, path: Path, template: xr.Dataset, start: int = 0):
        import zarr

        self.path, self.next, self.consolidate = path, start, zarr.consolidate_metadata
        template = template.transpose("time", ...)
        if not start:
            shape = {n: tuple(1 if d == "time" else template.sizes[d] for d in v.dims) for n, v in template.items()}
            encoding = {n: {"chunks": chunks} for n, chunks in shape.items()}
            template.isel(time=slice(0)).to_zarr(path, mode="w", zarr_format=2, consolidated=True, encoding=encoding)
        elif (held := open_zarr(path).sizes["time"]) < start:
            raise ValueError(cut_short(path, held, start))
        with refusing(path):
            group = zarr.open_group(path, mode="r+", zarr_format=2, use_consolidated=False)
            self.arrays: dict[str, Any] = {name: group[name] for name in varying(template)}
            for name, array in self.arrays.items():
                whole_chunks(name, array, start)

    def append(self, record: xr.Dataset) -> None:
        """Write one record: a Dataset with one time."""
        for name in varying(record):
            array = self.arrays[name]
            if array.shape[0] <= self.next:
                array.resize((self.next + 1, *array.shape[1:]))
            array[self.next] = record[name].isel(time=0).values
        self.consolidate(self.path, zarr_format=2)
        self.next += 1

    def close(self) -> None:
        pass


def whole_chunks(name: str, array: Any, start: int) -> None:
    """Raise ``ValueError`` where one of the first ``start`` records of a zarr array is missing or cannot be read."""
    for i in range(start):
        if np.isnan(array[i]).all():
            raise ValueError(f"record {i} of {name} is missing")


def zarr_group(path: Path) -> None:
    """Make the group that holds the groups of members."""
    import zarr

    zarr.open_group(path, mode="a", zarr_format=2)


def open_zarr(path: Path) -> xr.Dataset:
    """A zarr store of :class:`ZarrAppender`."""
    with refusing(path):
        return xr.open_zarr(path, consolidated=True, decode_times=False)


APPENDERS = {"netcdf": NetCDFAppender, "zarr": ZarrAppender}
SUFFIX = {"netcdf": ".nc", "zarr": ".zarr"}


def open_run(folder: str | Path, name: str = "fields") -> xr.Dataset:
    """A run's ``fields`` (or ``diagnostics``), in either format; members of zarr groups are joined.

    Warns where a file was cut short, and returns its whole records.

    Examples
    --------
    >>> import tempfile
    >>> eq = sm.preset("eddy", nx=16)
    >>> run = sm.rollout(sm.ab3(eq, 7200.0), 2)(sm.random_pv(eq, seed=0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sm.to_dataset(run, eq).to_netcdf(f"{folder}/fields.nc", format="NETCDF3_64BIT", unlimited_dims=["time"])
    ...     with sm.open_run(folder) as ds:
    ...         ds.sizes["time"]
    3
    """
    folder = Path(folder)
    if (path := folder / f"{name}.nc").exists():
        with refusing(path):
            ds = xr.open_dataset(path, engine="netcdf4", decode_times=False)
        if "time" in ds.dims and (held := whole_records(path)) < ds.sizes["time"]:
            warnings.warn(f"{path} is cut short: {held} of its {ds.sizes['time']} records are whole", stacklevel=2)
            ds = ds.isel(time=slice(held))
    elif (path := folder / f"{name}.zarr").exists():
        groups = [open_zarr(p) for p in sorted(path.glob("member_*"))]
        how: Any = dict(data_vars="all", coords="minimal", compat="override", join="inner", combine_attrs="override")
        ds = xr.concat(groups, member_coordinate(len(groups)), **how) if groups else open_zarr(path)
    else:
        raise FileNotFoundError(f"no {name}.nc and no {name}.zarr in {folder}")
    return ds.transpose(*(d for d in DIMS if d in ds.dims), ...)
