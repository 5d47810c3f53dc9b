"""The mapping case: synthetic tracks, real ones, refusals."""

import json

import numpy as np
import pytest
import xarray as xr

from tests.case_fixtures import refused
from tests.test_readers import JASON, real, track_file

CASE = "altimetry_map"
SHORT = "--method oi --points 12".split()


@pytest.mark.parametrize(("arguments", "message"), [
    (["--reader", "cf"], "--reader cf needs --variable and --sigma"),
    (["--box", "0", "90", "30", "40"], "at most 60 degrees apart"),
    (["--box", "-3", "3", "-3", "3", "--method", "4dvar"], "too near the equator|only 0 heights"),
    (["--withhold", "1"], "--withhold must be 0 or at least 2"),
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


@real
def test_a_pass_of_jason(call, tmp_path):
    line = f"--reader jason_gdr --file {JASON} --section 1.5e5 --box 260 285 -30 -5 --out {tmp_path / 'o'}".split()
    assert call(*SHORT, *line, case=CASE).status == 0
    found = json.loads((tmp_path / "o" / "summary.json").read_text())["results"]
    assert found["observations"]["withheld"] > 20
    assert found["rms"]["withheld"]["oi"] < 1.2 * found["rms"]["withheld"]["climatology"]
