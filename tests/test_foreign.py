"""Files that others made: ranges of valid values."""

import netCDF4
import numpy as np
import pytest

from sciml import readers
from sciml.observations import QC

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
