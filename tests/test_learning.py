"""What a training through assimilation cycles minimises: its gradients, its random networks, its truths."""

import math

import numpy as np
import pytest
import torch

import sciml as sm
from sciml.assim.learning import observed_truth
from sciml.assim.network import LARGE, PLANES, Memory
from sciml.instruments import Instrument, points
from sciml.nn.layers import evened
from tests.test_fuxida import setting  # noqa: F401
from tests.test_train import cycling


def copied(state: dict) -> dict:
    return {n: t.clone() for n, t in state.items()}


def gradient_beside_difference(one, names: str, size: float = 1e-3) -> tuple[float, float]:
    """Slope of the loss along a random direction of parameters whose names begin so, by autograd and by difference."""
    own = {n: p for n, p in one.analysis.net.named_parameters() if n.startswith(tuple(names.split()))}
    generator = torch.Generator().manual_seed(1)
    along = {n: torch.randn(p.shape, generator=generator) * (p.detach().std() if p.numel() > 1 else 1) for n, p in
             own.items()}  # fmt: skip
    start, values = copied(one.state()), []
    for sign in (1.0, -1.0):
        one.restore(copied(start))
        with torch.no_grad():
            for n, p in own.items():
                p += sign * size * along[n]
            values.append(float(one(0)))
            for n, p in own.items():
                p -= sign * size * along[n]
    one.restore(copied(start))
    one.analysis.net.zero_grad()
    one(0).backward()
    slope = sum(float((p.grad * along[n]).sum()) for n, p in own.items() if p.grad is not None)
    return slope, (values[0] - values[1]) / (2 * size)


@pytest.mark.parametrize("names", ["keep remember", "out", "observations condition"])
def test_gradients_of_all_parts_are_those_of_differences(setting, names):  # noqa: F811
    """Of the memory too, which acts on the next analysis alone: cut between cycles, its gradient would be nothing."""
    one = cycling(setting, restart=0.0)
    slope, difference = gradient_beside_difference(one, names)
    assert abs(difference) > 1e-6
    assert slope == pytest.approx(difference, rel=0.05)


def test_before_through_each_analysis_is_seen_alone(setting):  # noqa: F811
    """No gradient from one cycle to the next but that of the memory, and no loss of forecasts."""
    early, late, silent = (cycling(setting, restart=0.0, **o) for o in (
        {"through": 5}, {"through": 0}, {"through": 0, "forecast": 0.0}))  # fmt: skip
    losses = [one(0) for one in (early, late, silent)]
    assert losses[0].item() == pytest.approx(losses[2].item(), rel=1e-5)
    gradients = []
    for one, loss in zip((early, late, silent), losses, strict=True):
        loss.backward()
        gradients.append(one.analysis.net.out.weight.grad.clone())
    assert (gradients[0] - gradients[2]).norm() > 1e-2 * gradients[2].norm()
    assert not cycling(setting, through=5, cycles=1)(0).isnan()


def test_the_forecast_loss_is_the_error_of_forecasts(setting):  # noqa: F811
    none, one, two = (cycling(setting, restart=0.0, forecast=f)(0).item() for f in (0.0, 1.0, 2.0))
    assert two - one == pytest.approx(one - none, rel=1e-4)
    three = cycling(setting, restart=0.0)
    start, state = copied(three.state()), []
    three.step, original = (lambda s, step=three.step: state.append(s.z) or step(s)), three.step
    three(0)
    three.restore(start)
    ends = torch.stack([three.truths[t].ends[w + 1] for t, w in three.where.tolist()])
    last = original(sm.State(state[-1])).z
    assert one - none == pytest.approx(three.error(last - ends).item() / 2, rel=1e-4)


def test_a_cycle_that_starts_anew_forgets(setting):  # noqa: F811
    one = cycling(setting, restart=0.0, cycles=1)
    one(0)
    assert one.memory.hidden[0].any()
    one.anew(0, np.random.default_rng(0))
    assert not one.memory.hidden[0].any()
    assert one.memory.hidden[1].any()
    assert any(torch.equal(one.z[0], z) for z in one.climate), "it starts from the climate, which knows no truth"


class Seen(list):
    """Cells and departures that the network is shown."""

    def __init__(self, one):
        super().__init__()
        increment = one.analysis.increment

        def watched(states, cells, departures, memory):
            self.append((cells, departures))
            return increment(states, cells, departures, memory)

        object.__setattr__(one.analysis, "increment", watched)


def planes_of(one, cells) -> torch.Tensor:
    return cells.fixed.reshape(len(PLANES) - 1, -1)


def test_platforms_are_dropped_in_the_proportion_asked_for(setting):  # noqa: F811
    masks = {}
    for part in (0.0, 0.5, 1.0):
        one = cycling(setting, cycles=1, drop=((1.0, part),), batch=8)
        seen = Seen(one)
        for i in range(8):
            one(i)
        masks[part] = np.mean([float(planes_of(one, c)[0].sum()) for cells, _ in seen for c in cells])
    assert masks[1.0] == 0.0
    assert 0.3 * masks[0.0] < masks[0.5] < 0.7 * masks[0.0]


def test_more_noise_is_added_and_told(setting):  # noqa: F811
    plain, noisy = cycling(setting, cycles=1, restart=0.0), cycling(setting, cycles=1, restart=0.0, noisier=1.0)
    first, second = Seen(plain), Seen(noisy)
    plain(0)
    noisy(0)
    (cells, d), (more, e) = first[0], second[0]
    mask = planes_of(plain, cells[0])[0] > 0
    told = (planes_of(noisy, more[0])[3] - planes_of(plain, cells[0])[3])[mask]
    factor = math.exp(float(told[0]))
    assert torch.allclose(told, told[0], atol=1e-5)
    assert 1.0 < factor < 2.0
    added = factor * e[0] - d[0]
    assert float(added.std()) == pytest.approx((factor**2 - 1) ** 0.5, rel=0.4)


def test_the_likelihood_is_largest_where_the_stated_error_is_right(setting):  # noqa: F811
    one = cycling(setting)
    dz = one.climate[:1] - one.climate.mean(0)
    rms = one.analysis.inputs.space.read(dz).square().mean((-2, -1), keepdim=True).sqrt()
    hidden = torch.zeros(1)
    found = [float(one.unlikeliness(dz, Memory(hidden, f * rms.expand(1, 2, 16, 16)))) for f in (0.5, 1.0, 2.0)]
    assert found[1] < min(found[0], found[2])


def test_the_reliability_weighs_it(setting):  # noqa: F811
    none, some = (cycling(setting, restart=0.0, reliability=r)(0).item() for r in (0.0, 0.1))
    assert none != pytest.approx(some, rel=1e-3)


def test_large_departures_count_as_no_larger_than_the_limit(setting):  # noqa: F811
    inputs, window = setting[3], setting[4]
    cells, d = inputs.cells(window), torch.zeros(len(window), dtype=torch.float64)
    d[0] = 1e6
    assert float(inputs.observations(cells, d).reshape(len(PLANES), -1)[0].abs().max()) <= LARGE / 3 + 1e-6


def test_observed_truths_end_where_the_model_does(setting):  # noqa: F811
    _, step, z, _, window = setting
    H, places = window.operator, points([1e5, 3e5], [2e5, 4e5], every=step.dt)
    mooring = Instrument("mooring", places, tuple(H.channels))
    truth = observed_truth(step, sm.State(z[0]), 3, 4, H, [mooring], seed=1)
    state = sm.State(z[0])
    for cut, end in zip(truth.windows, truth.ends, strict=True):
        with torch.no_grad():
            states = [state.z]
            for _ in range(4):
                state = step(state)
                states.append(state.z)
        assert torch.equal(end, state.z)
        misfit = (cut.value - cut.equivalents(torch.stack(states))) / cut.sigma
        assert len(cut) > 10
        assert 0.5 < float(misfit.std()) < 1.5, "what is observed is this truth, with the stated error"
    turned = observed_truth(step, sm.State(z[0]), 1, 4, H, [mooring], 1, states=lambda z: 2 * z)
    assert torch.equal(turned.ends[0], 2 * truth.ends[0])


@pytest.mark.parametrize("shape", [(7, 8), (8, 7), (7, 7)])
def test_an_odd_number_of_points_goes_on_around_the_box(shape):
    x = torch.randn(1, 2, *shape)
    ny, nx = (n + n % 2 for n in shape)
    around = x[..., [i % shape[0] for i in range(ny)], :][..., [i % shape[1] for i in range(nx)]]
    assert torch.equal(evened(x), around)
