"""FuXi-DA's network and the analysis made of it."""

import numpy as np
import pytest
import torch

import sciml as sm
from sciml.assim.network import PLANES, Inputs, NetworkAnalysis
from sciml.nn.fuxida import Config, FuXiDA
from sciml.observations import concatenate, gridded, names, observations
from sciml.observe import level

SMALL = Config(background=3, observations=4, outputs=2, widths=(8, 8, 12), memory=4)


def awake(net: FuXiDA) -> FuXiDA:
    """With outputs that do not start at zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            if not p.any():
                p.copy_(0.1 * torch.randn(p.shape, generator=generator))
    return net.eval()


@pytest.mark.parametrize("shape", [(32, 32), (24, 40), (13, 19), (9, 8)])
def test_any_size_of_grid(shape):
    torch.manual_seed(0)
    net = awake(FuXiDA(SMALL))
    out = net(torch.randn(2, 3, *shape), torch.randn(2, 4, *shape))
    assert out.mean.shape == out.log_sigma.shape == (2, 2, *shape)
    assert out.memory.shape == (2, 4, -(-shape[0] // 2), -(-shape[1] // 2))
    again = net(torch.randn(2, 3, *shape), torch.randn(2, 4, *shape), out.memory)
    assert torch.isfinite(again.mean).all()


def test_the_box_is_periodic():
    """Inputs moved around the box by a cell of the coarsest resolution move the outputs."""
    torch.manual_seed(0)
    net = awake(FuXiDA(SMALL))
    b, o, m = torch.randn(1, 3, 32, 32), torch.randn(1, 4, 32, 32), torch.randn(1, 4, 16, 16)
    one = net(b, o, m)
    other = net(b.roll((16, -16), (-2, -1)), o.roll((16, -16), (-2, -1)), m.roll((8, -8), (-2, -1)))
    assert one.mean.std() > 1e-3
    assert torch.allclose(one.mean.roll((16, -16), (-2, -1)), other.mean, atol=1e-5)
    assert torch.allclose(one.memory.roll((8, -8), (-2, -1)), other.memory, atol=1e-5)


def test_an_untrained_network_changes_nothing_and_learns_in_all_its_parts():
    torch.manual_seed(0)
    net = FuXiDA(SMALL)
    b, o = torch.randn(1, 3, 16, 16), torch.randn(1, 4, 16, 16)
    assert not net(b, o).mean.any()
    net = awake(net)
    first = net(b, o)
    (net(b, o, first.memory).mean - torch.randn(1, 2, 16, 16)).square().mean().backward()
    idle = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == [], "every parameter takes part"


def test_memory_and_observations_matter_and_their_numbers_are_checked():
    torch.manual_seed(0)
    net = awake(FuXiDA(SMALL))
    b, o = torch.randn(1, 3, 16, 16), torch.randn(1, 4, 16, 16)
    plain = net(b, o)
    assert not torch.equal(plain.mean, net(b, 2 * o).mean)
    assert not torch.equal(plain.mean, net(b, o, plain.memory).mean)
    with pytest.raises(ValueError, match="takes 4 planes of observations, got 0"):
        net(b)
    with pytest.raises(ValueError, match="takes 3 background channels, got 2"):
        net(b[:, :2], o)
    blind = FuXiDA(Config(3, 0, 2, (8, 8), 0))
    assert blind(b).mean.shape == (1, 2, 16, 16)
    with pytest.raises(ValueError, match="takes 0 planes of observations, got 4"):
        blind(b, o)
    with pytest.raises(ValueError, match="must be positive"):
        Config(0, 1, 1)


# -- as an analysis --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def setting():
    """A small model, inputs for a network and a window of observations, some in the same cell."""
    eq = sm.TwoLayerQG.preset("eddy", 16)
    step, grid = sm.rk4(eq, 14400.0), eq.grid
    z = eq.init(sm.random_pv(eq, seed=0, members=4, speed=0.02))

    def psi(z):
        return grid.ifft(eq.psi(z))

    std = psi(z).std((0, 2, 3))
    inputs = Inputs(sm.Space(grid, psi, eq.pv), std, lambda z: psi(z) / std[:, None, None], ("a", "b"), (10.0, 20.0), 3)
    H = sm.Operator(grid, psi, (sm.Channel("b", level(2), 20.0), sm.Channel("a", level(1), 10.0)))
    rng = np.random.default_rng(0)
    time = np.sort(rng.uniform(1.0, 4 * step.dt, 60))
    x, y = rng.uniform(0, grid.Lx, 60), rng.uniform(0, grid.Ly, 60)
    x[10:20], y[10:20] = x[10], y[10]
    parts = [
        observations(rng.normal(size=30), sigma, time[i::2], x[i::2], y[i::2], channels=[c], platforms=[c])
        for i, (c, sigma) in enumerate([("a", 10.0), ("b", 40.0)])
    ]
    window = sm.windows(concatenate(parts), H, 0.0, step.dt, 4, 1)[0]
    return eq, step, z, inputs, window


def test_planes_are_those_of_the_gridded_view(setting):
    eq, _, _, inputs, window = setting
    departures = torch.linspace(-2, 2, len(window), dtype=torch.float64)
    planes = inputs.observations(inputs.cells(window), departures)
    planes = planes.reshape(len(PLANES), inputs.frames, 2, *eq.grid.shape).numpy()
    scaled = window.obs.assign(value=("obs", departures.numpy(), window.obs["value"].attrs))
    view = gridded(scaled, eq.grid, 0.0, 4 * window.dt, inputs.frames)
    order = [list(view["channel"].values).index(c) for c in inputs.channels]
    expected = {n: view[n].values[:, order].astype(float) for n in PLANES}
    mask = expected["mask"] > 0
    assert mask.sum() < len(window), "some cells have several observations"
    usual = np.array(inputs.sigma)[None, :, None, None]
    assert np.allclose(planes[0], expected["value"] / 3, atol=1e-6)
    assert np.array_equal(planes[1], expected["mask"])
    assert np.allclose(planes[2], np.log1p(expected["count"]))
    assert np.allclose(planes[3], expected["age"] / (4 * window.dt), atol=1e-6)
    assert np.allclose(planes[4][mask], np.log(np.where(mask, expected["sigma"], usual) / usual)[mask], atol=1e-6)


def test_only_chosen_observations_are_shown(setting):
    _, _, _, inputs, window = setting
    keep = window.obs["platform"].values == 0
    departures = torch.ones(len(window))
    some = inputs.observations(inputs.cells(window, keep), departures)
    left = window.obs.isel(obs=np.flatnonzero(keep))
    alone = inputs.observations(
        inputs.cells(sm.windows(left, window.operator, 0.0, window.dt, 4, 1)[0]), departures[keep]
    )
    assert torch.allclose(some, alone)
    assert names(window.obs, "platform") == ["a", "b"]
    doubled = inputs.cells(window, noisier=2.0).fixed[3] - inputs.cells(window).fixed[3]
    assert torch.allclose(doubled[doubled != 0], torch.tensor(np.log(2.0), dtype=torch.float32))


def test_analysis_adds_the_increment_and_cycles(setting):
    eq, step, z, inputs, window = setting
    torch.manual_seed(0)
    net = awake(FuXiDA(Config(4, inputs.planes, 2, (8, 8), 4)))
    analysis = NetworkAnalysis(net, inputs)
    first = analysis(sm.State(z[0]), window, step)
    added = inputs.space.read(first.state.z - first.background.z) / inputs.std[:, None, None]
    assert added.std() > 1e-3
    assert first.state.time == pytest.approx(4 * step.dt)
    assert first.memory.sigma.shape == (2, *eq.grid.shape)
    assert (first.memory.sigma > 0).all()
    again = analysis(sm.State(z[0]), window, step, first.memory)
    assert not torch.equal(again.state.z, first.state.z), "memory counts"
    nothing = sm.windows(window.obs.isel(obs=slice(0, 0)), window.operator, 0.0, step.dt, 4, 1)[0]
    assert torch.isfinite(analysis(sm.State(z[0]), nothing, step).state.z.abs()).all()


def test_channels_that_the_network_does_not_know_are_refused(setting):
    _, step, z, inputs, window = setting
    other = Inputs(inputs.space, inputs.std, inputs.see, ("a",), (10.0,))
    net = FuXiDA(Config(4, other.planes, 2, (8, 8), 0))
    with pytest.raises(ValueError, match="knows the channels a, not b"):
        NetworkAnalysis(net, other)(sm.State(z[0]), window, step)
