"""Datasets and files: tensors to and from xarray, CF names and units, netCDF, zarr and restart files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciml.equation.base import Equation
from sciml.equation.qg import QuasiGeostrophic
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


def coordinates(eq: Equation) -> dict[str, Any]:
    """Coordinates ``lev, y, x`` of an equation's Datasets."""
    lev = np.arange(1, len(eq.prognostic) + 1, dtype=np.int32)
    attrs = {"units": "1", "long_name": "layer, 1 = top", "positive": "down", "axis": "Z"}
    return {"lev": ("lev", lev, attrs), **eq.grid.coords()}


def time_coordinate(times) -> tuple[str, np.ndarray, dict[str, str]]:
    """CF time in seconds since the start of the run."""
    attrs = {"units": "s", "long_name": "time since the start of the run", "axis": "T"}
    return "time", np.atleast_1d(np.asarray(times, dtype=np.float64)), attrs


def to_dataset(trajectory: Trajectory, eq: Equation) -> xr.Dataset:
    """CF Dataset with dimensions ``([member,] time, lev, y, x)`` of a trajectory of a layered model.

    Quasi-geostrophic models get ``q, psi, u, v``; other equations their prognostic fields by name, without ``lev``.
    """
    fields = trajectory.fields.detach()
    batch = fields.ndim - 4
    if batch not in (0, 1):
        raise ValueError(f"fields must have shape (time[, member], n, ny, nx), got {tuple(fields.shape)}")
    coords = coordinates(eq) | {"time": time_coordinate(trajectory.time)}
    if isinstance(eq, QuasiGeostrophic):
        dims = ("time", "member", "lev", "y", "x")[: 1 + batch] if batch else ("time",)
        dims = (*dims, "lev", "y", "x")
        values = qg_fields(eq, eq.init(fields)) | {"q": fields}
        data = {n: (dims, f.cpu().numpy(), attributes(n)) for n, f in values.items()}
    else:
        coords.pop("lev")
        dims = ("time", *(("member",) * batch), "y", "x")
        data = {n: (dims, fields[..., i, :, :].cpu().numpy()) for i, n in enumerate(eq.prognostic)}
    ds = xr.Dataset(data, coords, {"Conventions": "CF-1.11", **model_attributes(eq)})
    return ds.transpose(*(d for d in DIMS if d in ds.dims))


def from_dataset(ds: xr.Dataset, eq: Equation, time: int = -1) -> Tensor:
    """The fields ``q ([member,] lev, y, x)`` of a Dataset at one time, for ``step.init``."""
    missing = {"q", "x", "y"} - set(ds.variables)
    if missing:
        raise ValueError(f"the data set has no {sorted(missing)}; it holds {sorted(map(str, ds.variables))}")
    found = Grid.from_coords(ds)
    if found.shape != eq.grid.shape:
        raise ValueError(f"the data set is on a grid of {found.shape} points (y, x), the model on {eq.grid.shape}")
    q = ds["q"].isel(time=time) if "time" in ds["q"].dims else ds["q"]
    return eq.grid.real(torch.as_tensor(q.transpose(..., "lev", "y", "x").values))


def attributes(name: str) -> dict[str, str]:
    units, long_name, standard = NAMES[name]
    return {"units": units, "long_name": long_name} | ({"standard_name": standard} if standard else {})


def model_attributes(eq: Equation) -> dict[str, Any]:
    """Parameters of the model as global attributes."""
    params = {n: float(v) for n, v in eq.params.items()}
    return {"title": type(eq).__name__, "equation_parameters": json.dumps(params)}


# -- files that grow -------------------------------------------------------------------------------------------------
class NetCDFAppender:
    """Appends records along ``time``; a record cut short by a crash leaves all earlier ones readable.

    The file is netCDF in the 64-bit-data classic format, whose header counts whole records; HDF5 files do not survive
    a kill during a write. ``start`` records are kept, later ones are overwritten.
    """

    def __init__(self, path: Path, template: xr.Dataset, start: int = 0):
        import netCDF4

        self.next = start
        if start:
            self.file = netCDF4.Dataset(path, "a")
            self.file.set_auto_maskandscale(False)
            if self.file.dimensions["time"].size < start:
                raise ValueError(f"{path} holds fewer records than the restart file counts ({start})")
            return
        partial = path.with_suffix(".partial")
        self.file = netCDF4.Dataset(partial, "w", format="NETCDF3_64BIT_DATA")
        for dim, size in template.sizes.items():
            self.file.createDimension(str(dim), None if dim == "time" else size)
        for name, v in template.variables.items():
            var = self.file.createVariable(str(name), v.dtype, tuple(map(str, v.dims)))
            var.setncatts(v.attrs)
            if "time" not in v.dims:
                var[...] = v.values
        self.file.setncatts(template.attrs)
        self.file.sync()
        os.replace(partial, path)

    def append(self, record: xr.Dataset) -> None:
        """Write one record: a Dataset with one time."""
        for name, v in record.variables.items():
            if "time" in v.dims:
                self.file[str(name)][self.next] = v.isel(time=0).values
        self.file.sync()
        self.next += 1

    def close(self) -> None:
        self.file.close()


class ZarrAppender:
    """Appends records along ``time`` to a zarr store, one chunk each. ``start`` records are kept."""

    def __init__(self, path: Path, template: xr.Dataset, start: int = 0):
        self.path, self.next = path, start
        if start:
            size = xr.open_zarr(path, consolidated=False).sizes["time"]
            if size < start:
                raise ValueError(f"{path} holds {size} records, fewer than the restart file counts ({start})")
            self.size = size
            return
        template.isel(time=slice(0, 0)).to_zarr(
            path,
            mode="w",
            consolidated=False,
            encoding={
                n: {"chunks": tuple(1 if d == "time" else template.sizes[d] for d in v.dims)}
                for n, v in template.data_vars.items()
            },
        )
        self.size = 0

    def append(self, record: xr.Dataset) -> None:
        varying = record.drop_vars([n for n, v in record.variables.items() if "time" not in v.dims])
        if self.next < self.size:
            varying.to_zarr(self.path, region={"time": slice(self.next, self.next + 1)}, consolidated=False)
        else:
            varying.to_zarr(self.path, append_dim="time", consolidated=False)
            self.size += 1
        self.next += 1

    def close(self) -> None:
        pass


APPENDERS = {"netcdf": NetCDFAppender, "zarr": ZarrAppender}
SUFFIX = {"netcdf": ".nc", "zarr": ".zarr"}


def write_netcdf(ds: xr.Dataset, path: Path) -> None:
    """Write a whole Dataset; an existing file is replaced only when the new one is complete."""
    partial = path.with_suffix(".partial")
    ds.to_netcdf(partial, engine="netcdf4")
    os.replace(partial, path)


def open_run(folder: str | Path, name: str = "fields") -> xr.Dataset:
    """A run's ``fields`` (or ``diagnostics``), in either format; members of zarr groups are joined."""
    folder = Path(folder)
    if (path := folder / f"{name}.nc").exists():
        ds = xr.open_dataset(path, decode_times=False)
    elif (path := folder / f"{name}.zarr").exists():
        groups = sorted(p for p in path.iterdir() if p.name.startswith("member_"))
        parts = [xr.open_zarr(p, consolidated=False, decode_times=False) for p in groups or [path]]
        ds = xr.concat(parts, "member") if groups else parts[0]
    else:
        raise FileNotFoundError(f"no {name}.nc and no {name}.zarr in {folder}")
    return ds.transpose(*(d for d in DIMS if d in ds.dims), ...)


# -- restart files ---------------------------------------------------------------------------------------------------
def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header as safetensors, under a temporary name first."""
    from safetensors.torch import save_file

    partial = path.with_suffix(".partial")
    pairs = {n: torch.view_as_real(t) if t.is_complex() else t for n, t in tensors.items()}  # the format has no complex
    header = {**header, "complex": [n for n, t in tensors.items() if t.is_complex()]}
    save_file({n: t.detach().cpu().clone() for n, t in pairs.items()}, partial, {"header": json.dumps(header)})
    os.replace(partial, path)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_tensors` wrote; raises ``ValueError`` for a damaged or truncated file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {n: file.get_tensor(n).clone() for n in file.keys()}  # noqa: SIM118
            header = json.loads(file.metadata()["header"])
        return tensors | {n: torch.view_as_complex(tensors[n]) for n in header["complex"]}, header
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged or not a file of this package: {error}") from None
