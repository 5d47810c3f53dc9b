"""Losses against integrals and derivatives known exactly."""

import math

import pytest
import torch

from sciml.losses import combined, gradient, relative_h1, relative_l2, spectral

TORUS = ("periodic", "periodic")


def waves(n: int, k: int, length: float = 1.0):
    x = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    return torch.sin(k * x)[None, None, None, :].expand(1, 1, n, n)


def test_relative_l2_is_of_each_sample():
    target = torch.stack([waves(16, 1)[0], 5 * waves(16, 2)[0]])
    prediction = target + torch.tensor([0.1, 0.0])[:, None, None, None] * target
    torch.testing.assert_close(relative_l2(prediction, target), torch.tensor([0.1, 0.0], dtype=torch.float64))


def test_half_precision_is_summed_in_float32():
    t = torch.full((1, 1, 300, 300), 30.0, dtype=torch.bfloat16)
    assert float(relative_l2(t * 1.5, t)) == pytest.approx(0.5, rel=1e-3)


def test_h1_of_a_wave_that_is_missing():
    """An error in wave k counts sqrt(1 + (2 pi k)^2) times as much as one in the mean."""
    n, k = 256, 3
    target = torch.ones(1, 1, n, n, dtype=torch.float64)
    e = 0.01 * waves(n, k)
    size = math.sqrt(1 + (2 * math.pi * k) ** 2)
    assert float(relative_h1()(target + e, target)) == pytest.approx(0.01 * math.sqrt(0.5) * size, rel=2e-3)
    assert float(relative_h1(lengths=(1.0, 2 * math.pi))(target + e, target)) == pytest.approx(
        0.01 * math.sqrt(0.5) * math.sqrt(1 + k**2), rel=2e-3
    )


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet"])
def test_gradients_are_of_second_order_up_to_walls(boundary):
    errors = []
    for n in (32, 64, 128):
        x = torch.linspace(0, 1, n + 1, dtype=torch.float64)
        x = x[:-1] if boundary == "periodic" else x
        f = torch.sin(2 * math.pi * x)[None, None]
        (found,) = gradient(f, (boundary,), (1.0,))
        errors.append(float((found - 2 * math.pi * torch.cos(2 * math.pi * x)).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)


def test_walls_are_not_torn():
    """A field that is not periodic has no jump between walls."""
    x = torch.linspace(0, 1, 20, dtype=torch.float64)
    f = x.expand(1, 1, 20, 20)
    walls = gradient(f, ("dirichlet", "neumann"), (1.0, 1.0))
    torch.testing.assert_close(walls[1], torch.ones_like(f))
    torch.testing.assert_close(walls[0], torch.zeros_like(f))


def test_spectral_loss_sees_small_scales_only():
    target = waves(32, 1) + 0.01 * waves(32, 9)
    missing = waves(32, 1)
    assert float(spectral(5)(missing, target)) == pytest.approx(1.0, rel=1e-6)
    assert float(spectral(5)(target + 3 * waves(32, 2), target)) < 1e-6
    assert float(spectral(1)(missing, target)) == pytest.approx(0.01, rel=1e-3)


def test_losses_add():
    a, b = waves(16, 1), waves(16, 1) * 1.5
    both = combined((1.0, relative_l2), (2.0, relative_h1(TORUS)))(b, a)
    torch.testing.assert_close(both, torch.full((1,), 1.5, dtype=torch.float64))
