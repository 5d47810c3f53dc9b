"""Elastic bodies by neural fields: energies, exact solutions, orders in time, contact, what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad
from scipy.linalg import polar as scipy_polar

from sciml.insr.body import Body, Face, ball, displacement, floor, gauss, stratified, surface
from sciml.insr.elastic import elastic
from sciml.insr.hyperelastic import arap, cofactor, determinant, lame, polar, stable_neo_hookean, whitened
from sciml.insr.increment import IMPLICIT_EULER, IMPLICIT_MIDPOINT, QUASI_STATIC
from sciml.nn.jets import TANH
from sciml.rollout import BlowUp
from tests.conftest import relative

MU, LAM = 1.0, 1.5
ENERGIES = pytest.mark.parametrize("energy", [stable_neo_hookean(MU, LAM), arap(MU, LAM)], ids=["neo_hookean", "arap"])
DIMENSIONS = pytest.mark.parametrize("d", [2, 3])
ROLLERS = (Face(0, 0, (0,)), Face(1, 0, (1,)))


def gradients(d, n=20, size=0.3, seed=0):
    """Deformation gradients about the identity."""
    draw = torch.Generator().manual_seed(seed)
    return torch.eye(d).double() + size * torch.randn(n, d, d, dtype=torch.float64, generator=draw)


def rotations(d, n=20):
    return torch.linalg.qr(gradients(d, n, 1.0, 5))[0] * 1.0


# -- energies --------------------------------------------------------------------------------------------------------
@ENERGIES
@DIMENSIONS
def test_derivatives_are_those_of_the_density(energy, d):
    """By autograd and by finite differences."""
    F = gradients(d).requires_grad_()
    (P,) = torch.autograd.grad(energy.density(F).sum(), F)
    assert relative(energy.stress(F), P) < 1e-12
    move, h = gradients(d, seed=1), 1e-6
    slope = (energy.stress(F + h * move) - energy.stress(F - h * move)) / (2 * h)
    found = torch.einsum("nij,nj->ni", energy.curvature(F), move.flatten(1))
    assert relative(found, slope.flatten(1)) < 1e-7
    assert relative(energy.curvature(F).mT, energy.curvature(F)) < 1e-12


@ENERGIES
@DIMENSIONS
def test_rest_has_no_stress_and_the_moduli_of_small_strains(energy, d):
    """W = mu |e|^2 + lambda / 2 (tr e)^2, and turning costs nothing."""
    one, h = torch.eye(d).double()[None], gradients(d, 1)[0] - torch.eye(d).double()
    assert float(energy.density(one).abs()) < 1e-15
    assert float(energy.stress(one).abs().max()) < 1e-15
    strain = (h + h.mT) / 2
    wanted = 2 * MU * strain.square().sum() + LAM * strain.trace() ** 2
    assert float(h.flatten() @ energy.curvature(one)[0] @ h.flatten()) == pytest.approx(float(wanted), rel=1e-12)


@ENERGIES
@DIMENSIONS
def test_energy_does_not_depend_on_the_view(energy, d):
    R, F = rotations(d), gradients(d)
    R[torch.linalg.det(R) < 0, 0] *= -1
    assert relative(energy.density(R @ F), energy.density(F)) < 1e-11
    assert relative(energy.density(F @ R), energy.density(F)) < 1e-11, "isotropic"
    assert float(energy.density(R).abs().max()) < 1e-12


def test_neo_hookean_is_that_of_the_paper():
    """Equation 14, with its own moduli of uniaxial stretch: m = 4 mu / 3, l = lambda + 5 mu / 6."""
    m, l, s = 4 / 3 * MU, LAM + 5 / 6 * MU, 1.7
    alpha = 1 + m / l - m / (4 * l)

    def whole(I, J):
        return m / 2 * (I - 3) + l / 2 * (J - alpha) ** 2 - m / 2 * math.log(I + 1)

    wanted = whole(s * s + 2, s) - whole(3, 1)
    for d in (2, 3):
        F = torch.diag(torch.tensor([s] + [1.0] * (d - 1), dtype=torch.float64))[None]
        assert float(stable_neo_hookean(MU, LAM).density(F)) == pytest.approx(wanted)


@DIMENSIONS
def test_polar_factor_and_cofactor(d):
    F = gradients(d)
    positive = F[torch.linalg.det(F) > 0]
    wanted = np.stack([scipy_polar(f)[0] for f in positive.numpy()])
    assert relative(polar(positive)[0], torch.from_numpy(wanted)) < 1e-12
    assert relative(torch.linalg.det(polar(F)[0]), torch.ones(len(F))) < 1e-12
    assert relative(determinant(F), torch.linalg.det(F)) < 1e-12
    assert relative(cofactor(F), torch.linalg.det(F)[:, None, None] * torch.linalg.inv(F).mT) < 1e-10


def test_whitened_curvature_is_the_nearest_semi_definite_one():
    H = stable_neo_hookean(MU, LAM).curvature(gradients(3, size=1.0))
    R = whitened(H)
    values, vectors = np.linalg.eigh(H.numpy())
    assert values.min() < -0.1, "some are indefinite"
    assert (
        relative(R.mT @ R, torch.from_numpy(vectors * np.maximum(values, 0)[:, None] @ vectors.swapaxes(1, 2))) < 1e-12
    )


# -- bodies ----------------------------------------------------------------------------------------------------------
def test_quadratures():
    x, w = gauss((2.0, 0.5), 100, torch.Generator())
    wanted = dblquad(lambda y, x: math.exp(x) * math.sin(y), 0, 2, 0, 0.5)[0]
    assert float((w * x[:, 0].exp() * x[:, 1].sin()).sum()) == pytest.approx(wanted, rel=1e-9)
    x, w = stratified((2.0, 0.5, 1.0), 4000, torch.Generator().manual_seed(0))
    assert float(w.sum()) == pytest.approx(1.0)
    assert float((w * x[:, 0] ** 2).sum()) == pytest.approx(4 / 3, rel=1e-2)
    x, w = surface(Body((2.0, 0.5, 1.0), arap(MU)), 600, torch.Generator())
    assert float(w.sum()) == pytest.approx(2 * (1.0 + 2.0 + 0.5))
    assert float((w[:, None] * x).sum(0)[2]) == pytest.approx(0.5 * float(w.sum())), "its centre"


def test_held_faces_are_exact():
    """Whatever the weights are."""
    body = Body((1.0, 2.0, 1.0), arap(MU), faces=(Face(1, 0, (0, 1, 2)), Face(0, 1, (2,))),
                motion=lambda x, t: t * x[:, 1:2] * x)  # fmt: skip
    step = elastic(body, displacement(body, (6,), seed=3), 0.5, QUASI_STATIC, samples=100, shape=(5, 5, 5))
    state = step.init(time=0.5)._replace(z=torch.randn(len(step.start), dtype=torch.float64))
    u, wanted = step.read(state), body.lifted(step.grid(), 0.5)[0].mT.reshape(3, 5, 5, 5)
    assert float((u - wanted)[:, :, 0].abs().max()) == 0
    assert float((u - wanted)[2, -1].abs().max()) == 0
    assert float((u - wanted)[0, -1].abs().max()) > 0.01, "free"
    h, x = 1e-6, step.grid()[60:61]
    numeric = torch.stack([(step.sample(state, x + h * e)[0] - step.sample(state, x - h * e)[0])[0] / (2 * h)
                           for e in torch.eye(3).double()], -1)  # fmt: skip
    assert relative(step.sample(state, x)[1][0], torch.eye(3).double() + numeric) < 1e-8


# -- statics ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("activation", [None, TANH], ids=["sines", "tanh"])
@ENERGIES
def test_uniform_stretch(energy, activation):
    """Against the stretch across for which there is no traction."""
    case = import_module("insr_elastic")
    body = Body((1.0, 1.0), energy, faces=(*ROLLERS, Face(0, 1, (0,))),
                motion=lambda x, t: torch.stack([t * x[:, 0], 0 * x[:, 1]], -1))  # fmt: skip
    step = elastic(body, displacement(body, (8, 8), activation=activation), 0.25, QUASI_STATIC)
    state = step.init()
    for t in (0.25, 0.5):
        state = step(state)
        across = case.lateral(energy, 1 + t)
        wanted = torch.diag(torch.tensor([1 + t, across], dtype=torch.float64))
        assert relative(step.sample(state, step.grid())[1], wanted.expand(121, 2, 2)) < 1e-4
    assert across < 0.95


def test_hanging_body_balances_its_weight():
    """A column on rollers without Poisson effect: u = g (L y - y^2 / 2) / E for small strains."""
    g = 1e-4
    body = Body((0.5, 1.0), arap(0.5), faces=(Face(1, 0, (1,)), Face(0, 0, (0,))),
                force=lambda x, t: torch.stack([0 * x[:, 0], g * t + 0 * x[:, 0]], -1))  # fmt: skip
    step = elastic(body, displacement(body, (8, 8)), 1.0, QUASI_STATIC, scale=g, tolerance=1e-7, most=1.0)
    u, y = step.read(step(step.init()))[1], torch.linspace(0, 1, 11).double()
    assert relative(u, (g * (y - y**2 / 2)).expand(11, 11)) < 1e-3


# -- dynamics --------------------------------------------------------------------------------------------------------
def free_end(scheme, n, end=0.25):
    """Displacement of the end of a bar without Poisson effect after a part of a period, over that at the start."""
    L, A = 4.0, 1e-3
    body = Body((L, 0.5), stable_neo_hookean(*lame(1.0, 0.0)), faces=ROLLERS)
    k = math.pi / 2 / L
    step = elastic(body, displacement(body, (6, 6)), end * 4 * L / n, scheme, scale=A, tolerance=1e-4, most=1.0,
                   iterations=6)  # fmt: skip
    state = step.init(lambda x, t: torch.stack([A * (k * x[:, 0]).sin(), 0 * x[:, 1]], -1),
                      velocity=lambda x, t: torch.stack([A * k * (k * x[:, 0]).sin(), 0 * x[:, 1]], -1))  # fmt: skip
    energies = []
    for _ in range(n):
        state = step(state)
        energies.append(step.energies(state).total)
    return float(step.sample(state, torch.tensor([[L, 0.0]]).double())[0][0, 0]) / A, np.array(energies)


@pytest.mark.parametrize(("scheme", "order"), [(IMPLICIT_EULER, 1), (IMPLICIT_MIDPOINT, 2)], ids=["euler", "midpoint"])
def test_order_in_time(scheme, order):
    """Of the linear bar, cos + sin, which is 1 after a quarter of a period."""
    errors = [abs(free_end(scheme, n)[0] - 1.0) for n in (4, 8)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.35)
    assert errors[1] < (0.25 if order == 1 else 0.02)


def test_energy_is_kept_by_the_midpoint_rule_and_lost_by_euler():
    kept, lost = (free_end(scheme, 10, 0.4)[1] for scheme in (IMPLICIT_MIDPOINT, IMPLICIT_EULER))
    assert abs(kept / kept[0] - 1).max() < 2e-3
    assert (np.diff(lost) < 0).all()
    assert lost[-1] < 0.8 * lost[0]


def test_free_flight_is_exact():
    body = Body((1.0, 1.0), stable_neo_hookean(1.0, 1.0))
    step = elastic(body, displacement(body, (6, 6)), 0.1, IMPLICIT_MIDPOINT)
    state = step.init(velocity=lambda x, t: torch.tensor([1.0, -0.5]).double().expand_as(x))
    for _ in range(3):
        state = step(state)
    wanted = 0.3 * torch.tensor([1.0, -0.5]).double()
    assert relative(step.read(state), wanted[:, None, None].expand(2, 11, 11)) < 1e-6
    assert step.energies(state).kinetic == pytest.approx(0.5 * 1.25)


def test_a_body_at_rest_stays_at_rest():
    body = Body((1.0, 1.0), arap(1.0, 1.0))
    step = elastic(body, displacement(body, (6, 6)), 0.1)
    assert float(step.read(step(step.init())).abs().max()) < 1e-12


# -- contact ---------------------------------------------------------------------------------------------------------
def test_obstacles_are_signed_distances():
    x = torch.randn(50, 3, dtype=torch.float64).requires_grad_()
    for obstacle in (ball((0.1, 0.2, 0.3), 0.7), floor(-0.2, 1)):
        gap, normal = obstacle(x)
        (slope,) = torch.autograd.grad(gap.sum(), x)
        assert relative(normal, slope) < 1e-12
    assert float(floor(-0.2, 1)(torch.zeros(1, 3))[0]) == pytest.approx(0.2)


def test_a_body_lies_on_the_floor():
    """Its weight over its length is the pressure, stiffness times depth; no energy is gained on the way."""
    body = Body((1.0, 1.0), stable_neo_hookean(*lame(50.0, 0.0)), obstacles=(floor(0.0),), stiffness=1e4,
                force=lambda x, t: torch.tensor([0.0, -1.0]).double().expand_as(x))  # fmt: skip
    step = elastic(body, displacement(body, (4, 4)), 0.5, IMPLICIT_EULER, tolerance=1e-4, most=0.1, damping=1.0)
    state, total = step.init(), [0.0]
    for _ in range(6):
        state = step(state)
        total.append(step.energies(state).total)
    assert max(np.diff(total)) < 1e-9
    below = step.read(state)[1][:, 0]
    assert float(torch.trapezoid(-below.clamp(max=0), dx=0.1)) == pytest.approx(1e-4, rel=0.1)


# -- states and refusals ---------------------------------------------------------------------------------------------
def test_states_have_equal_futures():
    """Nodes drawn anew in each step are in the state too."""
    body = Body((1.0, 1.0), arap(1.0, 1.0), faces=ROLLERS, force=lambda x, t: 0.01 * x)
    net = displacement(body, (6,), seed=1)
    step = elastic(body, net, 0.2, quadrature=stratified, samples=60, iterations=5, most=1.0)
    state = step(step.init(seed=4))
    assert torch.equal(
        step(state).z, elastic(body, net, 0.2, quadrature=stratified, samples=60, iterations=5, most=1.0)(state).z
    )
    assert not torch.equal(state.rng, step(state).rng)


def broken(net):
    net.head.bias.data[0] = math.nan
    return net


@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("two or three sides", lambda: Body((1.0, 0.0), arap(1.0))),
        ("two or three sides", lambda: Body((1.0,), arap(1.0))),
        ("density must be", lambda: Body((1.0, 1.0), arap(1.0), density=-1.0)),
        ("there is no face", lambda: Body((1.0, 1.0), arap(1.0), faces=(Face(2, 0, (0,)),))),
        ("positive stiffness", lambda: Body((1.0, 1.0), arap(1.0), obstacles=(floor(0.0),))),
        ("radius of an obstacle", lambda: ball((0.0, 0.0), 0.0)),
        ("Young's modulus must", lambda: lame(-1.0, 0.3)),
        ("between -1 and 0.5", lambda: lame(1.0, 0.5)),
        ("shear modulus and", lambda: arap(1.0, -1.0)),
        ("needs 3", lambda: elastic(replace(BOX, lengths=(1.0, 1.0, 1.0)), NET, 0.1)),
        ("float64", lambda: elastic(BOX, displacement(BOX, (6,)).float(), 0.1)),
        ("not finite", lambda: elastic(BOX, broken(displacement(BOX, (6,))), 0.1)),
        ("dt, scale", lambda: elastic(BOX, NET, 0.0)),
        ("do not fix 22 weights: use at least 17", lambda: elastic(BOX, NET, 0.1, samples=9)),
        ("must give finite", lambda: elastic(BOX, NET, 0.1).init(lambda x, t: x / 0)),
    ],
)
def test_what_cannot_be_is_refused(message, make):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_step_that_does_not_converge_ends():
    body = replace(BOX, faces=(Face(0, 0, (0, 1)), Face(0, 1, (0, 1))), motion=lambda x, t: 30 * t * x.flip(1) ** 2 * x)
    step = elastic(body, displacement(body, (6,)), 1.0, QUASI_STATIC, iterations=3)
    state = step.init()
    with pytest.raises(BlowUp, match=r"at t = 0: .*(shorter step|larger)"):
        step(state)


BOX = Body((1.0, 1.0), arap(1.0))
NET = displacement(BOX, (4,))
