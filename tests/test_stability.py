"""Linear stability and vertical modes against the literature."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sciml import Grid, LayeredQG, State, TwoLayerQG, rk4, stability
from sciml.equation.base import Term
from sciml.equation.stability import stability_of_profile, vertical_modes
from tests.conftest import relative

L = 1e6
TABLE = [  # configuration, growth (s-1), (m, n), phase speed (m/s): notes of verification cases, pyqg's configurations
    (dict(rd=15e3, delta=0.25, U1=0.025, rek=0.0), 1.680009e-07, (7, 0), 2.221588e-03),
    (dict(rd=15e3, delta=0.25, U1=0.025, rek=5.787e-7), 7.795041e-08, (7, 0), 5.157659e-03),
    (dict(rd=30e3, delta=0.25, U1=0.05, rek=5.787e-7), 4.462091e-08, (4, 0), 9.156525e-03),
    (dict(rd=15e3, delta=1.0, U1=0.1, rek=0.0), 1.374345e-06, (7, 0), 4.494716e-02),
]


@pytest.mark.parametrize(("parameters", "growth", "mode", "speed"), TABLE)
def test_published_growth_rates(parameters, growth, mode, speed):
    eq = TwoLayerQG(grid=Grid(64, Lx=L), beta=1.5e-11, **parameters)
    modes = stability(eq)
    i, m, n = modes.fastest()
    assert (m, n) == mode
    assert f"{float(modes.growth[i, m, n]):.6e}" == f"{growth:.6e}"
    assert f"{float(modes.frequency[i, m, n] / eq.grid.k[m, 0]):.6e}" == f"{speed:.6e}"


def test_stable_without_drag():
    eq = TwoLayerQG(grid=Grid(64, Lx=L), beta=1.5e-11, rd=30e3, delta=0.25, U1=0.05)
    assert float(eq.params["Qy2"]) == pytest.approx(3.89e-12, rel=1e-3)
    assert float(stability(eq).growth.max()) < 1e-15


def test_marginal_shear_of_the_jet_and_eddy_set_ups():
    jet, eddy = TwoLayerQG.preset("jet", 64), TwoLayerQG.preset("eddy", 64)
    assert float(jet.params["Qy2"]) == pytest.approx(-1.01e-13, rel=1e-2)
    for eq, critical in ((jet, 0.02475), (eddy, 0.016875)):
        assert eq.beta * eq.rd**2 * (1 + eq.delta) / eq.delta == pytest.approx(critical, rel=1e-12)
        just = {"rek": 0.0, "filterfac": 0.0}
        below = TwoLayerQG.preset("eddy", 128, **just, beta=eq.beta, delta=eq.delta, U1=0.99 * critical)
        above = TwoLayerQG.preset("eddy", 128, **just, beta=eq.beta, delta=eq.delta, U1=1.3 * critical)
        assert float(stability(below).growth.max()) < 1e-14
        assert float(stability(above).growth.max()) > 1e-8


@pytest.mark.parametrize("beta", [0.0, 1.5e-11])
def test_phillips_problem_in_closed_form(beta):
    """Vallis (2017), section 9.6: growth at every wavevector of two equal layers."""
    Us, rd = 0.1, 15e3
    eq = TwoLayerQG(grid=Grid(96, 80, Lx=L), beta=beta, rd=rd, delta=1.0, U1=Us)
    k, K2, kd2 = eq.grid.k, eq.grid.K2, rd**-2
    discriminant = (
        beta**2 / Us**2 * kd2**2 / 4 - K2**2 * (kd2**2 - K2**2) / 4 if beta else -(kd2**2 - K2**2) * K2**2 / 4
    )
    # omega = k Us/2 - k beta (...) +- k Us / (K2 (K2 + kd2)) sqrt(discriminant)
    exact = k * Us / (K2 * (K2 + kd2)) * (-discriminant).clamp(min=0).sqrt()
    exact[0, 0] = 0
    assert float((stability(eq).growth[0] - exact).abs().max()) < 1e-15


def test_eady_like_maximum():
    """beta = 0: maximum 0.207107 Us kd at K = 0.643594 kd, cutoff at kd."""
    kd = 2 * math.pi * 1000
    eq = TwoLayerQG(grid=Grid(4096, 1, Lx=1.0, Ly=1.0), rd=1 / kd, delta=1.0, U1=1.0)
    growth = stability(eq).growth[0, :, 0]
    top = int(growth.argmax())
    assert float(growth[top]) == pytest.approx(0.207107 * kd, rel=1e-5)
    assert float(eq.grid.k[top, 0]) / kd == pytest.approx(0.643594, abs=1e-3)
    assert float(growth[1001:].max()) < 1e-6 * kd


def test_eigenvectors_are_of_psi_for_unequal_layers():
    """The eigenproblem of psi itself, written out: omega B psi = k (diag(U) B + diag(Qy)) psi + i rek K2 psi_2 e_2."""
    eq = TwoLayerQG.preset("eddy", 64)
    modes = stability(eq)
    i, m, n = modes.fastest()
    k, K2 = float(eq.grid.k[m, 0]), float(eq.grid.K2[m, n])
    B = (eq.S - K2 * torch.eye(2, dtype=torch.float64)).to(torch.complex128)
    U, Qy = torch.diag(torch.tensor([0.025, 0.0])), torch.diag(torch.tensor([eq.params["Qy1"], eq.params["Qy2"]]))
    A = k * (U.to(B.dtype) @ B + Qy.to(B.dtype))
    A[1, 1] += 1j * eq.rek * K2
    psi = modes.psi[i, :, m, n]
    omega = complex(modes.frequency[i, m, n], modes.growth[i, m, n])
    assert relative(A @ psi, omega * (B @ psi)) < 1e-7  # U is float32 above
    assert (
        float((A @ (eq.fraction * psi) - omega * (B @ (eq.fraction * psi))).abs().max() / (B @ psi).abs().max()) > 1e-8
    )


def test_profile_that_is_constant_has_the_same_modes():
    number = TwoLayerQG.preset("eddy", 24, dealias=2 / 3)
    profile = TwoLayerQG.preset("eddy", 24, dealias=2 / 3, U1=np.full(24, 0.025))
    growth, frequency, _ = stability_of_profile(profile, 5)
    modes = stability(number)
    expected = torch.complex(modes.growth[:, 5], modes.frequency[:, 5]).flatten()
    found = torch.complex(growth, frequency)
    distance = (found[:, None] - expected[None]).abs()
    assert float(distance.amin(1).max()) < 1e-6 * float(expected.abs().max())
    assert float(distance.amin(0).max()) < 1e-6 * float(expected.abs().max())
    with pytest.raises(ValueError, match="stability_of_profile"):
        stability(profile)


def test_unstable_profile_grows_at_its_eigenvalue():
    """Kolmogorov flow sin y in one layer: the eigenvector grows at its rate in the model."""
    grid = Grid(32, 32, Lx=4 * math.pi, Ly=2 * math.pi)
    eq = LayeredQG(grid=grid, U=(torch.sin(grid.y[:, 0]),), H=(1.0,))
    growth, frequency, psi = stability_of_profile(eq, 1)
    assert float(growth[0]) > 0.1
    z = 1e-8 * eq.grid.complex(eq.stretch[0] * psi[0])
    step, state = rk4(eq, 0.01), State(z)
    for _ in range(500):
        state = step(state)
    factor = torch.exp(torch.complex(growth[0], -frequency[0]) * 5.0)
    assert relative(state.z, z * factor) < 1e-6


def test_vertical_modes():
    """Two layers: radii (inf, rd); modes orthonormal in thickness; S phi = -phi / R^2 for three layers."""
    two = TwoLayerQG(grid=Grid(8, Lx=L), rd=15e3, delta=0.25)
    radii, phi = vertical_modes(two)
    assert math.isinf(radii[0])
    assert float(radii[1]) == pytest.approx(15e3, rel=1e-10)
    assert phi[0].tolist() == pytest.approx([1.0, 1.0], rel=1e-10)
    assert phi[1].tolist() == pytest.approx([2.0, -0.5], rel=1e-10)
    three = LayeredQG(grid=Grid(8), H=(0.2, 0.3, 0.5), gprime=(0.5, 0.7), f0=1.0)
    radii, phi = vertical_modes(three)
    assert relative(phi * three.fraction @ phi.mT, torch.eye(3)) < 1e-12
    assert relative((three.S @ phi.mT).mT, -phi / radii[:, None] ** 2) < 1e-10


def test_terms_of_varying_coefficients_are_refused():
    grid = Grid(16, Lx=1e6)
    eq = LayeredQG(grid=grid, H=(300.0, 700.0), gprime=(0.02,), U=(0.1, 0.0), beta=1e-11)
    hill = 1e-5 * torch.rand(16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="topography of q2: coefficients that vary in space"):
        stability(replace(eq, topography=hill))
    with pytest.raises(ValueError, match="wave of q1: coefficients"):
        stability(eq + Term("q1", "wave", "1e-6*sin(6.28e-6*y)*q1"))
    nonlinear = stability(eq + Term("q1", "product", "1e-3*q1*q2*q2"))
    assert torch.equal(nonlinear.growth, stability(eq).growth)
