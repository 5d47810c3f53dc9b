"""Grids: transforms, derivatives, exact products, change of resolution, coordinates."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from sciml.grid import Grid, seconds
from tests.conftest import relative

SHAPES = [(16, 16), (15, 12), (12, 15), (9, 7), (32, 1), (1, 32), (5, 4)]
RULES = [1, 2 / 3, 3 / 2]
BOX = {"Lx": 3.0, "Ly": 0.7}


def random_modes(grid: Grid, rng: torch.Generator) -> torch.Tensor:
    """Coefficients of a real field with all kept modes excited."""
    return grid.fft(grid.ifft(grid.fft(torch.randn(*grid.shape, dtype=torch.float64, generator=rng)).to(grid.cdtype)))


def numpy_sum(grid: Grid, fh: torch.Tensor, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The Fourier series of the class's docstring, summed term by term at points (x, y)."""
    columns, rows = grid.modes
    f = np.zeros(np.broadcast(x, y).shape)
    for i in range(rows):
        l = 2 * math.pi / grid.Ly * (i if i <= (rows - 1) // 2 else i - rows)
        for j in range(columns):
            wave = fh[j, i].item() * np.exp(1j * (2 * math.pi / grid.Lx * j * (x - grid.x0) + l * (y - grid.y0)))
            f += (1 if j == 0 or 2 * j == grid.nx else 2) * wave.real
    return f


def smooth(x, y):
    """A few waves of the box BOX, no more than two periods across."""
    a, b = 2 * math.pi / BOX["Lx"], 2 * math.pi / BOX["Ly"]
    return torch.sin(a * x) * torch.cos(b * y - 0.3) + 0.5 * torch.cos(2 * a * x + b * y) + 0.2


# -- transforms ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dealias", RULES)
@pytest.mark.parametrize("shape", SHAPES)
def test_round_trip(shape, dealias, rng):
    grid = Grid(*shape, **BOX, dealias=dealias)
    fh = random_modes(grid, rng)
    assert tuple(fh.shape) == grid.modes
    assert relative(grid.fft(grid.ifft(fh)), fh) < 1e-14
    assert relative(grid.fft(grid.ifft(fh, grid.product_shape)), fh) < 1e-14
    f = torch.randn(3, *grid.shape, dtype=torch.float64, generator=rng)
    assert relative(grid.project(grid.project(f)), grid.project(f)) < 1e-14
    if dealias == 1 or (dealias == 3 / 2 and all(n % 2 for n in shape)):  # no mode is lost
        assert relative(grid.project(f), f) < 1e-14


@pytest.mark.parametrize("dealias", RULES)
@pytest.mark.parametrize("shape", SHAPES)
def test_coefficients_mean_what_the_docstring_says(shape, dealias, rng):
    grid = Grid(*shape, **BOX, dealias=dealias, x0=0.4, y0=-1.0)
    fh = random_modes(grid, rng)
    x, y = (a.numpy() for a in grid.axes())
    assert relative(grid.ifft(fh), numpy_sum(grid, fh, x, y)) < 1e-13


@pytest.mark.parametrize("dealias", RULES)
def test_spectra_do_not_depend_on_the_resolution(dealias):
    grids = [Grid(nx, ny, **BOX, dealias=dealias, x0=0.0, y0=0.0) for nx, ny in ((16, 12), (27, 20), (64, 33))]
    small, *others = (g.fft(smooth(*g.axes())) for g in grids)
    for other in others:
        assert relative(other[:4, :3], small[:4, :3]) < 1e-14
        assert relative(other[:4, -3:], small[:4, -3:]) < 1e-14
    coarse, fine = grids[0], grids[2]
    assert relative(coarse.fft(smooth(*fine.axes())), small) < 1e-14


@pytest.mark.parametrize("dealias", RULES)
@pytest.mark.parametrize("shape", [(16, 16), (15, 12), (12, 15), (32, 1)])
def test_mean_square_is_parseval(shape, dealias, rng):
    grid = Grid(*shape, **BOX, dealias=dealias)
    f = grid.project(torch.randn(2, *grid.shape, dtype=torch.float64, generator=rng))
    assert relative(grid.mean_square(grid.fft(f)), (f**2).mean((-2, -1))) < 1e-14


def test_transforms_refuse_the_wrong_number_of_points(rng):
    grid = Grid(32)
    with pytest.raises(ValueError, match="8 x 8 points cannot give 21 x 11 modes"):
        grid.fft(torch.zeros(8, 8, dtype=torch.float64))
    with pytest.raises(ValueError, match="16 x 16 points cannot hold"):
        grid.ifft(random_modes(grid, rng), (16, 16))


# -- derivatives -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dealias", RULES)
@pytest.mark.parametrize("shape", [(16, 16), (15, 24), (24, 15)])
def test_derivatives(shape, dealias):
    grid = Grid(*shape, **BOX, dealias=dealias)
    a, b = 2 * math.pi * 2 / grid.Lx, 2 * math.pi * 3 / grid.Ly
    x, y = grid.axes()
    fh = grid.fft(torch.sin(a * x + 0.2) * torch.cos(b * y - 0.5))
    sx, cx, sy, cy = torch.sin(a * x + 0.2), torch.cos(a * x + 0.2), torch.sin(b * y - 0.5), torch.cos(b * y - 0.5)
    assert relative(grid.ifft(grid.ik * fh), a * cx * cy) < 1e-12
    assert relative(grid.ifft(grid.il * fh), -b * sx * sy) < 1e-12
    assert relative(grid.ifft(-grid.K2 * fh), -(a**2 + b**2) * sx * cy) < 1e-12
    assert relative(grid.ifft(grid.invK2 * fh), sx * cy / (a**2 + b**2)) < 1e-12


@pytest.mark.parametrize(("shape", "axis"), [((8, 6), "x"), ((8, 6), "y"), ((6, 8), "y"), ((8, 1), "x")])
def test_the_nyquist_wave_has_no_derivative(shape, axis):
    grid = Grid(*shape, **BOX, dealias=1)
    zigzag = (-1.0) ** torch.arange(shape[0] if axis == "x" else shape[1], dtype=torch.float64)
    f = (zigzag[None, :] if axis == "x" else zigzag[:, None]).expand(grid.shape)
    fh = grid.fft(f)
    assert relative(grid.ifft(fh), f) < 1e-15
    assert torch.all((grid.ik if axis == "x" else grid.il) * fh == 0)
    k = math.pi / (grid.dx if axis == "x" else grid.dy)
    assert relative(grid.ifft(grid.K2 * fh), k**2 * f) < 1e-14


# -- products --------------------------------------------------------------------------------------------------------
def product_error(shape: tuple[int, int], dealias: float, rng: torch.Generator) -> float:
    """Error of a product against the same one formed by numpy on a grid four times as fine."""
    grid = Grid(*shape, **BOX, dealias=dealias)
    f, g = random_modes(grid, rng), random_modes(grid, rng)
    product = grid.fft(grid.ifft(f, grid.product_shape) * grid.ifft(g, grid.product_shape))
    my, mx = (grid.modes[1] - 1) // 2, grid.modes[0] - 1
    ny, nx = (4 * n for n in grid.shape)

    def on_fine(fh):
        full = np.zeros((ny, nx), complex)
        for l in range(-my, my + 1):
            for k in range(mx + 1):
                full[l, k], full[-l, -k] = fh[k, l], np.conj(fh[k, l])
        return np.fft.ifft2(full, norm="forward").real

    exact = np.fft.fft2(on_fine(f.numpy()) * on_fine(g.numpy()), norm="forward")
    kept = [exact[l, : mx + 1] for l in [*range(my + 1), *range(-my, 0)]]
    return relative(product, np.array(kept).T)


@pytest.mark.parametrize("dealias", [2 / 3, 3 / 2])
@pytest.mark.parametrize("shape", [(16, 16), (15, 12), (12, 15), (18, 21), (33, 1), (1, 16), (7, 5), (13, 10)])
def test_products_are_exact(shape, dealias, rng):
    assert product_error(shape, dealias, rng) < 1e-14


@pytest.mark.parametrize("shape", [(15, 15), (33, 1), (7, 5)])
def test_products_alias_without_dealiasing(shape, rng):
    assert product_error(shape, 1, rng) > 0.1


# -- other grids -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dealias", RULES)
@pytest.mark.parametrize("fine", [(32, 24), (33, 25), (17, 13)])
def test_coarsen_undoes_refine(dealias, fine, rng):
    coarse = Grid(13, 11, **BOX, dealias=1)  # odd: no Nyquist mode to lose
    fine = Grid(*fine, **BOX, dealias=dealias if fine[0] > 20 else 1)
    f = torch.randn(2, *coarse.shape, dtype=torch.float64, generator=rng)
    assert relative(fine.resample(coarse.resample(f, fine), coarse), f) < 1e-13


@pytest.mark.parametrize("origin", [{}, {"x0": 0.0, "y0": 0.0}, {"x0": -1.3, "y0": 0.21}])
@pytest.mark.parametrize(("nx", "ny"), [(16, 12), (40, 31), (9, 64)])
def test_resample_agrees_with_the_function(nx, ny, origin):
    here, there = Grid(18, 15, **BOX, dealias=1, x0=0.1), Grid(nx, ny, **BOX, dealias=1, **origin)
    assert relative(here.resample(smooth(*here.axes()), there), smooth(*there.axes())) < 1e-13


def test_resized():
    grid = Grid(12, 8, Lx=3.0, Ly=1.0)
    finer = grid.resized(24)
    assert finer.shape == (16, 24)
    assert (finer.Lx, finer.Ly, finer.x0, finer.y0) == (3.0, 1.0, 3.0 / 48, 1.0 / 32)
    corner = Grid(12, 8, x0=0.0, y0=0.0).resized(6, 5)
    assert (corner.shape, corner.x0, corner.y0) == ((5, 6), 0.0, 0.0)
    for nx in (16, 128):
        assert Grid(64, 1, Lx=2.0).resized(nx) == Grid(nx, 1, Lx=2.0, Ly=2.0 / 64)


@pytest.mark.parametrize("grid", [Grid(16, 12, **BOX), Grid(9, 1, Lx=2.0), Grid(8, 8, Lx=1e6, x0=0.0, y0=-5e5)])
def test_coords_round_trip(grid):
    ds = xr.Dataset({"f": (("y", "x"), np.zeros(grid.shape))}, coords=grid.coords("km"))
    assert Grid.from_coords(ds) == grid
    assert Grid.from_coords(ds.f, dealias=1).dealias == 1
    assert ds.x.attrs["units"] == "km"
    assert ds.x.attrs["axis"] == "X"


def test_period_attribute():
    grid = Grid(3, 7, Lx=1.0, Ly=0.3)  # n times the spacing is not the period to the last bit
    ds = xr.Dataset(coords=grid.coords())
    assert Grid.from_coords(ds).Lx == ds.x.attrs["period"] == 1.0
    every_other = xr.Dataset(coords=Grid(12, 8, Lx=3.0).coords()).isel(x=slice(None, None, 2))
    assert Grid.from_coords(every_other).nx == 6
    for c in "xy":
        del ds[c].attrs["period"]
    bare = Grid.from_coords(ds)
    assert (bare.Lx, bare.Ly) == pytest.approx((1.0, 0.3), rel=1e-14)


# -- what it refuses -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nx": 0}, "nx must be a positive whole number, got 0"),
        ({"nx": 8, "ny": -2}, "ny must be a positive whole number, got -2"),
        ({"nx": 8.5}, "nx must be a positive whole number, got 8.5"),
        ({"nx": 8, "Lx": -1.0}, "Lx and Ly must be positive lengths, got -1.0"),
        ({"nx": 8, "Ly": math.inf}, "positive lengths, got .* and inf"),
        ({"nx": 8, "Ly": math.nan}, "positive lengths, got .* and nan"),
        ({"nx": 8, "dealias": 0.5}, "dealias must be 1, 2/3 or 3/2, got 0.5"),
        ({"nx": 8, "dtype": torch.float16}, "dtype must be .* got torch.float16"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Grid(**options)


def test_bad_coordinates():
    ds = xr.Dataset(coords=Grid(8, 6).coords())
    with pytest.raises(ValueError, match=r"no coordinate 'x' in the data set; it has \['y'\]"):
        Grid.from_coords(ds.drop_vars("x"))
    with pytest.raises(ValueError, match="coordinate 'y' is not evenly spaced"):
        Grid.from_coords(ds.assign_coords(y=ds.y.values**2))
    with pytest.raises(ValueError, match=r"coordinate 'x' covers 3.14159 of its period 6.28319"):
        Grid.from_coords(ds.isel(x=slice(0, 4)))
    one = xr.Dataset(coords={"x": [0.0, 1.0], "y": [0.5]})
    with pytest.raises(ValueError, match="'y' has one point and no attribute 'period'"):
        Grid.from_coords(one)
    with pytest.raises(ValueError, match=r"different boxes: 1.0 x 1.0 and 2.0 x 1.0"):
        Grid(8, Lx=1.0).resample(torch.zeros(8, 8), Grid(8, Lx=2.0, Ly=1.0))


# -- types and thin boxes --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dealias", RULES)
def test_float32_stays_float32(dealias):
    grid = Grid(12, 8, **BOX, dealias=dealias, dtype=torch.float32)
    f = smooth(*grid.axes())
    fh = grid.fft(f)
    double = Grid(12, 8, **BOX, dealias=dealias)
    assert (f.dtype, fh.dtype, grid.ifft(fh).dtype) == (torch.float32, torch.complex64, torch.float32)
    assert grid.resample(f, grid.resized(24)).dtype == torch.float32
    assert grid.complex(grid.ik).dtype == torch.complex64
    assert grid.k.dtype == torch.float64  # wavenumbers keep their digits until they are used
    assert relative(grid.ifft(fh), double.ifft(double.fft(smooth(*double.axes())))) < 1e-6


def test_one_dimension():
    grid = Grid(32, 1, Lx=2.0)
    assert grid.shape == (1, 32)
    assert grid.modes == (11, 1)
    assert grid.product_shape == (1, 32)
    assert Grid(32, 1, dealias=3 / 2).product_shape == (1, 48)
    f = torch.sin(math.pi * grid.x)
    assert relative(grid.ifft(grid.ik * grid.fft(f)), math.pi * torch.cos(math.pi * grid.x)) < 1e-14
    assert torch.all(grid.il == 0)


def test_points_and_defaults():
    grid = Grid(8, 4, Lx=2.0)
    assert (grid.Ly, grid.dx, grid.dy) == (1.0, 0.25, 0.25)
    assert grid.x[0].tolist() == [0.125 + 0.25 * i for i in range(8)]
    assert grid.y[:, 0].tolist() == [0.125 + 0.25 * i for i in range(4)]
    assert Grid(8.0) == Grid(8, 8)
    assert type(Grid(8.0).nx) is int
    with pytest.raises(AttributeError):
        grid.nx = 4


@pytest.mark.parametrize(("units", "span"), [
    ("seconds since 0001-01-01", 1.0), ("days since 2001-01-01", 86400.0), ("h", 3600.0), ("Minutes", 60.0), ("1", 1.0),
])  # fmt: skip
def test_times_in_seconds(units, span):
    ds = xr.Dataset(coords={"time": ("time", [1.0, 3.0], {"units": units})})
    assert seconds(ds).tolist() == [span, 3 * span]


@pytest.mark.parametrize("calendar", ["standard", "360_day"])
def test_dates_in_seconds(calendar):
    attrs = {"units": "days since 2001-02-28", "calendar": calendar}
    ds = xr.decode_cf(xr.Dataset(coords={"time": ("time", [0.0, 3.0], attrs)}))
    assert seconds(ds).tolist() == [0.0, 3 * 86400.0]


def test_unknown_times_are_refused():
    with pytest.raises(ValueError, match="no coordinate 'time'"):
        seconds(xr.Dataset(coords={"x": [1.0]}))
    with pytest.raises(ValueError, match="the times are in 'months'"):
        seconds(xr.Dataset(coords={"time": ("time", [1.0], {"units": "months since 2001-01-01"})}))
