"""FuXi-DA's network and the analysis made of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import sciml as sm
from sciml.assim.base import covariance, trajectory
from sciml.assim.hybrid import Hybrid
from sciml.assim.network import PLANES, FuXiDA, Inputs, first_guess
from sciml.files import load_tensors, save_tensors
from sciml.nn.fuxida import Config, FuXiDANet
from sciml.observations import concatenate, gridded, names, observations
from sciml.observe import level

SMALL = Config(background=3, observations=4, outputs=2, widths=(8, 8, 12), memory=4)


def awake(net: FuXiDANet) -> FuXiDANet:
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
    net = awake(FuXiDANet(SMALL))
    out = net(torch.randn(2, 3, *shape), torch.randn(2, 4, *shape))
    assert out.mean.shape == out.log_sigma.shape == (2, 2, *shape)
    assert out.memory.shape == (2, 4, -(-shape[0] // 2), -(-shape[1] // 2))
    again = net(torch.randn(2, 3, *shape), torch.randn(2, 4, *shape), out.memory)
    assert torch.isfinite(again.mean).all()


def test_the_box_is_periodic():
    """Inputs moved around the box by a cell of the coarsest resolution move the outputs."""
    torch.manual_seed(0)
    net = awake(FuXiDANet(SMALL))
    b, o, m = torch.randn(1, 3, 32, 32), torch.randn(1, 4, 32, 32), torch.randn(1, 4, 16, 16)
    one = net(b, o, m)
    other = net(b.roll((16, -16), (-2, -1)), o.roll((16, -16), (-2, -1)), m.roll((8, -8), (-2, -1)))
    assert one.mean.std() > 1e-3
    assert torch.allclose(one.mean.roll((16, -16), (-2, -1)), other.mean, atol=1e-5)
    assert torch.allclose(one.memory.roll((8, -8), (-2, -1)), other.memory, atol=1e-5)


def test_an_untrained_network_changes_nothing_and_learns_in_all_its_parts():
    torch.manual_seed(0)
    net = FuXiDANet(SMALL)
    b, o = torch.randn(1, 3, 16, 16), torch.randn(1, 4, 16, 16)
    assert not net(b, o).mean.any()
    net = awake(net)
    first = net(b, o)
    (net(b, o, first.memory).mean - torch.randn(1, 2, 16, 16)).square().mean().backward()
    idle = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == [], "every parameter takes part"


def test_memory_and_observations_matter_and_their_numbers_are_checked():
    torch.manual_seed(0)
    net = awake(FuXiDANet(SMALL))
    b, o = torch.randn(1, 3, 16, 16), torch.randn(1, 4, 16, 16)
    plain = net(b, o)
    assert not torch.equal(plain.mean, net(b, 2 * o).mean)
    assert not torch.equal(plain.mean, net(b, o, plain.memory).mean)
    with pytest.raises(ValueError, match="takes 4 planes of observations, got 0"):
        net(b)
    with pytest.raises(ValueError, match="takes 3 background channels, got 2"):
        net(b[:, :2], o)
    blind = FuXiDANet(Config(3, 0, 2, (8, 8), 0))
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

    std = {"psi": tuple(psi(z).std((0, 2, 3)).tolist())}
    inputs = Inputs(sm.Space(grid, psi, eq.pv), {"psi": psi}, std, ("a", "b"), (10.0, 20.0), 3)
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


def test_companions_are_analysed_as_if_they_were_alone(setting):
    """In two windows, with a memory each."""
    _, step, z, inputs, window = setting
    torch.manual_seed(0)
    analysis = FuXiDA(awake(FuXiDANet(Config(4, inputs.seen, 2, (8, 8), 4))), inputs)
    batch, memory, alone = z[:2], None, [(sm.State(one), None) for one in z[:2]]
    for _ in range(2):
        results = [analysis(state._replace(time=0.0), window, step, own) for state, own in alone]
        states, _ = trajectory(step, sm.State(batch), window.steps)
        batch, memory = analysis.companions(window, results[0], states, window.equivalents(states), memory)
        alone = [(r.state, r.memory) for r in results]
        for one, r in zip(batch, results, strict=True):
            assert torch.allclose(one, r.state.z, rtol=1e-4, atol=1e-9)
    assert not torch.allclose(batch[0], batch[1])


def test_analysis_adds_the_increment_and_cycles(setting):
    eq, step, z, inputs, window = setting
    torch.manual_seed(0)
    net = awake(FuXiDANet(Config(4, inputs.seen, 2, (8, 8), 4)))
    analysis = FuXiDA(net, inputs)
    first = analysis(sm.State(z[0]), window, step)
    added = inputs.space.read(first.state.z - first.background.z) / inputs.scale()
    assert added.std() > 1e-3
    assert first.state.time == pytest.approx(4 * step.dt)
    assert first.memory.sigma.shape == (2, *eq.grid.shape)
    assert (first.memory.sigma > 0).all()
    again = analysis(sm.State(z[0]), window, step, first.memory)
    assert not torch.equal(again.state.z, first.state.z), "memory counts"
    with pytest.warns(UserWarning, match="without observations, there are none"):
        nothing = sm.windows(window.obs.isel(obs=slice(0, 0)), window.operator, 0.0, step.dt, 4, 1)[0]
    assert torch.isfinite(analysis(sm.State(z[0]), nothing, step).state.z.abs()).all()


def test_channels_that_the_network_does_not_know_are_refused(setting):
    _, step, z, inputs, window = setting
    other = Inputs(inputs.space, inputs.fields, inputs.std, ("a",), (10.0,))
    net = FuXiDANet(Config(4, other.seen, 2, (8, 8), 0))
    with pytest.raises(ValueError, match="knows the channels a, not b"):
        FuXiDA(net, other)(sm.State(z[0]), window, step)


def test_sizes_of_network_and_inputs_must_agree(setting):
    inputs = setting[3]
    for config in (Config(5, inputs.seen, 2), Config(4, 7, 2), Config(4, inputs.seen, 1)):
        with pytest.raises(ValueError, match=r"the network takes .* these inputs have 4 and 30, and 2 levels"):
            FuXiDA(FuXiDANet(config), inputs)


def test_planes_can_be_left_out(setting):
    """As in the published reader, which shows values alone."""
    _, _, _, inputs, window = setting
    departures = torch.linspace(-2, 2, len(window), dtype=torch.float64)
    whole, some = inputs, replace(inputs, planes=("value", "age"))
    first, second = (i.observations(i.cells(window), departures) for i in (whole, some))
    parts = first.reshape(len(PLANES), -1, 16, 16)
    assert torch.equal(second, torch.cat([parts[0], parts[3]]))
    assert some.seen == 12
    alone = replace(inputs, planes=("value",))
    assert torch.equal(alone.observations(alone.cells(window), departures), parts[0])
    with pytest.raises(ValueError, match="the planes are value and some of mask, count"):
        replace(inputs, planes=("mask", "value"))


def test_other_numbers_of_levels_are_refused(setting):
    _, _, z, inputs, _ = setting
    three = {"psi": lambda z: torch.cat([inputs.space.read(z), inputs.space.read(z)[..., :1, :, :]], -3)}
    with pytest.raises(ValueError, match="knows 2 levels of psi, this model has 3"):
        replace(inputs, fields=three).background(z[:2])


def test_waves_tell_the_place(setting):
    inputs = replace(setting[3], harmonics=3)
    waves = inputs.waves()
    assert waves.shape == (12, 16, 16)
    assert inputs.backgrounds == 4 + 12
    assert torch.allclose(waves.square().mean((-2, -1)), torch.full((12,), 0.5, dtype=waves.dtype))
    assert torch.allclose(torch.einsum("ayx,byx->ab", waves, waves) / 128, torch.eye(12, dtype=waves.dtype), atol=1e-6)
    assert inputs.background(torch.stack([setting[2][:3]] * 2)).shape == (3, 16, 16, 16)


# -- with an ensemble ------------------------------------------------------------------------------------------------
def test_hybrid_is_between_the_filter_and_the_network(setting):
    """Its mean is weighted, its anomalies are the filter's, and it remembers for both."""
    _, step, z, inputs, window = setting
    torch.manual_seed(0)
    net = FuXiDA(awake(FuXiDANet(Config(4, inputs.seen, 2, (8, 8), 4))), inputs)
    local = sm.LETKF(inputs.space, 200e3, 1.02, rotate=True)
    many = sm.State(z)
    alone, one = local(many, window, step), net(sm.State(z.mean(0)), window, step)
    means = []
    for weight in (0.0, 0.25, 1.0):
        done = Hybrid(local, net, weight)(many, window, step)
        anomalies = done.state.z - done.state.z.mean(0)
        assert torch.allclose(anomalies, alone.state.z - alone.state.z.mean(0))
        means.append(done.state.z.mean(0))
    assert torch.allclose(means[0], alone.state.z.mean(0))
    assert torch.allclose(means[2], one.state.z)
    assert torch.allclose(means[1], 0.75 * means[0] + 0.25 * means[2])
    again = Hybrid(local, net, 1.0)(many, window, step, done.memory)
    assert torch.equal(again.memory.network.hidden, net(sm.State(z.mean(0)), window, step, one.memory).memory.hidden)
    with pytest.raises(ValueError, match=r"from 0 to 1, got 1\.5"):
        Hybrid(local, net, 1.5)


def test_hybrid_of_one_state(setting):
    """Between 4D-Var's analysis and the network's, of which it remembers both."""
    _, step, z, inputs, window = setting
    torch.manual_seed(0)
    net = FuXiDA(awake(FuXiDANet(Config(4, inputs.seen, 2, (8, 8), 4))), inputs)
    four = sm.FourDVar(covariance(inputs.space.grid, z - z.mean(0)), lag=2, outer=1, inner=2)
    start = sm.State(z[0])
    alone, one = four(start, window, step), net(start, window, step)
    done = Hybrid(four, net, 0.25)(start, window, step)
    assert torch.allclose(done.state.z, 0.75 * alone.state.z + 0.25 * one.state.z)
    assert len(done.memory.classical.windows) == 1
    assert torch.equal(done.memory.network.hidden, one.memory.hidden)


# -- weights ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def kept(setting, tmp_path):
    """A network's analysis, and the file of its weights."""
    torch.manual_seed(0)
    analysis = FuXiDA(awake(FuXiDANet(Config(4, setting[3].seen, 2, (8, 8), 4))), setting[3])
    analysis.save(tmp_path / "weights.safetensors", seed=3)
    return analysis, tmp_path / "weights.safetensors"


def test_weights_are_all_that_is_needed(setting, kept):
    _, step, z, inputs, window = setting
    analysis, path = kept
    again = FuXiDA.load(path, inputs.space, inputs.fields, setting[4].operator)
    first, second = (a(sm.State(z[0]), window, step) for a in (analysis, again))
    assert torch.equal(first.state.z, second.state.z)
    assert again.inputs.about() == inputs.about()
    assert load_tensors(path)[1]["about"] == {"seed": 3}


def test_weights_for_something_else_are_refused(setting, kept, tmp_path):
    inputs, (_, path) = setting[3], kept
    fields = {"psi": inputs.space.read, "q": inputs.space.read}
    with pytest.raises(ValueError, match=r"weights.safetensors is of a network for the fields psi, not for psi, q"):
        FuXiDA.load(path, inputs.space, fields, setting[4].operator)
    whole = path.read_bytes()
    for name, content in (("cut", whole[:-100]), ("short", whole[:50]), ("empty", b""), ("text", b"weights" * 99)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            FuXiDA.load(tmp_path / name, inputs.space, inputs.fields, setting[4].operator)
    with pytest.raises(ValueError, match="nowhere is missing"):
        FuXiDA.load(tmp_path / "nowhere", inputs.space, inputs.fields, setting[4].operator)
    tensors, header = load_tensors(path)
    save_tensors(tmp_path / "other", tensors, header | {"kind": "mgno"})
    with pytest.raises(ValueError, match="holds no weights of this network but mgno"):
        FuXiDA.load(tmp_path / "other", inputs.space, inputs.fields, setting[4].operator)
    tensors.pop("out.bias")
    save_tensors(tmp_path / "lacking", tensors, header)
    with pytest.raises(ValueError, match=r"(?s)lacking is damaged.*out.bias"):
        FuXiDA.load(tmp_path / "lacking", inputs.space, inputs.fields, setting[4].operator)


def test_a_damaged_bit_and_numbers_that_are_none_are_refused(setting, kept, tmp_path):
    inputs, (analysis, path) = setting[3], kept
    about = inputs.space, inputs.fields, setting[4].operator
    bits = bytearray(path.read_bytes())
    bits[-1000] ^= 16
    (tmp_path / "bit").write_bytes(bits)
    with pytest.raises(ValueError, match=r"bit is damaged.*its numbers are not those that were written"):
        FuXiDA.load(tmp_path / "bit", *about)
    with torch.no_grad():
        analysis.net.out.bias[0] = torch.nan
    analysis.save(tmp_path / "nan")
    with pytest.raises(ValueError, match=r"nan is damaged.*numbers of out\.bias are not finite"):
        FuXiDA.load(tmp_path / "nan", *about)


def test_weights_of_another_problem_are_refused(setting, kept, tmp_path):
    """Another spacing of the grid, another length of windows, channels of the same name that measure something else."""
    eq, step, z, inputs, window = setting
    analysis, path = kept
    wide = replace(eq.grid, Lx=2 * eq.grid.Lx)
    with pytest.raises(ValueError, match=r"is of a network for dx = 62500, this grid has 125000; train another"):
        FuXiDA.load(path, replace(inputs.space, grid=wide), inputs.fields, window.operator)
    timed = FuXiDA(analysis.net, replace(inputs, length=2 * window.steps * window.dt))
    with pytest.raises(ValueError, match="trained with windows of 115200 s, this one has 57600 s"):
        timed(sm.State(z[0]), window, step)
    B = covariance(inputs.space.grid, z - z.mean(0))
    first = first_guess(inputs, B.root, window.operator, 2)
    torch.manual_seed(0)
    guessing = replace(inputs, first=first)
    FuXiDA(FuXiDANet(Config(6, inputs.seen, 2, (8, 8), 4)), guessing).save(tmp_path / "w")
    assert FuXiDA.load(tmp_path / "w", inputs.space, inputs.fields, window.operator).inputs.about() == guessing.about()
    swapped = sm.Operator(
        eq.grid, inputs.space.read, (sm.Channel("b", level(1), 20.0), sm.Channel("a", level(1), 10.0))
    )
    with pytest.raises(ValueError, match="for which channel b measures something else than with this operator"):
        FuXiDA.load(tmp_path / "w", inputs.space, inputs.fields, swapped)


def test_a_memory_of_another_method_is_refused(setting, kept):
    _, step, z, _, window = setting
    with pytest.raises(ValueError, match="the memory, a tuple, is of another method; start with None"):
        kept[0](sm.State(z[0]), window, step, (1, 2))


def test_methods_without_an_analysed_trajectory_state_no_departures_from_it(setting, kept):
    """Of neither part of a hybrid: the trajectory of its classical part is not that of the weighted mean."""
    _, step, z, inputs, window = setting
    local = sm.LETKF(inputs.space, 200e3, 1.02)
    for analysis, start in ((kept[0], z[0]), (Hybrid(local, kept[0]), z)):
        found = sm.cycle(step, analysis, [window], sm.State(start), inputs.space.read)
        assert found.departures[0].analysis.isnan().all()
        assert found.departures[0].background.isfinite().all()
