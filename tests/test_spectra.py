"""Spectra: Parseval, known waves, published fluxes, Datasets; time means over a run close the budget."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from sciml import Grid, LayeredQG, TwoLayerQG, ab3, random_pv, rollout, spectra, to_dataset
from sciml.equation.base import Term
from sciml.equation.expression import parse
from sciml.record import Means
from sciml.spectra import budget_names, dataset, diagnostics, energy_budget, isotropic, residual


def eddies(eq, seed=0, members=None):
    """PV of smooth eddies in both layers."""
    upper = random_pv(eq, seed, members, speed=0.3, scale=2e5)
    return upper + 0.1 * random_pv(eq, seed + 1, members, speed=0.3, scale=2e5).flip(-3)


@pytest.mark.parametrize("dealias", [1, 2 / 3, 3 / 2])
@pytest.mark.parametrize("size", [(32, 32), (33, 40), (24, 60)])
def test_spectra_integrate_to_the_domain_mean(size, dealias):
    eq = TwoLayerQG(grid=Grid(*size, Lx=1e6, Ly=1.4e6, dealias=dealias), rd=15e3, delta=0.25)
    z = eq.init(eddies(eq, members=2))
    d = diagnostics(eq, z)
    k = isotropic(eq.grid, torch.zeros(eq.grid.modes))[0]
    u, v = eq.velocity(z)
    kinetic = 0.5 * (u**2 + v**2).mean((-2, -1))
    assert torch.allclose(d["KEspec"].sum(-1) * k[1], kinetic, rtol=1e-12, atol=0)
    assert torch.allclose(d["EKE"], kinetic, rtol=1e-12, atol=0)
    enstrophy = 0.5 * (eq.read(z) ** 2).mean((-2, -1))
    assert torch.allclose(d["Ensspec"].sum(-1) * k[1], enstrophy, rtol=1e-12, atol=0)
    psi = eq.grid.ifft(eq.psi(z))
    F1 = 15e3**-2 / 1.25
    potential = 0.5 * F1 * 0.2 * ((psi[:, 0] - psi[:, 1]) ** 2).mean((-2, -1))
    assert torch.allclose(d["APEspec"].sum(-1) * k[1], potential, rtol=1e-10, atol=0)


def test_one_wave_lands_in_its_ring():
    grid = Grid(32, 24, Lx=2 * math.pi, Ly=2 * math.pi)
    x, y = grid.axes()
    eq = LayeredQG(grid=grid)
    d = diagnostics(eq, eq.pv((torch.cos(3 * x + 4 * y))[None]))
    expected = np.zeros(d["KEspec"].shape[-1])
    expected[5] = 0.25 * 25  # 1/2 K^2 <psi^2> at K = 5, rings of width 1
    assert d["KEspec"][0].numpy() == pytest.approx(expected, abs=1e-12)
    assert d["Ensspec"][0].numpy() == pytest.approx(expected * 25, abs=1e-10)


def test_published_fluxes():
    """GeophysicalFlows.jl: a jet sech^2(y / 0.2) and two waves; lateral flux 0.00626267 and 0, vertical -0.196539.

    Both are means of products at points; together they are what the budget calls generation."""
    grid = Grid(128, 126, Lx=2 * math.pi, Ly=2 * math.pi, x0=-math.pi, y0=-math.pi)
    x, y = grid.axes()
    U1 = 1 / torch.cosh(y / 0.2) ** 2
    eq = LayeredQG(grid=grid, H=(0.2, 0.8), gprime=(0.2,), f0=1.0, U=(U1[:, 0], 0.0))
    psi = torch.stack([torch.cos(x) * torch.cos(y) + torch.sin(x), torch.cos(x + math.pi / 10) * torch.cos(y)])
    z = eq.pv(psi)
    u, v = eq.velocity(z)
    u_y = grid.ifft(grid.complex(grid.il) * grid.fft(u))
    lateral = float(0.2 * (U1 * v[0] * u_y[0]).mean())  # H_1/H <U v u_y>
    vertical = float(eq.S[0, 1] * 0.2 * (U1 * v[1] * psi[0]).mean())  # F_1 H_1/H <(U_1 - U_2) v_2 psi_1>
    assert lateral == pytest.approx(0.00626267, rel=1e-6)
    assert vertical == pytest.approx(-0.196539, rel=3e-6)
    assert float(energy_budget(eq, z)["APEgenspec"].sum()) == pytest.approx(lateral + vertical, rel=1e-8)


def test_generation_of_a_uniform_shear():
    """APE generation is rd^-2 delta_1 delta_2 Us <psi_1 d_x psi_2>."""
    eq = TwoLayerQG.preset("eddy", 32)
    z = eq.init(eddies(eq))
    psi1, _ = eq.grid.ifft(eq.psi(z))
    v2 = eq.velocity(z)[1][1]
    expected = 15e3**-2 * 0.2 * 0.8 * 0.025 * float((psi1 * v2).mean())
    assert float(diagnostics(eq, z)["APEgen"]) == pytest.approx(expected, rel=1e-8)
    drag = 5.787e-7 * 0.8 * float((eq.velocity(z)[0][1] ** 2 + v2**2).mean())
    assert float(diagnostics(eq, z)["EKEdiss"]) == pytest.approx(drag, rel=1e-10)


def test_time_mean_budget_of_a_run_closes():
    """Averaged over every step, the residual is the stepper's error only: a hundredth of the largest term at dt, and
    four times less at half of it."""

    def rms(dt, n):
        eq = TwoLayerQG.preset("phillips", 32, rek=1e-6)
        step = ab3(eq, dt)
        spun = rollout(step, 40 * n, every=40 * n)(random_pv(eq, seed=0, speed=0.02)).state
        means = Means()
        means = means.plus(diagnostics(eq, spun.z, dt))
        state = spun
        for _ in range(20 * n):
            state = step(state)
            means = means.plus(diagnostics(eq, state.z, dt))
        mean = means.mean()
        left = residual(eq, mean, means.first, means.last, 20 * n * dt)
        largest = max(float(mean[name].abs().max()) for name in budget_names(mean))
        return float(left.abs().max()) / largest

    coarse, fine = rms(3600.0, 4), rms(1800.0, 8)
    assert coarse < 0.05
    assert fine < 0.6 * coarse


def test_from_a_dataset_equals_from_the_model():
    eq = TwoLayerQG.preset("eddy", 32)
    trajectory = rollout(ab3(eq, 7200.0), 30, every=10)(random_pv(eq, seed=0, members=2))
    ds = spectra.from_dataset(to_dataset(trajectory, eq), eq, 7200.0)
    each = [diagnostics(eq, eq.init(q), 7200.0) for q in trajectory.fields]
    for name in ("KEspec", "APEflux", "filter", "EKE"):
        expected = sum(d[name] for d in each) / len(each)
        assert np.allclose(ds[name].values, expected.numpy(), rtol=1e-10, atol=0)
    assert ds["KEspec"].dims == ("member", "lev", "k")
    assert ds["KEspec"].attrs["units"] == "m3 s-2"
    assert ds["k"].attrs["units"] == "rad m-1"


def test_further_terms_appear_under_their_own_names():
    eq = TwoLayerQG.preset("eddy", 16) + Term("q2", "found", parse("-1e-7*lap(psi2)"))
    d = diagnostics(eq, eq.init(random_pv(eq, seed=0)))
    assert "found" in dataset(eq, d)
    assert "found" in budget_names(d)


def test_residual_from_a_dataset():
    """The change of energy between first and last record less the mean terms, also with decoded times."""
    eq = TwoLayerQG.preset("phillips", 32, rek=1e-6)
    trajectory = rollout(ab3(eq, 1800.0), 40)(eddies(eq))
    ds = to_dataset(trajectory, eq)
    found = spectra.from_dataset(ds, eq, 1800.0)
    largest = max(float(abs(found[n]).max()) for n in budget_names(map(str, found.data_vars)))
    assert float(abs(found["residual"]).max()) < 0.05 * largest
    decoded = spectra.from_dataset(xr.decode_cf(ds), eq, 1800.0)
    assert np.allclose(decoded["residual"], found["residual"], rtol=1e-9, atol=1e-12 * largest)
    with pytest.warns(UserWarning, match="without dt"):
        assert "filter" not in spectra.from_dataset(ds, eq)
    with pytest.raises(ValueError, match="covers a box"):
        spectra.from_dataset(ds, TwoLayerQG.preset("phillips", 32, Lx=2e6), 1800.0)


def test_terms_of_time_are_budgeted_at_their_time():
    eq = TwoLayerQG.preset("eddy", 16) + Term("q1", "pump", "-1e-14*t*q1")
    z = eq.init(eddies(eq))
    early, late = (diagnostics(eq, z, 7200.0, t)["pump"] for t in (1e6, 3e6))
    assert torch.allclose(late, 3 * early, rtol=1e-12, atol=0)
    assert float(early.abs().max()) > 0
