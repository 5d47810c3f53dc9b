"""Published files of operator learning: small files of the same formats, and files that are not."""

import numpy as np
import pytest
from scipy.io import savemat

from sciml.operator_data import Flow, flow_samples
from sciml.operator_files import read_darcy, read_navier_stokes, read_pipe
from tests.conftest import ROOT

NEW = ROOT / "tests" / "data" / "matlab73.mat"
"""Written by h5py as MATLAB 7.3 does: 512 bytes before the HDF5, axes reversed, dimensions without names."""


@pytest.fixture
def darcy_file(tmp_path):
    a = np.arange(50.0).reshape(2, 5, 5)
    savemat(tmp_path / "old.mat", {"coeff": a, "sol": -a, "Kcoeff": a})
    return tmp_path / "old.mat"


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_darcy_of_both_formats(darcy_file, stride):
    expected = np.arange(50.0).reshape(2, 5, 5)[:, ::stride, ::stride]
    for path in (darcy_file, NEW):
        ds = read_darcy(path, stride)
        assert ds["a"].dims == ds["u"].dims == ("sample", "y", "x")
        assert ds["a"].dtype == np.float32
        np.testing.assert_array_equal(ds["a"], expected)
        np.testing.assert_array_equal(ds["u"], -expected)
        np.testing.assert_allclose(ds["x"], np.linspace(0, 1, 5)[::stride])


def test_other_names(darcy_file):
    np.testing.assert_array_equal(read_darcy(darcy_file, names=("Kcoeff", "sol"))["a"], read_darcy(darcy_file)["a"])


@pytest.mark.parametrize("with_times", [True, False])
def test_navier_stokes_is_what_was_written(tmp_path, with_times):
    ds = flow_samples([0, 1], Flow(nu=1e-2, records=2, points=8, fine=16))
    w = ds["omega"].transpose("sample", "x", "y", "time").values
    times = {"t": np.array([[1.0, 2.0]])} if with_times else {}
    savemat(tmp_path / "ns.mat", {"a": w[..., 0], "u": w[..., 1:], **times})
    found = read_navier_stokes(tmp_path / "ns.mat")
    np.testing.assert_array_equal(found["omega"], ds["omega"])
    for name in ("time", "y", "x"):
        np.testing.assert_allclose(found[name], ds[name])
    assert found["x"].attrs["period"] == 1


def pipe(folder, **other):
    data = {
        "X": np.random.default_rng(0).random((3, 5, 4)),
        "Y": np.ones((3, 5, 4)),
        "Q": np.ones((3, 2, 5, 4)),
        **other,
    }
    for name, values in data.items():
        np.save(folder / f"Pipe_{name}.npy", values)
    return data


def test_pipe(tmp_path):
    data = pipe(tmp_path)
    ds = read_pipe(tmp_path)
    assert dict(ds.sizes) == {"sample": 3, "i": 5, "j": 4, "component": 2}
    np.testing.assert_allclose(ds["mesh_x"], data["X"], rtol=1e-6)
    pipe(tmp_path, Q=np.ones((3, 5, 4)))
    assert read_pipe(tmp_path)["q"].shape == (3, 1, 5, 4)


# -- wrong files -----------------------------------------------------------------------------------------------------
def test_wrong_matlab_files_are_refused(darcy_file, tmp_path):
    cut, other, bad, text = (tmp_path / f"{n}.mat" for n in ("cut", "other", "bad", "text"))
    cut.write_bytes(NEW.read_bytes()[:1500])
    savemat(other, {"x": np.ones(3)})
    savemat(bad, {"coeff": np.ones((2, 5, 5)), "sol": np.ones((2, 5, 4)), "a": np.ones((2, 5, 5)), "u": np.ones(4)})
    text.write_text("no MATLAB at all, but long enough to look like something " * 9)
    for path, message in (
        (tmp_path / "none.mat", "no file"),
        (cut, "damaged or no MATLAB"),
        (text, "damaged or no MATLAB"),
        (other, "no variable 'coeff'"),
        (bad, "do not agree"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            read_darcy(path)
        assert "\n" not in str(error.value)
        assert path.name in str(error.value)
    with pytest.raises(ValueError, match="without the last wall: stride must divide 4"):
        read_darcy(darcy_file, 3)
    with pytest.raises(ValueError, match="stride must be at least 1"):
        read_darcy(darcy_file, 0)
    with pytest.raises(ValueError, match="'u' should be numbers with 4 axes"):
        read_navier_stokes(bad)
    with pytest.raises(ValueError, match="no variable 'a'"):
        read_navier_stokes(darcy_file)


def test_wrong_pipe_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no file .*Pipe_X\.npy"):
        read_pipe(tmp_path)
    pipe(tmp_path, Q=np.ones((3, 2, 4, 4)))
    with pytest.raises(ValueError, match="do not agree"):
        read_pipe(tmp_path)
    (tmp_path / "Pipe_Y.npy").write_bytes(b"\x93NUMPY and then nothing")
    with pytest.raises(ValueError, match=r"Pipe_Y\.npy is damaged or no NumPy file"):
        read_pipe(tmp_path)
