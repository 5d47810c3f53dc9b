"""Figures from small Datasets: what is drawn, how it is labelled, and files that are whole or absent."""

from itertools import pairwise

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from sciml import plot
from sciml.grid import Grid


@pytest.fixture(autouse=True)
def _no_figure_is_left():
    yield
    plt.close("all")


def field(times: int = 3, length: float = 8e5, units: str = "m") -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=(times, 2, 6, 8)) * 1e-5
    axis = lambda n, l: (np.arange(n) + 0.5) * l / n  # noqa: E731
    coords = {
        "time": ("time", 86400.0 * np.arange(times), {"units": "s" if units == "m" else "1"}),
        "lev": [1, 2],
        "y": ("y", axis(6, length / 2), {"units": units}),
        "x": ("x", axis(8, length), {"units": units}),
    }
    attrs = {"units": "s-1" if units == "m" else "1", "long_name": "potential vorticity anomaly"}
    return xr.DataArray(values, coords, ("time", "lev", "y", "x"), "q", attrs)


def diagnostics(members: int | None = None) -> xr.Dataset:
    """Spectra that peak at k[3] and fall as k^-9 after it; the last wavenumbers hold almost nothing."""
    k = np.arange(33) * 2e-5
    energy = np.where(k > 0, np.minimum((k / k[3]) ** 2, (np.maximum(k, 1e-9) / k[3]) ** -9), 0)
    energy[20:] *= 1e-12
    values = {
        "KEspec": (("lev", "k"), np.stack([energy, energy / 10]), {"units": "m3 s-2"}),
        "Ensspec": (("lev", "k"), np.stack([energy, energy / 10]) * 1e-8, {"units": "m s-2"}),
        "KEflux": ("k", np.sin(np.arange(33.0))),
        "APEgenspec": ("k", np.cos(np.arange(33.0))),
        "residual": ("k", np.zeros(33)),
        "EKE": ("lev", [1.0, 2.0]),
    }
    ds = xr.Dataset(values, {"k": ("k", k, {"units": "rad m-1"}), "lev": [1, 2]})
    if members is None:
        return ds
    with xr.set_options(keep_attrs=True):
        return xr.concat([ds * f for f in np.linspace(0.5, 1.5, members)], "member")


def labels(ax) -> tuple[str, str]:
    return ax.get_xlabel(), ax.get_ylabel()


@pytest.mark.parametrize(
    ("length", "units", "expected"),
    [(8e5, "m", ("x (km)", "y (km)")), (800.0, "m", ("x (m)", "y (m)")), (46.0, "1", ("x", "y"))],
)
def test_maps(length, units, expected):
    da = field(length=length, units=units).isel(time=0)
    figure = plot.maps(da, "a title")
    assert [ax.get_title() for ax in figure.axes] == ["layer 1", "layer 2"]
    assert figure.get_suptitle() == "a title"
    for ax, layer in zip(figure.axes, da, strict=True):
        assert labels(ax) == expected
        (mesh,) = ax.collections
        assert np.array_equal(mesh.get_array(), layer)
        assert mesh.norm.vmin == -mesh.norm.vmax
        assert 0 < mesh.norm.vmax <= np.abs(layer).max()
        assert "balance" in mesh.get_cmap().name
        (bar,) = ax.child_axes
        assert bar.get_ylabel() == ("q (s⁻¹)" if units == "m" else "q")
        scale = 1e-3 if length > 1e4 else 1
        assert ax.get_xlim() == pytest.approx((da.x.values[0] * scale, da.x.values[-1] * scale))
    assert plot.maps(da).get_suptitle() == "potential vorticity anomaly"


def test_map_of_nothing():
    """A field of zeros still has a colour scale."""
    figure = plot.maps(field().isel(time=0) * 0)
    assert figure.axes[0].collections[0].norm.vmax == 1


@pytest.mark.parametrize(
    ("units", "text"), [("m2 s-1", " (m² s⁻¹)"), ("rad m-1", " (rad m⁻¹)"), ("1", ""), ("m10 s-12", " (m¹⁰ s⁻¹²)")]
)
def test_unit(units, text):
    assert plot.unit(xr.DataArray(0, attrs={"units": units})) == text


@pytest.mark.parametrize("members", [None, 3])
def test_spectra(members):
    ds = diagnostics(members)
    figure = plot.spectra(ds)
    energy, enstrophy = figure.axes
    assert labels(energy) == ("wavenumber k (rad m⁻¹)", "kinetic energy (m³ s⁻²)")
    assert labels(enstrophy) == ("wavenumber k (rad m⁻¹)", "enstrophy ½q² (m s⁻²)")
    truth = diagnostics()
    k = truth["k"].values
    for ax, name in ((energy, "KEspec"), (enstrophy, "Ensspec")):
        lines = [line for line in ax.lines if not line.get_label().startswith("_")]
        assert [line.get_label() for line in lines] == ["layer 1", "layer 2"]
        for line, spectrum in zip(lines, truth[name].values, strict=True):
            assert np.array_equal(line.get_xdata(), k[1:])
            assert np.allclose(line.get_ydata(), spectrum[1:], rtol=1e-12)
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        assert ax.get_xlim() == pytest.approx((0.9 * k[1], 1.1 * k[19])), "up to the last visible energy"
        assert ax.get_ylim() == pytest.approx((float(truth[name].max()) * 1e-8, float(truth[name].max()) * 10))
    assert len(energy.lines) == 4
    assert len(enstrophy.lines) == 2
    assert [t.get_text() for t in energy.texts] == ["$k^{-3}$", "$k^{-5}$"]


def test_labels_do_not_overlap(tmp_path):
    """Along a wavenumber axis of less than two decades, where matplotlib labels every minor tick."""
    figure = plot.spectra(diagnostics())
    figure.draw_without_rendering()
    for ax in figure.axes:
        texts = [t for t in ax.get_xticklabels(which="both") if t.get_text() and t.get_visible()]
        boxes = [t.get_window_extent() for t in texts]
        left, right = ax.get_window_extent().intervalx
        inside = sorted((b.x0, b.x1) for b in boxes if left <= (b.x0 + b.x1) / 2 <= right)
        assert len(inside) >= 2
        assert all(a[1] < b[0] for a, b in pairwise(inside))


@pytest.mark.parametrize("slopes", [(-3.0, -5.0), (-5 / 3,)])
def test_slopes_are_exact_power_laws(slopes):
    k = np.arange(40) * 0.5
    spectrum = np.exp(-((k - 2) ** 2))
    _, ax = plt.subplots()
    ax.loglog(k[1:], spectrum[1:])
    plot.draw_slopes(ax, k, spectrum, slopes)
    for line, slope in zip(ax.lines[1:], slopes, strict=True):
        x, y = line.get_data()
        assert x.size > 3
        assert np.allclose(np.diff(np.log(y)) / np.diff(np.log(x)), slope, rtol=1e-12)
        assert y[0] == pytest.approx(2 * spectrum.max())
        assert x[0] > k[spectrum.argmax()]
        assert (y > np.interp(x, k, spectrum)).all(), "above the spectrum"


def test_no_slopes_where_there_is_no_room():
    _, ax = plt.subplots()
    plot.draw_slopes(ax, np.arange(4.0), np.array([0, 1, 2, 9.0]), (-3.0,))
    assert len(ax.lines) == 0


@pytest.mark.parametrize("members", [None, 3])
def test_budget(members):
    figure = plot.budget(diagnostics(members))
    (ax,) = figure.axes
    lines = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    assert list(lines) == ["KEflux", "APEgenspec", "residual"]
    truth = diagnostics()
    for name, line in lines.items():
        assert np.allclose(line.get_ydata(), (truth.k * truth[name])[1:20], rtol=1e-12)
        assert np.array_equal(line.get_xdata(), truth.k[1:20])
    assert lines["residual"].get_linestyle() == "--"
    assert labels(ax) == ("wavenumber k (rad m⁻¹)", "k × energy change per k (m² s⁻³)")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == list(lines)


def test_series():
    values = np.arange(6.0).reshape(3, 2)
    (ax,) = plot.series([0, 1, 2], values, ["layer 1", "layer 2"], "energy (m² s⁻²)").axes
    assert [line.get_label() for line in ax.lines] == ["layer 1", "layer 2"]
    assert [line.get_ydata().tolist() for line in ax.lines] == values.T.tolist()
    assert labels(ax) == ("time (days)", "energy (m² s⁻²)")
    with pytest.raises(ValueError):
        plot.series([0, 1, 2], values, ["layer 1"], "energy")


def test_save_is_whole_or_nothing(tmp_path):
    path = tmp_path / "pv.png"
    figure = plot.maps(field().isel(time=0))
    plot.save(figure, path)
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert len(np.unique(np.asarray(image.convert("RGB")), axis=None)) > 100, "a picture of something"
    assert not plt.fignum_exists(figure.number)
    before = path.read_bytes()
    broken = plot.series([0, 1], [[1.0], [2.0]], ["a"], "$\\frac{$")  # not mathematics: drawing fails
    with pytest.raises(ValueError):
        plot.save(broken, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["pv.png"]


@pytest.mark.parametrize("units", ["m", "1"])
def test_movie(tmp_path, units):
    plot.movie(field(4, units=units), tmp_path / "pv.gif", frames_per_second=10)
    with Image.open(tmp_path / "pv.gif") as image:
        assert (image.format, image.n_frames, image.info["duration"]) == ("GIF", 4, 100)
        frames = []
        for i in range(4):
            image.seek(i)
            whole = np.asarray(image.convert("RGB")).astype(int)
            frames.append(whole[whole.shape[0] // 4 :])  # below the title, which tells the time
    assert all(np.abs(a - b).max() > 50 for a, b in pairwise(frames)), "they differ"
    assert [p.name for p in tmp_path.iterdir()] == ["pv.gif"]
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("value", "units", "text"), [(86400.0, "s", "day 1.0"), (2.5, "1", "t = 2.5"), (31104000.0, "s", "day 360.0")]
)
def test_clock(value, units, text):
    assert plot.clock(xr.DataArray(value, attrs={"units": units})) == text


def test_spectra_of_analyses_show_what_is_blurred():
    """An analysis of half the amplitude has a quarter of the variance, and so has its error."""
    grid = Grid(16, 16, 1e6, 1e6)
    truth = grid.fft(torch.randn(3, 2, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    figure = plot.compared_spectra(grid, {"half": 0.5 * truth, "good": truth}, truth)
    above, below = figure.axes[0], figure.axes[2]
    half, good = above.get_lines()[:2]
    assert np.allclose(half.get_ydata(), 0.25)
    assert np.allclose(good.get_ydata(), 1)
    true, error = below.get_lines()[:2]
    assert np.allclose(error.get_ydata(), 0.25 * true.get_ydata())
    assert [t.get_text() for t in above.get_legend().get_texts()] == ["half", "good"]


def test_costs_name_every_method():
    results = {
        n: {"seconds_per_window": s, "psi": {"analysis": [e, 2 * e]}} for n, s, e in (("a", 0.1, 0.2), ("b", 1, 0.1))
    }
    figure = plot.costs(results, ["one", "two"], "error")
    for lev, ax in enumerate(figure.axes):
        assert [t.get_text().strip() for t in ax.texts] == ["a", "b"]
        assert [float(line.get_ydata()[0]) for line in ax.get_lines()] == pytest.approx(
            [0.2 * (lev + 1), 0.1 * (lev + 1)]
        )


def test_responses_are_scaled_one_by_one():
    grid = Grid(8, 8, 1e6, 1e6)
    fields = {"small": torch.full((2, 8, 8), -0.5), "large": torch.full((2, 8, 8), 10.0)}
    figure = plot.responses(grid, [{"fields": fields, "x": 2e5, "y": 7e5, "channel": "ssh"}])
    assert len(figure.axes) == 5, "and one bar"
    assert [ax.images[0].get_clim() for ax in figure.axes[:4]] == [(-1, 1)] * 4
    assert [float(ax.images[0].get_array().mean()) for ax in figure.axes[:2]] == [-1, 1]
    assert figure.axes[0].get_title() == "small"
    assert figure.axes[2].get_ylabel() == "ssh, layer 2\ny (km)"
    assert tuple(figure.axes[0].get_lines()[0].get_xydata()[0]) == (200, 700)


def test_pictures_need_no_screen():
    assert mpl.get_backend().lower() == "agg"


def test_maps_and_spectra_of_other_data_say_what_they_need():
    with pytest.raises(
        ValueError, match=r"maps are of \(\[lev,\] y, x\), the array is \(time, lev, y, x\): choose one"
    ):
        plot.maps(field())
    assert len(plot.maps(field().isel(time=0, lev=0, drop=True)).axes) == 1
    with pytest.raises(ValueError, match=r"no Ensspec, KEspec, k; spectra.from_dataset\(ds, eq\) makes them"):
        plot.spectra(field().to_dataset(name="q"))
