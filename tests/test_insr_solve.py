"""Least squares of neural fields: linear and nonlinear solvers, and derivatives by weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from torch import nn

import sciml as sm
from sciml.field import NeuralField, NeuRBF, Siren
from sciml.insr.domain import Box, Sphere
from sciml.insr.solve import dual, levenberg_marquardt, orthogonal, primal
from sciml.insr.weights import jacobian, weights
from sciml.nn.encodings import Harmonics
from tests.conftest import relative


def test_linear_solvers_agree_with_numpys():
    """With the regularisation as further rows, for more samples than weights and (dual) fewer."""
    draw = torch.Generator().manual_seed(0)
    for n, solvers in ((30, (primal, dual, orthogonal)), (7, (dual, orthogonal))):
        J, f = (torch.randn(n, *k, dtype=torch.float64, generator=draw) for k in ((10,), ()))
        ridge = math.sqrt(1e-3 * float(J.square().sum()) / 10)
        rows = np.concatenate([J.numpy(), ridge * np.eye(10)])
        expected = torch.from_numpy(np.linalg.lstsq(rows, np.append(f.numpy(), np.zeros(10)), rcond=None)[0])
        for solve in solvers:
            assert relative(solve(J, f, 1e-3), expected) < 1e-10
    with pytest.raises(ValueError, match="7 samples do not fix 10"):
        primal(J, f, 1e-3)


def test_nonlinear_least_squares_of_rosenbrock():
    """Zero at (1, 1), from the usual start."""

    def residual(p):
        x, y = p
        r = torch.stack([10 * (y - x**2), 1 - x])
        return r, torch.tensor([[-20 * float(x), 10.0], [-1.0, 0.0]], dtype=torch.float64)

    fit = levenberg_marquardt(residual, torch.tensor([-1.2, 1.0], dtype=torch.float64), 200, tolerance=1e-12)
    assert relative(fit.theta, torch.ones(2, dtype=torch.float64)) < 1e-10
    assert fit.error <= 1e-12
    assert fit.iterations < 100


def test_variable_projection_of_exponentials():
    """Amplitudes and rates of two decays: as scipy finds them, and in fewer steps than without the projection."""
    t = torch.linspace(0, 4, 60, dtype=torch.float64)
    data = 2 * torch.exp(-t) - 1.5 * torch.exp(-1.6 * t) + 0.01 * torch.cos(5 * t)

    def residual(p):
        decays = torch.exp(-p[2:, None] * t)
        return p[:2] @ decays - data, torch.cat([decays, -p[:2, None] * t * decays]).mT

    start = torch.tensor([1.0, 1.0, 0.2, 3.0], dtype=torch.float64)
    linear = torch.tensor([True, True, False, False])
    found = levenberg_marquardt(residual, start, 200, linear=linear)
    theirs = least_squares(lambda p: residual(torch.from_numpy(p))[0].numpy(), start.numpy(), xtol=1e-14, ftol=1e-14)
    assert found.error == pytest.approx(math.sqrt(2 * theirs.cost), rel=1e-6)
    r, J = residual(found.theta)
    assert float((J.mT @ r).norm()) < 1e-6
    few = [levenberg_marquardt(residual, start, 8, linear=mask).error for mask in (linear, None)]
    assert few[0] < 0.96 * few[1]
    with pytest.raises(FloatingPointError, match="not finite"):
        levenberg_marquardt(lambda p: (p * math.nan, torch.eye(4).double()), start, 3, linear=linear)


class Read(nn.Module):
    """A functional of a network's jet as a module's forward pass."""

    def __init__(self, net, place, functional):
        super().__init__()
        self.net, self.place, self.functional = net, place, functional

    def forward(self):
        return self.functional(self.net.jet(self.place))


def plane_and_sphere():
    """Networks of sines, kernels and harmonics, with places to see them at."""
    box, draw = sm.Grid(32, 32, Lx=2.0, Ly=2.0, x0=-1.0, y0=-1.0), torch.Generator().manual_seed(0)
    x = torch.rand(7, 3, dtype=torch.float64, generator=draw) * 2 - 1
    unit = nn.functional.normalize(x, dim=-1)
    return [(Siren(box, 2, (5, 4), omega=1.3), Box(box).jet(x[:, :2], 2)),
            (NeuRBF(box, 1, 6, 3, widths=(4,)), Box(box).jet(x[:, :2], 2)),
            (NeuralField(Harmonics(2), (4,), 1, 0), Sphere().jet(unit, 2))]  # fmt: skip


@pytest.mark.parametrize("case", range(3))
def test_derivatives_by_weights_are_those_of_autograd(case):
    """Of values and Laplacians."""
    net, place = plane_and_sphere()[case]

    def functional(jet):
        return torch.stack([jet.c[0][:, 0], (jet.derivative(2) + jet.derivative(0, 2))[:, 0]])

    def whole(theta):
        parts = theta.split([p.numel() for p in net.parameters()])
        named = {f"net.{n}": a.view_as(p) for (n, p), a in zip(net.named_parameters(), parts, strict=True)}
        return torch.func.functional_call(Read(net, place, functional), named, ())

    values, J = jacobian(net, place, functional)
    assert relative(values, whole(weights(net)).detach()) < 1e-12
    assert relative(J, torch.autograd.functional.jacobian(whole, weights(net))) < 1e-10
