"""Files that others made: ranges of valid values."""

import netCDF4
import numpy as np
import pytest

from sciml import readers
from sciml.observations import QC, names

LIMITS = [{"valid_min": np.int16(-10), "valid_max": np.int16(10)}, {"valid_range": np.array([-10, 10], np.int16)},
          {"valid_max": np.float64(0.1)}]  # fmt: skip


@pytest.mark.parametrize("limits", LIMITS)
def test_values_outside_the_range_that_a_file_states_are_missing(limits, tmp_path):
    """Stored numbers -5, 10 and 11 hundredths; limits of floating point are of the unpacked ones."""
    with netCDF4.Dataset(tmp_path / "r.nc", "w") as file:
        file.createDimension("time", 3)
        for name, kind, values, attrs in (
            ("time", "f8", [0.0, 1.0, 2.0], {"units": "seconds since 2002-01-01", "standard_name": "time"}),
            ("lon", "f8", [0.0, 1.0, 2.0], {"standard_name": "longitude"}),
            ("lat", "f8", [0.0, 1.0, 2.0], {"standard_name": "latitude"}),
            ("h", "i2", [-5, 10, 11], {"units": "m", "scale_factor": 0.01} | limits),
        ):
            v = file.createVariable(name, kind, ("time",))
            v.setncatts(attrs)
            v.set_auto_maskandscale(False)
            v[:] = np.array(values, v.dtype)
    obs = readers.cf(tmp_path / "r.nc", "h", 0.1)
    assert obs["qc"].values.tolist() == [0, 0, QC["missing"]]
    np.testing.assert_allclose(obs["value"][:2], [-0.05, 0.1])


def a_file(path, dims: dict, **variables):
    """A netCDF file of variables ``(dimensions, kind, values, attributes)``."""
    with netCDF4.Dataset(path, "w") as file:
        for name, n in dims.items():
            file.createDimension(name, n)
        for name, (own, kind, values, attrs) in variables.items():
            v = file.createVariable(name, kind, own, fill_value=False)
            v.set_auto_maskandscale(False)
            v.setncatts(attrs)
            v[:] = np.broadcast_to(values, v.shape)
    return path


TRACK = {
    "time": (("time",), "f8", np.arange(3.0), {"units": "seconds since 2002-01-01", "standard_name": "time"}),
    "lon": (("time",), "f8", np.arange(3.0), {"units": "degrees_east"}),
    "lat": (("time",), "f8", np.arange(3.0), {"units": "degrees_north"}),
    "h": (("time",), "f8", np.arange(3.0), {"units": "m"}),
}


def test_numbers_that_are_not_what_they_seem_are_refused(tmp_path):
    p, one = tmp_path / "f.nc", {"time": 3}
    cm = TRACK | {"err": (("time",), "f8", 3.0, {"units": "cm"})}
    with pytest.raises(ValueError, match="err is in 'cm', h in 'm': give units"):
        readers.cf(a_file(p, one, **cm), "h", "err")
    assert readers.cf(p, "h", "err", units="m")["sigma"].values == pytest.approx([0.03] * 3)
    deep = TRACK | {"h": (("time", "depth"), "f8", np.arange(6.0).reshape(3, 2), {"units": "m"})}
    with pytest.raises(ValueError, match="h has several values at each time and place, along depth"):
        readers.cf(a_file(p, one | {"depth": 2}, **deep), "h", 0.1)
    turned = TRACK | {"lon": (("time",), "f8", 0.1, {"units": "radian", "standard_name": "longitude"})}
    with pytest.raises(ValueError, match="lon is in radians"):
        readers.cf(a_file(p, one, **turned), "h", 0.1)


def test_unsigned_numbers_and_single_precision_keep_to_their_ranges(tmp_path):
    p, attrs = tmp_path / "f.nc", {"units": "m", "scale_factor": 1.0, "_Unsigned": "true"}
    unsigned = TRACK | {"h": (("time",), "i2", np.array([5, -36, -2], "i2"), attrs | {"valid_max": np.int16(-6)})}
    obs = readers.cf(a_file(p, {"time": 3}, **unsigned), "h", 0.1)  # 5, 65500 and 65534, at most 65530
    assert (obs["qc"].values == QC["missing"]).tolist() == [False, False, True]
    single = TRACK | {"h": (("time",), "f4", np.float32(0.1), {"units": "m", "valid_max": np.float64(0.1)})}
    assert (readers.cf(a_file(p, {"time": 3}, **single), "h", 0.1)["qc"].values == 0).all()


def test_what_the_library_fills_with_is_a_measurement_beside_another_fill_value(tmp_path):
    p, attrs = tmp_path / "f.nc", {"units": "m", "scale_factor": 0.001}
    h = (("time",), "i2", np.array([-32767, -32768, 5], "i2"))
    obs = readers.cf(a_file(p, {"time": 3}, **TRACK | {"h": (*h, attrs | {"_FillValue": np.int16(-32768)})}), "h", 0.1)
    assert (obs["qc"].values == QC["missing"]).tolist() == [False, True, False]
    obs = readers.cf(a_file(p, {"time": 3}, **TRACK | {"h": (*h, attrs)}), "h", 0.1)
    assert (obs["qc"].values == QC["missing"]).tolist() == [True, True, False], "the ends of the range, too"


def test_a_last_date_that_no_nanosecond_holds(tmp_path):
    """Of year 2869: that one is missing, without a warning, and the others stay."""
    days = ("time",), "f8", np.array([18000.0, 18000.5, 9e5]), {"units": "days since 1970-01-01"}
    track = {n: (v[0], v[1], v[2], v[3]) for n, v in TRACK.items()} | {"time": (*days[:3], TRACK["time"][3] | days[3])}
    h = {"h": (("time",), "f8", np.array([0.1, 0.2, 0.3]), {"units": "m"})}
    obs = readers.cf(a_file(tmp_path / "f.nc", {"time": 3}, **track | h), "h", 0.1)
    assert (obs["qc"].values == QC["missing"]).tolist() == [False, False, True]
    track["time"] = (("time",), "f8", np.full(3, 9e5), days[3])
    with pytest.raises(ValueError, match="the times are no dates"):
        readers.cf(a_file(tmp_path / "g.nc", {"time": 3}, **track | h), "h", 0.1)


def test_rows_of_drifters_whatever_their_dimension_is_called(tmp_path):
    two = {n: (("ID", "time"), "f8", np.tile(v[2], (2, 1)), v[3]) for n, v in TRACK.items()}
    name = {"ID": (("ID",), "i4", np.array([7, 9], "i4"), {"cf_role": "trajectory_id"})}
    obs = readers.cf(a_file(tmp_path / "f.nc", {"ID": 2, "time": 3}, **two | name), "h", 0.1)
    assert names(obs, "platform") == ["trajectory_0", "trajectory_1"]
    assert obs["platform"].values.tolist() == [0, 0, 0, 1, 1, 1]
    assert (obs["qc"].values == 0).all()
