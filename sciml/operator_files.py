"""The published files of operator learning (MATLAB and NumPy) as Datasets like those of :mod:`sciml.operator_data`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sciml.operator_data import coordinates

HDF5 = b"\x89HDF\r\n\x1a\n"


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """What readers raise, as a ``ValueError`` of one line that names the file."""
    if not path.is_file():
        raise ValueError(f"{path} is a folder, not a file" if Path(path).is_dir() else f"there is no file {path}")
    try:
        yield
    except (OSError, KeyError, ValueError, TypeError, EOFError, IndexError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged or no {kind} ({' '.join(str(error).split())})") from None


def matlab(path: str | Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Those of the variables ``names`` that a MATLAB file holds; versions 4 to 7.3 (which is HDF5, axes reversed)."""
    path = Path(path)
    with reading(path, "MATLAB file"):
        if is_hdf5(path):
            return from_hdf5(path, names)
        from scipy.io import loadmat

        found = loadmat(path, variable_names=names)
    return {n: np.asarray(found[n]) for n in names if n in found}


def is_hdf5(path: Path) -> bool:
    """Whether HDF5's signature stands at the start, or after the 512 bytes that MATLAB puts before it."""
    with path.open("rb") as file:
        head = file.read(520)
    return HDF5 in (head[:8], head[512:])


def from_hdf5(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    import netCDF4

    with netCDF4.Dataset(path) as file:
        file.set_auto_mask(False)
        return {n: file[n][...].T for n in names if n in file.variables}


def needed(found: Mapping[str, np.ndarray], path: str | Path, **axes: int) -> None:
    """Raise ``ValueError`` where a variable is missing, or has another number of axes than ``axes`` says."""
    for name, n in axes.items():
        if name not in found:
            raise ValueError(
                f"{path} has no variable {name!r}; is it a file of another problem, or are its names others?"
            )
        if found[name].ndim != n or not found[name].size or found[name].dtype.kind not in "fiu":
            text = f"{found[name].dtype} {found[name].shape}"
            raise ValueError(f"{path}: {name!r} should be numbers with {n} axes, sample first; it is {text}")


def agree(path: str | Path, *shapes: tuple[int, ...]) -> None:
    if len(set(shapes)) > 1:
        raise ValueError(f"{path}: the shapes {' and '.join(map(str, shapes))} do not agree")


def dataset(data: Mapping[str, Any], coords: Mapping[str, Any], path: str | Path) -> xr.Dataset:
    attrs = {"Conventions": "CF-1.11", "title": Path(path).name, "source": "published file"}
    single = {
        n: (dims, np.ascontiguousarray(v, np.float32), {"units": "1", "long_name": t})
        for n, (dims, v, t) in data.items()
    }
    return xr.Dataset(single, coords, attrs)


# -- the files -------------------------------------------------------------------------------------------------------
def read_darcy(path: str | Path, stride: int = 1, names: tuple[str, str] = ("coeff", "sol")) -> xr.Dataset:
    """``a`` and ``u (sample, y, x)`` of a Darcy file, every ``stride``-th point; ``names`` are those in the file.

    Li et al. (2021): ``piececonst_r421_N1024_smooth1.mat``; also the rough and the multiscale files of that layout.
    Files do not say where their points are: they are taken to go from 0 to 1, the ends included.
    """
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}")
    found = matlab(path, names)
    needed(found, path, **dict.fromkeys(names, 3))
    coefficient, solution = (found[n] for n in names)
    n = solution.shape[-1]
    if (n - 1) % stride:
        raise ValueError(f"stride {stride} leaves {n} points without the last wall: stride must divide {n - 1}")
    agree(path, coefficient.shape, solution.shape, (len(solution), n, n))
    kept, dims = slice(None, None, stride), ("sample", "y", "x")
    data = {"a": (dims, coefficient[:, kept, kept], "coefficient"), "u": (dims, solution[:, kept, kept], "solution")}
    coords = {d: (dim, s[kept], attrs) for d, (dim, s, attrs) in coordinates(n).items()}
    return dataset(data, coords, path)


def read_navier_stokes(path: str | Path) -> xr.Dataset:
    """``omega (sample, time, y, x)`` of a Navier-Stokes file: ``a``, the start, before ``u (sample, x, y, time)``.

    Times are those of the variable ``t``, or 1, 2, ... without one. x comes before y, as in the published generator.
    """
    found = matlab(path, ("a", "u", "t"))
    needed(found, path, a=3, u=4)
    samples, nx, ny, times = found["u"].shape
    agree(path, found["a"].shape, (samples, nx, ny))
    agree(path, (nx,), (ny,))
    t = found["t"].ravel().astype(float) if "t" in found else np.arange(1.0, times + 1)
    agree(path, t.shape, (times,))
    omega = np.concatenate([found["a"][..., None].astype(np.float32), found["u"].astype(np.float32)], -1)
    time = "time", np.concatenate([[0.0], t]), {"units": "1", "axis": "T", "long_name": "time"}
    data = {"omega": (("sample", "time", "y", "x"), omega.transpose(0, 3, 2, 1), "vorticity")}
    return dataset(data, {"time": time, **coordinates(nx, periodic=True)}, path)


def read_pipe(folder: str | Path) -> xr.Dataset:
    """Mesh and flow of the pipe files of Li et al. (2023, Geo-FNO): ``Pipe_X.npy``, ``Pipe_Y.npy``, ``Pipe_Q.npy``.

    ``mesh_x, mesh_y (sample, i, j)`` and ``q (sample, component, i, j)``, the first component being the velocity along
    the pipe, which is what operators are asked for.
    """
    found = {}
    for name in "XYQ":
        path = Path(folder) / f"Pipe_{name}.npy"
        with reading(path, "NumPy file"):
            found[name] = np.load(path)
    found["Q"] = found["Q"][:, None] if found["Q"].ndim == 3 else found["Q"]
    needed(found, folder, X=3, Y=3, Q=4)
    agree(folder, found["X"].shape, found["Y"].shape, found["Q"][:, 0].shape)
    mesh = {f"mesh_{n.lower()}": (("sample", "i", "j"), found[n], f"{n.lower()} of the mesh") for n in "XY"}
    return dataset({**mesh, "q": (("sample", "component", "i", "j"), found["Q"], "flow")}, {}, folder)
