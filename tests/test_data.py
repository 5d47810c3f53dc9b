"""Datasets, growing files, whole files and tensors on disk."""

import hashlib
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import sciml as sm
from sciml import data
from sciml.data import APPENDERS, SUFFIX, open_run, whole_records, write_netcdf
from sciml.files import load_tensors, save_tensors

FORMATS = pytest.mark.parametrize("form", ["netcdf", "zarr"])


def contents(path: Path) -> dict[str, str]:
    """Hash of a file, or of every file of a folder."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def record(i: int, nx: int = 5) -> xr.Dataset:
    """The i-th record of a small run, with both precisions and a scalar per time."""
    values = np.random.default_rng(i).normal(size=(1, 2, 3, nx))
    fields = {
        "q": (("time", "lev", "y", "x"), values, {"units": "s-1"}),
        "time": ("time", [10.5 * i], {"units": "s", "axis": "T"}),
        "u": (("time", "lev", "y", "x"), values.astype(np.float32), {"units": "m s-1"}),
        "e": ("time", values[0, 0, 0, :1], {"units": "m2 s-2"}),
    }
    return xr.Dataset(fields, {"x": ("x", np.arange(nx) / 3)}, {"Conventions": "CF-1.11"})


def written(folder: Path, form: str, n: int, **changes) -> Path:
    path = folder / f"fields{SUFFIX[form]}"
    file = APPENDERS[form](path, record(0), **changes)
    for i in range(changes.get("start", 0), n):
        file.append(record(i))
    file.close()
    return path


def expected(n: int) -> xr.Dataset:
    return xr.concat([record(i) for i in range(n)], "time", data_vars="minimal", coords="minimal", compat="override",
                     join="override")  # fmt: skip


def same(a: xr.Dataset, b: xr.Dataset) -> bool:
    """Equal in values, types, names and attributes (apart from the one that the file keeps for itself)."""
    b = b.transpose(*a.dims)
    attrs = {k: v for k, v in a.attrs.items() if k != data.BEFORE}
    types = {n: v.dtype for n, v in a.variables.items()} == {n: v.dtype for n, v in b.variables.items()}
    return types and a.assign_attrs(attrs).drop_attrs(deep=False).identical(b.drop_attrs(deep=False))


# -- Datasets ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("members", [None, 1, 3])
def test_dataset_round_trip(members, dtype):
    eq = sm.preset("eddy", 12, 10, dtype=dtype)
    run = sm.rollout(sm.rk4(eq, 7200.0), 4, every=2)(sm.random_pv(eq, seed=1, members=members))
    ds = sm.to_dataset(run, eq)
    dims = (*(() if members is None else ("member",)), "time", "lev", "y", "x")
    assert all(ds[n].dims == dims and ds[n].dtype == run.fields.numpy().dtype for n in ("q", "psi", "u", "v"))
    assert ds["time"].values.tolist() == [0.0, 14400.0, 28800.0]
    for i in (0, 1, -1):
        assert torch.equal(sm.from_dataset(ds, eq, time=i), run.fields[i])
    z = eq.init(run.fields[1])
    assert np.array_equal(ds["v"].isel(time=1), eq.velocity(z)[1])
    assert np.array_equal(ds["psi"].isel(time=1), eq.grid.ifft(eq.psi(z)))
    assert torch.equal(sm.from_dataset(ds.isel(time=1).transpose("x", "lev", "y", ...), eq), run.fields[1])


def test_dataset_speaks_cf(tmp_path):
    eq = sm.preset("phillips", 8)
    ds = sm.to_dataset(sm.rollout(sm.ab3(eq, 100.0), 1)(sm.random_pv(eq, seed=0, members=2)), eq)
    write_netcdf(ds, tmp_path / "fields.nc")
    with xr.open_dataset(tmp_path / "fields.nc") as decoded:
        spans = decoded["time"].values - decoded["time"].values[0]
        assert [s.total_seconds() for s in spans] == ds["time"].values.tolist()
        assert decoded["time"].dt.calendar == "360_day"
    with xr.open_dataset(tmp_path / "fields.nc", decode_times=False) as found:
        assert found.attrs["Conventions"] == "CF-1.11"
        assert found.identical(ds)
        units = dict(q="s-1", psi="m2 s-1", u="m s-1", v="m s-1", time="seconds since 0001-01-01")
        units |= dict(lev="1", x="m", y="m", member="1")
        assert {n: v.attrs["units"] for n, v in found.variables.items()} == units
        assert all(v.attrs["long_name"] for v in found.variables.values())
        names = {n: v.attrs["standard_name"] for n, v in found.variables.items() if "standard_name" in v.attrs}
        assert names == dict(u="sea_water_x_velocity", v="sea_water_y_velocity", member="realization", time="time")
        assert {n: found[n].attrs.get("axis") for n in ("time", "lev", "y", "x")} == dict(
            time="T", lev="Z", y="Y", x="X"
        )
        assert found["lev"].attrs["positive"] == "down"
        assert found["lev"].values.tolist() == [1, 2]


def test_dataset_of_other_equations():
    eq = sm.equation.Vorticity(grid=sm.Grid(8, 6), nu=0.1)
    run = sm.rollout(sm.rk4(eq, 0.01), 2)(torch.rand(3, 1, 6, 8, dtype=torch.float64))
    ds = sm.to_dataset(run, eq)
    assert ds["omega"].dims == ("member", "time", "y", "x")
    assert "lev" not in ds.coords
    assert "units" in ds["omega"].attrs
    assert np.array_equal(ds["omega"].transpose("time", "member", "y", "x"), run.fields[:, :, 0])


def test_dimensionless():
    eq = sm.preset("eddy", 8)
    ds = sm.to_dataset(sm.rollout(sm.ab3(eq, 100.0), 1)(sm.random_pv(eq, seed=0)), eq)
    bare = data.dimensionless(ds)
    assert {v.attrs["units"] for v in bare.variables.values()} == {"1"}
    assert "standard_name" not in bare["u"].attrs
    assert bare["u"].attrs["long_name"] == ds["u"].attrs["long_name"]
    assert ds["u"].attrs["units"] == "m s-1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.isel(x=slice(None, None, 2)), r"\(8, 4\).*\(8, 8\)"),
        (lambda ds: ds.assign_coords(x=("x", ds.x.values * 2)), "box of 2e.06 x 1e.06"),
        (lambda ds: ds.drop_vars("q"), r"no \['q'\]"),
        (lambda ds: ds.drop_vars("y"), r"no \['y'\]"),
        (lambda ds: ds.isel(time=0, drop=True).isel(x=[0, 1, 2, 3, 4, 5, 6, 5]), "not evenly spaced"),
    ],
)
def test_from_dataset_refuses(change, message):
    eq = sm.preset("eddy", 8)
    ds = sm.to_dataset(sm.rollout(sm.ab3(eq, 100.0), 1)(sm.random_pv(eq, seed=0)), eq)
    with pytest.raises(ValueError, match=message):
        sm.from_dataset(change(ds), eq)


def test_to_dataset_refuses_other_shapes():
    eq = sm.equation.Lorenz63()
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        sm.to_dataset(sm.rollout(sm.rk4(eq, 0.01), 1)(torch.ones(3)), eq)


# -- files that grow ---------------------------------------------------------------------------------------------------
@FORMATS
def test_appended_records_come_back(tmp_path, form):
    written(tmp_path, form, 4)
    with open_run(tmp_path) as ds:
        assert same(ds, expected(4))
        assert ds["q"].encoding.get("preferred_chunks", {"time": 1})["time"] == 1


@FORMATS
@pytest.mark.parametrize("start", [1, 3, 5])
def test_reopened_file_keeps_start_records(tmp_path, form, start):
    """Later records are overwritten, and the file ends as if it had been written in one go."""
    whole = contents(written(tmp_path, form, 7))
    path = tmp_path / f"fields{SUFFIX[form]}"
    file = APPENDERS[form](path, record(0), start=start)
    for _ in range(start, 6):
        file.append(record(99))
    file.close()
    with open_run(tmp_path) as ds:
        assert same(ds.isel(time=slice(start)), expected(start))
        assert ds["time"].values[start] == record(99)["time"]
    assert contents(written(tmp_path, form, 7, start=start)) == whole


@FORMATS
def test_fresh_file_replaces_a_longer_one(tmp_path, form):
    written(tmp_path, form, 5)
    written(tmp_path, form, 2)
    with open_run(tmp_path) as ds:
        assert same(ds, expected(2))


@FORMATS
def test_start_beyond_the_file_is_refused(tmp_path, form):
    path = written(tmp_path, form, 2)
    before = contents(path)
    with pytest.raises(ValueError, match=r"fields.*cut short.* 2 whole records.*counts 3"):
        APPENDERS[form](path, record(0), start=3)
    assert contents(path) == before


@FORMATS
@pytest.mark.parametrize("after", [0, 1, 2])
def test_interrupted_record_is_not_counted(tmp_path, form, after, monkeypatch):
    """A record of which only some variables were written is none."""
    names = data.varying(record(0))
    assert names[-1] == "time"
    path = written(tmp_path, form, 2)
    file = APPENDERS[form](path, record(0), start=2)

    def stop(_):
        yield from names[:after]
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "varying", stop)
    with pytest.raises(KeyboardInterrupt):
        file.append(record(2))
    file.close()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with open_run(tmp_path) as ds:
            assert same(ds, expected(2))
    if form == "netcdf" and after:  # the classic format counts it, so that whoever opens it is told
        assert ["2 of its 3 records are whole" in str(w.message) for w in told] == [True]
    monkeypatch.undo()
    written(tmp_path, form, 4, start=2)
    with open_run(tmp_path) as ds:
        assert same(ds, expected(4))


def test_truncated_file_yields_whole_records_or_is_refused(tmp_path):
    """Cut at any byte: never a wrong number. Classic netCDF itself reads zeros there."""
    path = written(tmp_path, "netcdf", 3)
    whole = path.read_bytes()
    with xr.open_dataset(path, decode_times=False) as ds:
        first = ds.attrs[data.BEFORE]
    size = (len(whole) - first) // 3
    assert first + 3 * size == len(whole)
    found = set()
    for length in {*range(0, len(whole), 41), *range(first - 3, first + 3), *range(len(whole) - 9, len(whole))}:
        path.write_bytes(whole[:length])
        try:
            held = whole_records(path)
        except ValueError as error:
            held = -1 if str(path) in str(error) else None
        if length >= first:
            assert held == (length - first) // size
        found.add(held)
        if held < 3:
            with pytest.raises(ValueError, match=r"fields\.nc"):
                APPENDERS["netcdf"](path, record(0), start=3)
            assert path.read_bytes() == whole[:length]
        if held > 0:
            with pytest.warns(UserWarning, match="cut short"), open_run(tmp_path) as ds:
                assert same(ds, expected(held))
    assert found == {-1, 0, 1, 2}


def test_whole_records_of_other_files(tmp_path):
    write_netcdf(expected(3), tmp_path / "fields.nc")
    assert whole_records(tmp_path / "fields.nc") == 3
    with open_run(tmp_path) as ds:
        assert same(ds, expected(3))
    (tmp_path / "fields.nc").write_text("this is not netCDF")
    for read in (whole_records, lambda path: open_run(path.parent)):
        with pytest.raises(ValueError, match=r"fields\.nc is damaged, or not"):
            read(tmp_path / "fields.nc")


@pytest.mark.parametrize("name", [".zmetadata", "q/.zarray"])
def test_damaged_zarr_is_refused(tmp_path, name):
    path = written(tmp_path, "zarr", 2)
    file = path / name
    os.truncate(file, file.stat().st_size // 2)
    before = contents(path)
    with pytest.raises(ValueError, match=r"fields\.zarr is damaged"):
        APPENDERS["zarr"](path, record(0), start=1)
    assert contents(path) == before


def test_zarr_members_are_joined(tmp_path):
    data.zarr_group(tmp_path / "fields.zarr")
    for m, n in ((0, 3), (1, 2), (10, 3)):
        file = APPENDERS["zarr"](tmp_path / f"fields.zarr/member_{m:03d}", record(0))
        for i in range(n):
            file.append(record(i).assign(e=record(i)["e"] + m))
    with open_run(tmp_path) as ds:
        assert ds.sizes["member"] == 3
        assert ds.sizes["time"] == 2, "times that all members have"
        assert ds["q"].dims == ("member", "time", "lev", "y", "x")
        assert np.allclose((ds["e"] - expected(2)["e"]).isel(time=0), [0, 1, 10])
        assert ds["member"].attrs["standard_name"] == "realization"
    one = xr.open_zarr(tmp_path / "fields.zarr", group="member_010", consolidated=False)
    assert one.sizes["time"] == 3


def test_open_run_without_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no fields.nc and no fields.zarr in"):
        open_run(tmp_path)


# -- whole files -------------------------------------------------------------------------------------------------------
def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "diagnostics.nc"
    write_netcdf(expected(2), path)
    before = contents(tmp_path)

    def full(self, path, **how):
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(xr.Dataset, "to_netcdf", full)
        with pytest.raises(OSError, match="no space"):
            write_netcdf(expected(3), path)
    assert contents(tmp_path) == before
    write_netcdf(expected(3), path)
    with open_run(tmp_path, "diagnostics") as ds:
        assert same(ds, expected(3))
    assert [p.name for p in tmp_path.iterdir()] == ["diagnostics.nc"]


TENSORS = {
    "z": torch.randn(2, 3, dtype=torch.complex128),
    "half": torch.randn(4, dtype=torch.complex64),
    "transposed": torch.randn(3, 4, 5, dtype=torch.complex128).movedim(0, -1),
    "conjugate": torch.randn(3, dtype=torch.complex128).conj(),
    "a": torch.randn(3, 4, dtype=torch.float64).T,
    "single": torch.tensor(1 / 3, dtype=torch.float32),
    "rng": torch.Generator().manual_seed(1).get_state(),
    "empty": torch.zeros(0, 2),
}


def test_tensors_round_trip(tmp_path):
    header = {"time": 0.1, "n": 3, "identity": {"dt": 1 / 3, "name": "é"}}
    save_tensors(tmp_path / "a.safetensors", TENSORS | {"twice": TENSORS["a"]}, header)
    found, about = load_tensors(tmp_path / "a.safetensors")
    assert list(found) == [*TENSORS, "twice"], "in the order of writing"
    for name, t in TENSORS.items():
        assert found[name].dtype == t.dtype
        assert torch.equal(found[name], t)
    assert header.items() <= about.items()
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("keep", [0, 5, 0.1, 0.5, -1])
def test_truncated_tensors_are_refused(tmp_path, keep):
    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS, {"n": 1})
    size = path.stat().st_size
    os.truncate(path, size - 1 if keep < 0 else int(keep * size) if 0 < keep < 1 else keep)
    with pytest.raises(ValueError, match=r"a\.safetensors is damaged"):
        load_tensors(path)


def test_tensors_of_another_program_are_refused(tmp_path):
    from safetensors.torch import save_file

    for i, about in enumerate([None, {"header": "{"}, {"header": "[]"}, {"header": '{"names": ["z"]}'}]):
        path = tmp_path / f"{i}.safetensors"
        save_file({"w": torch.zeros(2)}, path, about)
        with pytest.raises(ValueError, match=rf"{i}\.safetensors is damaged"):
            load_tensors(path)


def test_failed_save_leaves_the_old_tensors(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS, {"n": 1})
    before = contents(tmp_path)
    with pytest.raises(TypeError):
        save_tensors(path, {"a": torch.zeros(2)}, {"n": object()})
    assert contents(tmp_path) == before
