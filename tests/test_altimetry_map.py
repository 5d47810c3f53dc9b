"""The mapping case: synthetic tracks, real ones, refusals."""

import json

import numpy as np
import pytest
import xarray as xr

from tests.case_fixtures import refused
from tests.test_readers import AMSR2, JASON, real, track_file

CASE = "altimetry_map"
DAY = 86400.0
SHORT = "--method oi --points 12".split()


@pytest.mark.parametrize(("arguments", "message"), [
    (["--reader", "cf"], "--reader cf needs --variable and --sigma"),
    (["--box", "0", "90", "30", "40"], "at most 60 degrees apart"),
    (["--box", "-3", "3", "-3", "3", "--method", "4dvar"], "too near the equator|only 0 heights"),
    (["--withhold", "1"], "--withhold must be 0 or at least 2"),
    (["--days", "1e8"], "--days must be from 0.001 to 366, got 100000000"),
    (["--date", "yesterday"], "--date must be a time such as 2019-01-06T12, got yesterday"),
    (["--date", "9999-01-01"], "--date must lie between the years 1700 and 2200"),
    (["--std", "1e-300"], "--std must be from 1e-06 to 1000"),
    (["--length", "0"], "--length must be from 1000 to 1e[+]08"),
    (["--section", "nan"], "--section must be from 1000 .*, got nan"),
    (["--margin", "-1"], "--margin must be from 0 to"),
    (["--dt", "1e6"], "--dt must be from 60 s to 864000 s, the length of the window, got 1e[+]06"),
    (["--reader", "jason_gdr", "--variable", "ssha"], "jason_gdr has channels of its own; leave --variable out"),
    (["--file", "nowhere.nc"], "there is no file nowhere.nc"),
    (["--days", "0.01"], "no heights in the files or, without --file, in so few --days"),
    (["--date", "2001-01-01"], r"only 0 heights are left .*outside_window"),
])  # fmt: skip
def test_requests_that_cannot_be_met(call, tmp_path, arguments, message):
    refused(call(*SHORT, "--out", tmp_path / "o", *arguments, case=CASE), message)


def test_heights_that_cannot_be_used_are_counted(call, tmp_path):
    lon, days = np.linspace(0, 3, 60), np.linspace(0, 4, 60)
    value = 0.1 * np.sin(5 * lon)
    value[7], lon[8], days[9] = np.nan, np.nan, 0.0
    track_file(tmp_path / "t.nc", lon=lon, value=value, time=days)
    line = f"--file {tmp_path / 't.nc'} --withhold 0 --out {tmp_path / 'o'}".split()
    assert call(*SHORT, *line, case=CASE).status == 0
    found = json.loads((tmp_path / "o" / "summary.json").read_text())["results"]
    assert (found["flags"]["missing"], found["flags"]["time_order"]) == (2, 1)
    assert found["rms"]["used"]["oi"] < 0.7 * found["rms"]["used"]["climatology"]
    with xr.open_dataset(tmp_path / "o" / "map.nc") as ds:
        assert float(ds["error_oi"].max()) <= found["prior_std"]
        assert np.isfinite(ds["height_oi"]).all()


def wave(path, units="m", factor=1.0, **more):
    lon = np.linspace(0, 3, 60)
    days = np.linspace(0, 4, 60)
    track_file(path, lon=lon, value=0.1 * np.sin(5 * lon), time=days, **more)
    with xr.open_dataset(path, decode_times=False) as ds:
        ds = ds.load()
    ds["sla_unfiltered"] = ("time", ds["sla_unfiltered"].values * factor, {} if units is None else {"units": units})
    ds.to_netcdf(path)
    return path


def test_heights_in_other_units_make_the_same_map(call, tmp_path):
    line = "--reader cf --variable sla_unfiltered --sigma 0.03 --withhold 0".split()
    maps = []
    for unit, factor in (("m", 1.0), ("cm", 100.0)):
        file = wave(tmp_path / f"{unit}.nc", unit, factor)
        assert call(*SHORT, *line, "--file", file, "--out", tmp_path / unit, case=CASE).status == 0
        maps.append(xr.load_dataset(tmp_path / unit / "map.nc"))
    xr.testing.assert_allclose(maps[0], maps[1])
    for unit, message in (("K", r"sla_unfiltered is in 'K', a height is in m, cm, mm"), (None, "has no units")):
        file = wave(tmp_path / "wrong.nc", unit)
        refused(call(*SHORT, *line, "--file", file, "--out", tmp_path / "o", case=CASE), message)


@real
def test_a_temperature_is_no_height(call, tmp_path):
    line = f"--reader cf --variable sea_surface_temperature --sigma 0.5 --file {AMSR2} --out {tmp_path / 'o'}".split()
    refused(call(*SHORT, *line, case=CASE), "sea_surface_temperature is in 'K', a height is in m, cm, mm")


def test_a_file_is_used_once(call, tmp_path):
    file, copy = wave(tmp_path / "t.nc"), tmp_path / "copy.nc"
    copy.write_bytes(file.read_bytes())
    (tmp_path / "sub").mkdir()
    for second in (file, tmp_path / "sub" / ".." / "t.nc", copy):
        line = ["--file", file, second, "--out", tmp_path / "o"]
        refused(call(*SHORT, *line, case=CASE), "the same file is given twice: .* leave one out")
    other = wave(tmp_path / "other.nc", platform="Other")
    assert call(*SHORT, "--withhold", "0", "--file", file, other, "--out", tmp_path / "o", case=CASE).status == 0


def test_heights_that_are_all_equal_need_a_spread(call, tmp_path):
    file, line = wave(tmp_path / "t.nc", factor=0.0), ["--withhold", "0", "--out", tmp_path / "o"]
    refused(call(*SHORT, *line, "--file", file, case=CASE), "all heights that are used are equal; .* with --std")
    file = wave(tmp_path / "cm.nc", factor=100.0)
    refused(call(*SHORT, *line, "--file", file, case=CASE), "the heights vary by .* m, no sea does: mend their units")


@pytest.mark.parametrize(("withhold", "said"), [("0", False), ("1000", True), ("5", True)])
def test_nothing_withheld_is_said(call, tmp_path, withhold, said):
    """All samples are within ten minutes: one pass."""
    lon = np.linspace(0, 3, 60)
    file = track_file(tmp_path / "t.nc", lon=lon, value=0.1 * np.sin(5 * lon), time=np.arange(60) / DAY)
    ended = call(*SHORT, "--withhold", withhold, "--file", file, "--out", tmp_path / "o", case=CASE)
    assert ended.status == 0
    assert ("nothing is withheld for verification: there are fewer than" in ended.out) == said
    assert "shows no skill" not in ended.out


@pytest.mark.parametrize("noise", [True, False])
def test_a_map_without_skill_is_called_so(call, tmp_path, noise):
    """Heights that do not hang together cannot be told from one another; a wave can."""
    lon = np.linspace(0, 3, 200)
    value = 0.1 * (np.random.default_rng(0).normal(size=200) if noise else np.sin(5 * lon))
    file = track_file(tmp_path / "t.nc", lon=lon, value=value, time=np.arange(200) / DAY)
    line = ["--section", "3e4", "--withhold", "4", "--sigma", "0.01", "--file", file, "--out", tmp_path / "o"]
    ended = call(*SHORT, *line, case=CASE)
    assert ended.status == 0
    assert ("optimal interpolation shows no skill: it is no nearer to withheld" in ended.out) == noise


@real
def test_a_pass_of_jason(call, tmp_path):
    """South of Cape Horn, where sections of 100 km can be told from their neighbours."""
    line = f"--reader jason_gdr --file {JASON} --box 291 332 -65 -45 --section 1e5 --out {tmp_path / 'o'}".split()
    ended = call(*SHORT, *line, "--withhold", "3", case=CASE)
    assert ended.status == 0
    assert "no skill" not in ended.out
    found = json.loads((tmp_path / "o" / "summary.json").read_text())["results"]
    assert found["observations"]["withheld"] > 100
    assert found["rms"]["withheld"]["oi"] < 0.6 * found["rms"]["withheld"]["climatology"]
