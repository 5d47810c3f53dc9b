"""Invariants of unforced inviscid flow, and closure of the energy budget with everything switched on."""

import math

import pytest
import torch

from sciml import Grid, LayeredQG, State, random_pv, rk4
from sciml.spectra import energy_budget, isotropic
from sciml.step import euler

STRATIFICATIONS = {
    1: dict(H=(1.0,), f0=1.0),
    2: dict(H=(0.2, 0.8), gprime=(0.5,), f0=1.0),
    3: dict(H=(0.2, 0.3, 0.5), gprime=(0.5, 0.7), f0=1.0),
}


def turbulence(eq, scale=2.0):
    """PV of independent random eddies of unit speed in every layer."""
    one = LayeredQG(grid=eq.grid)
    psi = torch.cat([eq.grid.ifft(one.psi(one.init(random_pv(one, s, speed=1.0, scale=scale)))) for s in range(eq.n)])
    return eq.read(eq.pv(psi))


def drift(eq, invariant, dt=2e-3, steps=1000, scale=2.0):
    """Relative change of the invariant over the run, and how far the field itself has moved."""
    step = rk4(eq, dt)
    start = state = step.init(turbulence(eq, scale))
    for _ in range(steps):
        state = step(state)
    change = float((state.z - start.z).abs().max() / start.z.abs().max())
    before, after = invariant(start.z), invariant(state.z)
    return float(((after - before).abs() / before.abs()).max()), change


@pytest.mark.parametrize("dealias", [2 / 3, 3 / 2])
@pytest.mark.parametrize("n", STRATIFICATIONS)
def test_energy_and_enstrophy_of_every_layer(n, dealias):
    """U = 0 and beta = 0: energy and every <q_i^2> are conserved while the field turns over completely."""
    eq = LayeredQG(grid=Grid(24, 20, dealias=dealias, Ly=2 * math.pi), **STRATIFICATIONS[n])
    change, moved = drift(eq, lambda z: torch.cat([eq.grid.mean_square(z), eq.energy(z)[None]]))
    assert moved > 0.3
    assert change < 1e-9


@pytest.mark.parametrize("n", STRATIFICATIONS)
def test_energy_on_the_beta_plane_over_topography(n):
    x, y = Grid(24).axes()
    hills = torch.cos(x) * torch.sin(2 * y)
    eq = LayeredQG(grid=Grid(24), **STRATIFICATIONS[n], beta=1.5, topography=hills)
    change, moved = drift(eq, eq.energy)
    assert moved > 0.3
    assert change < 1e-9


@pytest.mark.parametrize("n", STRATIFICATIONS)
def test_pseudomomentum(n):
    """sum_i delta_i <q_i^2> / Qy_i for any U and beta, while energy grows or decays."""
    eq = LayeredQG(grid=Grid(24), **STRATIFICATIONS[n], beta=0.7, U=(0.6, -0.2, 0.1)[:n])
    gradients = torch.tensor([float(eq.params[f"Qy{i + 1}"]) for i in range(n)], dtype=torch.float64)
    weight = eq.fraction / gradients
    size = []

    def pseudomomentum(z):
        parts = weight * eq.grid.mean_square(z)
        size.append(float(parts.abs().sum() / parts.sum().abs()))
        return parts.sum()

    change, moved = drift(eq, pseudomomentum)
    assert moved > 0.3
    assert max(size) < 1e3  # the sum is not the small difference of large parts
    assert change < 1e-9


def test_aliased_products_do_not_conserve():
    """The test can fail: with aliasing the same run does not keep its enstrophy."""
    eq = LayeredQG(grid=Grid(24, dealias=1), H=(1.0,))
    change, _ = drift(eq, eq.grid.mean_square, steps=300, scale=0.8)
    assert change > 1e-7


def everything(filterfac=0.0):
    grid = Grid(32, 28, Ly=2 * math.pi, dealias=2 / 3)
    x, y = grid.axes()
    eq = LayeredQG(
        grid=grid, H=(0.2, 0.8), gprime=(0.5,), f0=1.0, U=(0.5 + 0.3 * torch.cos(y[:, 0]), 0.1), V=(0.2, -0.1),
        beta=1.0, rek=0.2, nu=1e-3, nu_order=1, nu_axes=5e-4, topography=0.5 * torch.cos(x + y), relax=0.3,
        relax_jet=0.2, psi_R=torch.sin(y) + 0 * x, sponge=0.2 * (1 + torch.cos(y[:, 0])), filterfac=filterfac,
    )  # fmt: skip
    return eq.with_tendency(lambda e, z, t: -0.05 * z)


def energy_by_fields(eq, z):
    """Energy per ring from velocities and the interface: 1/2 sum delta_i |u_i|^2 + 1/2 F (psi1 - psi2)^2."""
    psi = eq.psi(z)
    F = float(eq.S[0, 1] * eq.fraction[0])
    kinetic = 0.5 * (eq.fraction[:, None, None] * eq.grid.K2 * psi.abs() ** 2).sum(-3)
    potential = 0.5 * F * (psi[0] - psi[1]).abs() ** 2
    return isotropic(eq.grid, eq.grid.weight * (kinetic + potential))[1]


def test_energy_budget_closes_with_everything_switched_on():
    """dE/dt by a fourth-order difference along RK4, ring by ring, against the sum of the named terms."""
    eq = everything()
    step, h = rk4(eq, 1e-3), 1e-3
    state = step.init(turbulence(eq))
    for _ in range(200):
        state = step(state)
    z, energies = state.z, [energy_by_fields(eq, state.z)]
    for _ in range(4):
        state = step(state)
        energies.append(energy_by_fields(eq, state.z))
    rate = sum(w * e for w, e in zip((-25, 48, -36, 16, -3), energies, strict=True)) / (12 * h)
    terms = {n: isotropic(eq.grid, d)[1] for n, d in energy_budget(eq, z).items()}
    expected = {
        "KEflux",
        "APEflux",
        "APEgenspec",
        "KEfrictionspec",
        "filter",
        "topography",
        "relaxation",
        "sponge",
        "added",
    }
    assert set(terms) == expected
    total = sum(terms.values())
    largest = torch.stack(list(terms.values())).abs().amax(0)
    assert float((rate.sum() - total.sum()).abs() / max(float(t.sum().abs()) for t in terms.values())) < 1e-6
    has_modes = largest > 1e-10 * largest.max()
    assert int(has_modes.sum()) >= 12
    assert float(((rate - total).abs()[has_modes] / largest[has_modes]).max()) < 1e-6
    for name in expected - {"KEflux", "APEflux"}:
        assert float(terms[name].abs().max()) > 1e-5, f"{name} does nothing here"


def test_filter_takes_the_energy_that_the_budget_says():
    """One Euler step with pyqg's filter: E(after) - E(before) = dt x (all terms with the filter) + dt^2 E(dz/dt)."""
    eq, dt = everything(filterfac=23.6), 1e-4
    z = eq.init(turbulence(eq, scale=1.0))
    after = euler(eq, dt)(State(z)).z
    terms = {n: isotropic(eq.grid, d)[1] for n, d in energy_budget(eq, z, dt).items()}
    second_order = 0.5 * isotropic(eq.grid, eq.energy_spectrum(eq.tendency(z), eq.tendency(z)))[1]
    rate = (energy_by_fields(eq, after) - energy_by_fields(eq, z)) / dt - dt * second_order
    largest = torch.stack(list(terms.values())).abs().amax(0)
    used = largest > 1e-12 * largest.max()
    assert float((rate - sum(terms.values())).abs()[used].div(largest[used]).max()) < 1e-6
    unfiltered = energy_budget(everything(), z, dt)["filter"]
    assert float((terms["filter"] - isotropic(eq.grid, unfiltered)[1]).abs().max()) > 1e-8


@pytest.mark.parametrize("n", [2, 3])
def test_advection_only_moves_energy(n):
    """KEflux and APEflux sum to zero over all wavevectors together (and alone in one layer)."""
    eq = LayeredQG(grid=Grid(24), **STRATIFICATIONS[n])
    z = eq.init(turbulence(eq))
    budget = energy_budget(eq, z)
    total = budget["KEflux"].sum() + budget["APEflux"].sum()
    assert abs(float(total)) < 1e-13 * float(budget["KEflux"].abs().sum())
