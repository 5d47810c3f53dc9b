"""Neural fields: exact periodicity, closed-form heads, spectral bias, derivatives, initial weights."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from sciml.equation.expression import parse
from sciml.equation.readings import Spectral, pointwise
from sciml.field import (
    MLP,
    FourierFeatures,
    NeuRBF,
    Siren,
    cross_validation,
    derivatives,
    fit_adam,
    fit_last_layer,
    fit_projected,
    neural,
    on_grid,
    ridge_regression,
)
from sciml.fill import error_by_wavenumber
from sciml.grid import Grid
from sciml.initial import random_field
from sciml.kriging import Climate, kriging
from sciml.nn.encodings import Coordinates, PowerLaw, gaussian_waves, periodic, random_waves, strongest_waves
from tests.conftest import relative

GRID = Grid(24, 32, Lx=3.0, Ly=4.4, dealias=1.5, x0=-1.5, y0=0.2)
BOX = torch.tensor([GRID.Lx, GRID.Ly], dtype=torch.float64)


def longest(count=100) -> torch.Tensor:
    return strongest_waves(GRID, GRID.invK2, count)[0]


def power(outputs, seed=0, count=100):
    """Waves with a prior of their own to train."""
    return FourierFeatures(GRID, outputs, longest(count), PowerLaw(GRID), seed=seed)


PERIODIC = {
    "mlp": partial(MLP, GRID, widths=(20, 20), encoding=periodic),
    "fourier": partial(FourierFeatures, GRID, numbers=longest(), widths=(20,)),
    "power law": power,
    "siren": partial(Siren, GRID, widths=(20, 20), omega=10.0),
    "neurbf": partial(NeuRBF, GRID, kernels=40, channels=6),
    "neurbf with layers": partial(NeuRBF, GRID, kernels=40, channels=6, widths=(20,)),
}
OTHERS = {
    "plain": partial(MLP, GRID, widths=(20, 20)),
    "gaussian": partial(FourierFeatures, GRID, numbers=gaussian_waves(10, 3.0, 0), widths=(20,)),
    "plain siren": partial(Siren, GRID, widths=(20, 20), encoding=partial(Coordinates, reach=1.0)),
}
every_periodic = pytest.mark.parametrize("make", PERIODIC.values(), ids=PERIODIC)
every_network = pytest.mark.parametrize("make", [*PERIODIC.values(), *OTHERS.values()], ids=[*PERIODIC, *OTHERS])


def points() -> torch.Tensor:
    return torch.stack(torch.broadcast_tensors(*GRID.axes()), -1).reshape(-1, 2)


def anywhere(m, rng) -> torch.Tensor:
    """Places in the box."""
    return torch.rand(m, 2, dtype=torch.float64, generator=rng) * BOX + points()[0]


def fields(n=3, cut=11.0) -> torch.Tensor:
    """Random ones ``(n, ny, nx)`` without modes beyond ``cut``, a mean and different sizes."""
    f = random_field(GRID, lambda K: (cut > K) * (K + 1) ** -2, seed=1, batch=(n,))
    return f / f.std((-2, -1), keepdim=True) * torch.logspace(0, -2, n)[:, None, None] + 0.3


def sampled(f, m, rng) -> tuple[torch.Tensor, torch.Tensor]:
    """Random points of the grid ``(m, 2)`` and values ``(..., m)`` there."""
    chosen = torch.randperm(GRID.nx * GRID.ny, generator=rng)[:m]
    return points()[chosen], f.flatten(-2)[..., chosen]


# -- networks --------------------------------------------------------------------------------------------------------
@every_periodic
def test_is_exactly_periodic_with_its_derivatives(make, rng):
    net, x = make(outputs=2), anywhere(30, rng)
    away = x + BOX * torch.tensor([1, -2])
    assert relative(net(away), net(x)) < 1e-11
    here, there = (derivatives(net, a, "ab")("b", 2, 1) for a in (x, away))
    assert relative(there, here) < 1e-9


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_the_published_networks_are_not_periodic(make, rng):
    net, x = make(outputs=2), anywhere(30, rng)
    assert relative(net(x + BOX * torch.tensor([1, 0])), net(x)) > 1e-2


@every_network
def test_seed_repeats_and_torch_is_left_alone(make):
    state = torch.random.get_rng_state()
    a, b, c = make(outputs=3, seed=5), make(outputs=3, seed=5), make(outputs=3, seed=6)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.head.weight, c.head.weight)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert a(points()).shape == (GRID.nx * GRID.ny, 3)
    assert a(points().reshape(*GRID.shape, 2)).shape == (*GRID.shape, 3)
    assert a.float()(points()).dtype == torch.float32


def test_coordinates_span_the_box():
    corners = points()[0] + BOX * torch.tensor([[0.0], [1.0]])
    torch.testing.assert_close(Coordinates(GRID)(corners), math.pi * torch.tensor([[-1.0, -1], [1, 1]]).double())


def test_siren_starts_as_its_paper_says(rng):
    """Weights have their variance, sines see a standard deviation of 1 and have the arcsine's, at every depth."""
    net = Siren(GRID, 1, (256,) * 4, omega=30.0, encoding=partial(Coordinates, reach=1.0))
    z = net.encoding(anywhere(2000, rng))
    for i, layer in enumerate(net.layers):
        n, weight = layer.in_features, layer.weight
        bound = 1 / n if i == 0 else math.sqrt(6 / n) / 30
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert layer.bias.abs().max() <= n**-0.5
        entering = 30 * z @ weight.T
        assert i == 0 or entering.std().item() == pytest.approx(1, abs=0.1)
        z = net.activation(layer(z))
        assert z.var().item() == pytest.approx(0.5, abs=0.03)
    assert net.head.weight.abs().max() <= math.sqrt(6 / 256) / 30


def test_neurbf_is_its_formula(rng):
    """Near a kernel, where the chords are the distances, and with sums written out."""
    net = NeuRBF(GRID, 1, kernels=7, channels=3, tones=(0.5, 2.0), overlap=1.0)
    encode = net.encoding
    centre = points()[0] + (encode.centres + 0.5) * BOX
    near = centre[2] + 1e-4 * torch.randn(5, 2, dtype=torch.float64, generator=rng)
    size = math.sqrt(GRID.Lx * GRID.Ly / 7)
    torch.testing.assert_close(encode(near)[:, 2], 1 / (1 + ((near - centre[2]) / size).square().sum(-1)))
    torch.testing.assert_close(encode.tones, torch.tensor([0.5, 1.0, 2.0]).double())
    kernel, (w, b), v = encode(near)[:, :7], (encode.sums.weight, encode.sums.bias), encode.mix
    g = sum(w[:, i] * (torch.sin(encode.tones * kernel[:, i, None] + b) - torch.sin(b)) for i in range(7))
    torch.testing.assert_close(encode(near)[:, 7:], torch.sin(encode.tones * (g @ v.weight.T + v.bias)))


# -- waves -----------------------------------------------------------------------------------------------------------
def test_waves_are_one_of_each_pair_and_the_strongest_first(rng):
    spectrum = torch.rand(*GRID.modes, dtype=torch.float64, generator=rng)
    numbers, amplitude = strongest_waves(GRID, spectrum, 300)
    torch.testing.assert_close(amplitude.square(), spectrum[tuple(numbers.long().T)])
    assert (amplitude.diff() <= 0).all()
    for k in (numbers, random_waves(GRID, GRID.invK2, 300, seed=0)):
        pairs = {*map(tuple, k.tolist()), *map(tuple, (-k).tolist())}
        assert len(pairs) == 600
        assert (0, 0) not in pairs
        assert torch.equal(k, k.round())


def test_waves_have_the_spectrum_they_are_drawn_from():
    """``exp(-K^2 / 2 s^2)`` has standard deviation s in either direction, in waves of the box s L / 2 pi."""
    spectrum = torch.exp(-GRID.K2 / (2 * 7.0**2))
    drawn = torch.cat([random_waves(GRID, spectrum, 1, seed) for seed in range(600)])
    expected = 7.0 * BOX / (2 * math.pi)
    assert ((drawn.square().mean(0).sqrt() / expected).log().abs() < 0.1).all()
    assert torch.equal(random_waves(GRID, spectrum, 20, 3), random_waves(GRID, spectrum, 20, 3))
    published = gaussian_waves(4000, 6.3, 0)
    torch.testing.assert_close(published.std(0), torch.tensor([6.3, 6.3]).double(), rtol=0.03, atol=0)


def test_power_law_is_one():
    law = PowerLaw(GRID, kappa=2.0, alpha=5.0, zonal=3.0)
    numbers = torch.tensor([[1.0, 0], [2, -3], [0, 4]], dtype=torch.float64)
    K2 = (2 * math.pi * numbers / BOX).square().sum(-1)
    expected = (K2 + 4) ** -2.5 * torch.tensor([1.0, 1, 3])
    assert relative(law(numbers), expected / expected.max()) < 1e-12


# -- closed forms ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("m", "ridge"), [(40, 1e-3), (300, 2.0), (300, 0.0)])
def test_head_is_ridge_regression(m, ridge, rng):
    """As numpy's least squares with a row for each penalty; the constant has none."""
    x, y = sampled(fields(), m, rng)
    net = FourierFeatures(GRID, 3, longest(50))
    fit_last_layer(net, x, y, ridge)
    penalty = math.sqrt(ridge) * np.eye(100, 101)
    rows = np.vstack([np.column_stack([net.features(x).detach().numpy(), np.ones(m)]), penalty])
    expected = np.linalg.lstsq(rows, np.vstack([y.T.numpy(), np.zeros((100, 3))]), rcond=None)[0]
    assert relative(net.head.weight.T, expected[:-1]) < 1e-9
    assert relative(net.head.bias, expected[-1]) < 1e-9


@pytest.mark.parametrize("m", [60, 300])
def test_expected_error_is_generalised_cross_validation(m, rng):
    """``m |y - A y|^2 / tr(1 - A)^2`` with the matrix written out, and least among ridges; both ways to it agree."""
    x, y = sampled(fields(), m, rng)
    y = y + 0.1 * torch.randn(y.shape, dtype=torch.float64, generator=rng)
    phi = FourierFeatures(GRID, 3, longest(50), PowerLaw(GRID)).features(x).detach()
    centred = torch.eye(m, dtype=torch.float64) - 1 / m

    def validated(ridge):
        p = centred @ phi
        off = centred - p @ torch.linalg.solve(p.T @ p + ridge * torch.eye(100), p.T)
        return m * (off @ y.T).square().sum(0) / off.trace() ** 2

    torch.testing.assert_close(ridge_regression(phi, y.T, 0.3)[2].square(), validated(0.3))
    least = torch.stack([validated(r) for r in torch.logspace(-6, 3, 90).double()]).amin(0)
    torch.testing.assert_close(ridge_regression(phi, y.T, None)[2].square(), least, rtol=1e-2, atol=0)
    gram = (centred @ phi).square().sum() / min(m, 100)
    torch.testing.assert_close(cross_validation(phi, centred @ y.T, 0.3 / gram), validated(0.3))


def test_cross_validation_finds_the_noise(rng):
    """The expected error is that of values left out, noise included, and fields come out better than their values."""
    f, noise = fields(4, cut=8.0), 0.1
    x, y = sampled(f, 400, rng)
    noisy = y + noise * f.std((-2, -1))[:, None] * torch.randn(y.shape, dtype=torch.float64, generator=rng)
    net = FourierFeatures(GRID, 4, longest(300), PowerLaw(GRID))
    expected = fit_last_layer(net, x, noisy) / f.std((-2, -1))
    error = (on_grid(net, GRID) - f).square().mean((-2, -1)).sqrt() / f.std((-2, -1))
    assert (error < noise).all()
    torch.testing.assert_close(expected, (error**2 + noise**2).sqrt(), rtol=0.15, atol=0)


def test_waves_of_a_climate_are_kriging(rng):
    """Ridge regression on all waves, each as strong as its spectrum, is kriging but for the free constant."""
    f = fields(2) - 0.3
    x, y = sampled(f, 150, rng)
    spectrum, sigma = torch.where(GRID.K2 > 0, (GRID.K2 + 1) ** -3, 0.0), 0.02
    numbers, amplitude = strongest_waves(GRID, spectrum, 356)
    wide = Climate(torch.where(GRID.K2 > 0, spectrum, 1e4))  # of any mean
    network = partial(FourierFeatures, GRID, numbers=numbers, amplitude=lambda _: amplitude)
    ridge = sigma**2 / 2  # a wave's cosine has twice the variance of its coefficient
    ours = neural(GRID, lambda n: network(n), partial(fit_last_layer, ridge=ridge))(x, y)
    assert relative(ours, kriging(GRID, wide)(x, y, sigma)) < 1e-3


# -- training --------------------------------------------------------------------------------------------------------
def test_plain_layers_miss_small_scales_and_waves_do_not(rng):
    """Spectral bias: with as many updates the plain network has the longest waves only (Rahaman et al. 2019)."""
    f = fields(1, cut=14.0)
    x, y = sampled(f, 400, rng)
    waves = random_waves(GRID, (GRID.K2 < 14**2).double(), 60, seed=0)
    train = partial(fit_adam, updates=300, lr=3e-3)
    plain = neural(GRID, lambda n: MLP(GRID, n, (64, 64)), train)(x, y)
    fourier = neural(GRID, lambda n: FourierFeatures(GRID, n, waves, widths=(64,)), train)(x, y)
    closed = neural(GRID, lambda n: FourierFeatures(GRID, n, longest(140)), fit_last_layer)(x, y)
    k, missed = error_by_wavenumber(GRID, torch.cat([plain, fourier, closed]), f.expand(3, *GRID.shape))
    small, large = ((k > 8) & (k < 13)).nonzero().ravel(), ((k > 0.5) & (k < 4)).nonzero().ravel()
    assert (missed[0, small] > 0.5).all()
    assert (missed[0, large] < 0.1).all()
    assert (missed[1, small] < 0.5).all()
    assert missed[2, small].max() < 1e-20


FITS = {
    "fourier": (partial(power, count=356), fit_last_layer, 0.05),
    "siren": (partial(Siren, GRID, widths=(200,), omega=10.0), fit_projected, 0.01),
    "neurbf": (partial(NeuRBF, GRID, kernels=200, overlap=3.0), fit_last_layer, 0.04),
}


@pytest.mark.parametrize(("make", "fit", "error"), FITS.values(), ids=FITS)
def test_fits_reach_their_error(make, fit, error, rng):
    """Relative, of a band-limited batch of three sizes from half of its points."""
    f = fields()
    filled = neural(GRID, lambda n: make(outputs=n), fit)(*sampled(f, 384, rng))
    found = (filled - f).square().mean((-2, -1)).sqrt() / f.std((-2, -1))
    assert filled.dtype == torch.float64
    assert (found < error).all()


@pytest.mark.parametrize("name", ["siren", "neurbf"])
def test_projected_training_lowers_the_error_of_fields(name, rng):
    f = fields()
    x, y = sampled(f, 300, rng)
    make = {"siren": partial(Siren, GRID, 3, (60,), 5.0), "neurbf": partial(NeuRBF, GRID, 3, 60, 4)}[name]
    before, after = make(), make()
    fit_last_layer(before, x, y)
    fit_projected(after, x, y)
    errors = [(on_grid(net, GRID) - f).square().mean((-2, -1)) for net in (before, after)]
    assert (errors[1] < 0.7 * errors[0]).all()


def test_projected_training_finds_a_spectrum(rng):
    """From the values alone: fields come out almost as with the spectrum they were drawn from."""
    f = random_field(GRID, lambda K: (K**2 + 9) ** -4.0, seed=3, batch=(8,))
    x, y = sampled(f, 200, rng)

    def error(alpha, fit):
        fill = neural(GRID, lambda n: FourierFeatures(GRID, n, longest(356), PowerLaw(GRID, 3.0, alpha)), fit)
        return float((fill(x, y) - f).square().mean())

    true, wrong = error(4.0, fit_last_layer), error(2.0, fit_last_layer)
    found = error(2.0, partial(fit_projected, iterations=60))
    assert found < 1.05 * true < 0.5 * wrong


def test_training_repeats(rng):
    x, y = sampled(fields(), 100, rng)
    for fit in (partial(fit_adam, updates=5, lr=1e-3), partial(fit_projected, iterations=3), fit_last_layer):
        fill = neural(GRID, partial(Siren, GRID, widths=(20, 20)), fit)
        assert torch.equal(fill(x, y), fill(x, y))


def test_adam_is_the_published_recipe(rng):
    """Fields of different sizes are fitted alike, and the head is given back in their units."""
    f = torch.stack([fields(1)[0], 1e3 * fields(1)[0]])
    x, y = sampled(f, 200, rng)
    net = MLP(GRID, 2, (30, 30))
    with torch.no_grad():
        net.head.weight[1], net.head.bias[1] = net.head.weight[0], net.head.bias[0]
    fit_adam(net, x, y, updates=50)
    torch.testing.assert_close(1e3 * on_grid(net, GRID)[0], on_grid(net, GRID)[1])
    fit_adam(net, x, 0 * y, updates=2)
    assert net(x).abs().max() < 1e-100


# -- fields ----------------------------------------------------------------------------------------------------------
def test_interpolator_keeps_the_shape_of_a_batch(rng):
    f = fields(6).reshape(3, 2, *GRID.shape)
    x, y = sampled(f, 300, rng)
    fill = neural(GRID, partial(FourierFeatures, GRID, numbers=longest(60)), fit_last_layer)
    assert fill(x, y, sigma=0.1).shape == f.shape
    torch.testing.assert_close(fill(x, y[1, 0]), fill(x, y)[1, 0])


@pytest.mark.parametrize("term", ["dx(f)", "dy(dx(f))", "lap(f)", "J(f, lap(g))", "f*dx(dx(dx(g)))"])
def test_derivatives_are_the_spectral_ones(term):
    """Of a field that the grid holds, with products too, which dealiasing 3/2 keeps."""
    net = FourierFeatures(GRID, 2, strongest_waves(GRID, GRID.invK2, 12)[0], PowerLaw(GRID))
    f, g = (GRID.fft(a) for a in on_grid(net, GRID))
    e = parse(term)
    expected = GRID.ifft(Spectral(GRID, {"f": f, "g": g})(e))
    found = pointwise(e, derivatives(net, points(), ("f", "g")))
    assert relative(found.reshape(GRID.shape), expected) < 1e-10


@every_network
def test_derivatives_are_slopes(make):
    net, x, step = make(outputs=2), points()[:4] + 0.03, 1e-5
    derivative = derivatives(net, x, ("f", "g"))
    for i, direction in enumerate(torch.eye(2, dtype=torch.float64)):
        slope = (net(x + step * direction) - net(x - step * direction))[:, 1] / (2 * step)
        assert relative(derivative("g", 1 - i, i), slope) < 1e-6
    assert torch.equal(derivative("f", 0, 0), net(x)[:, 0])


def test_derivatives_can_be_trained():
    net = Siren(GRID, 1, (10,), 5.0)
    derivatives(net, points()[:9], ("f",))("f", 2, 1).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.layers.parameters())


# -- refusals --------------------------------------------------------------------------------------------------------
X, Y = points()[:20], torch.linspace(0, 1, 40, dtype=torch.float64).reshape(2, 20)


@pytest.mark.parametrize("fit", [fit_adam, fit_last_layer, fit_projected])
@pytest.mark.parametrize(("positions", "values", "message"), [
    (X, Y[:1], "values must have the shape"),
    (X, Y[:, 1:], "values must have the shape"),
    (X[:2], Y[:, :2], "m at least 3"),
    (X.T, Y, "positions must have the shape"),
    (X[0], Y, "positions must have the shape"),
    (X.log(), Y, "not finite"),
    (X, Y.log(), "not finite"),
])  # fmt: skip
def test_fits_refuse(fit, positions, values, message):
    with pytest.raises(ValueError, match=message):
        fit(MLP(GRID, 2, (10,)), positions, values)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: fit_last_layer(FourierFeatures(GRID, 2, longest(40)), X, Y, ridge=0.0), "do not fix the 80 weights"),
    (lambda: fit_last_layer(FourierFeatures(GRID, 2, longest(4)), X[:1].expand(20, 2), Y), "do not fix"),
    (lambda: strongest_waves(GRID, GRID.invK2, 10**4), "waves, 10000 are wanted"),
    (lambda: random_waves(GRID, -GRID.invK2, 3, 0), "not negative"),
    (lambda: strongest_waves(GRID, GRID.invK2[1:], 3), "a spectrum must be"),
    (lambda: FourierFeatures(GRID, 2, torch.ones(3)), "wave numbers must have the shape"),
    (lambda: MLP(GRID, 0), "at least 1"),
    (lambda: MLP(GRID, 1, (10, 0)), "at least 1"),
])  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_divergence_is_told():
    with pytest.raises(FloatingPointError, match="lower it"):
        fit_adam(FourierFeatures(GRID, 2, longest(4)), X, Y, updates=3, lr=math.inf)
