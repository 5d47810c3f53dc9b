"""Against numbers of pyqg 0.7.2: golden fields, and the reference values of pyqg's own tests."""

import math

import pytest
import torch
import xarray as xr

from sciml import LayeredQG, TwoLayerQG, ab3, rollout
from sciml.equation import SurfaceQG
from sciml.equation.base import apply
from sciml.grid import Grid
from sciml.initial import vortex_pair
from sciml.spectra import energy_budget
from tests.conftest import ROOT, relative

GOLDEN = ROOT / "tests" / "data" / "pyqg_eddy64_golden.nc"
YEAR = 360 * 86400.0


@pytest.mark.parametrize(
    ("dtype", "limits"),
    [(torch.float64, {1: 1e-11, 10: 1e-11, 100: 1e-11, 1000: 1e-8}), (torch.float32, {1: 1e-5, 1000: 1e-2})],
)
def test_pyqg_fields(dtype, limits):
    with xr.open_dataset(GOLDEN) as ds:
        golden = {int(n): torch.as_tensor(ds["q"].sel(step=n).values) for n in ds["step"].values}
    step = ab3(TwoLayerQG.preset("eddy", 64, dtype=dtype), 7200.0)
    state = step.init(golden[0])
    for n in range(1, 1001):
        state = step(state)
        if n in limits:
            assert step.read(state).dtype == dtype
            assert relative(step.read(state), golden[n]) < limits[n], f"after {n} steps"


def test_pyqg_two_layer_reference_run():
    """pyqg's test_model: 3 years at 32^2, all diagnostics averaged over every step of the last two, within 1 %."""
    grid = Grid(32, Lx=1e6, dealias=1.0)
    eq = TwoLayerQG(grid=grid, beta=1.5e-11, rek=5.787e-7, rd=30e3, delta=0.25, U1=0.05, filterfac=18.4)
    x, y = grid.axes()
    q1 = 1e-6 * torch.cos(2 * math.pi * 5 * x / grid.Lx) + 1e-7 * torch.cos(2 * math.pi * 5 * y / grid.Ly)
    run = rollout(ab3(eq, 12800.0), round(3 * YEAR / 12800), save=lambda s: s.z)
    z = run(torch.stack([q1, torch.zeros_like(q1)])).fields
    q = eq.read(z[-1])
    assert float((q[0] ** 2).sum()) == pytest.approx(9.561430503712755e-08, rel=0.01)
    late = z[2431:].split(500)
    budget = [energy_budget(eq, part) for part in late]
    mean = {n: torch.cat([b[n] for b in budget]).mean(0) for n in budget[0]}
    kinetic = sum((grid.weight * grid.K2 * eq.psi(part).abs() ** 2).sum((0, 2, 3)) for part in late) / len(z[2431:])
    mixed = sum(grid.weight * (eq.fraction[:, None, None] * part).sum(-3).abs() ** 2 for part in z[2431:]) / len(
        z[2431:]
    )
    assert kinetic.tolist() == pytest.approx([2 * 0.00818377631732826, 2 * 0.00015616609033468579], rel=0.01)
    assert float(mean["APEgenspec"].sum()) == pytest.approx(2.52256e-7 / 32**2, rel=0.01)
    assert float(-mean["KEfrictionspec"].sum()) == pytest.approx(1.48068e-7 / 32**2, rel=0.01)
    assert float(mixed.sum()) == pytest.approx(1.50160e-6 / 32**4, rel=0.01)
    published = {"APEflux": 1.78895e-4, "KEflux": 3.70678e-4, "APEgenspec": 2.58377e-4}
    for name, value in published.items():
        assert float(mean[name].abs().sum()) == pytest.approx(value / 32**4, rel=0.01), name


def test_pyqg_vortex_merger_barotropic():
    eq = LayeredQG(grid=Grid(64, Lx=2 * math.pi, dealias=1.0), filterfac=23.6)
    before, q = rollout(ab3(eq, 0.0025), 2000)(vortex_pair(eq)).fields[-2:]
    z = eq.init(before)  # pyqg's psi is one step behind its q
    assert float(eq.energy(z)) == pytest.approx(0.9950360837, rel=1e-9)
    assert float((q**2).sum()) == pytest.approx(89101.7412, rel=1e-8)
    assert float((eq.grid.ifft(eq.psi(z)) ** 2).sum()) == pytest.approx(1493.21766, rel=1e-8)


def test_pyqg_vortex_merger_surface():
    grid = Grid(64, Lx=2 * math.pi, dealias=1.0)
    eq = SurfaceQG(grid=grid, filterfac=23.6)
    barotropic = LayeredQG(grid=grid, filterfac=23.6)
    start = barotropic.psi(barotropic.init(vortex_pair(barotropic))) * grid.K2.sqrt()
    before, b = rollout(ab3(eq, 0.0025), 2000)(eq.read(start)).fields[-2:]
    psi = apply(eq.diagnostic["psi"][None], eq.init(before))
    assert float(grid.mean_square(grid.K2.sqrt() * psi)[0] / 2) == pytest.approx(0.957949383, rel=1e-4)
    assert float((b**2).sum()) == pytest.approx(7847.51696, rel=1e-4)
    assert float((grid.ifft(psi) ** 2).sum()) == pytest.approx(1346.88742, rel=1e-4)
