"""The training loop, and training through assimilation cycles."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import sciml as sm
from sciml.assim.learning import Cycling, Truth, adopt
from sciml.assim.network import FuXiDA
from sciml.files import load_tensors
from sciml.nn.fuxida import Config, FuXiDANet
from sciml.train import fit, schedule
from tests.test_fuxida import awake, setting  # noqa: F401


class Regression:
    """y = 2 x - 1 from noisy batches; what it carries is a count."""

    def __init__(self, net: nn.Module, broken: tuple[int, ...] = ()):
        self.net, self.broken, self.calls = net, broken, torch.zeros(())

    def __call__(self, update: int) -> torch.Tensor:
        x = torch.randn(64, 1, generator=torch.Generator().manual_seed(update))
        self.calls = self.calls + 1
        loss = (self.net(x) - (2 * x - 1)).square().mean()
        return loss * float("nan") if update in self.broken else loss

    def state(self):
        return {"calls": self.calls}

    def restore(self, state):
        self.calls = state["calls"]


def line(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(1, 1)


def test_a_line_is_learnt_and_its_average_with_it():
    net = line()
    averaged = fit(net, Regression(net), 400, lr=0.05, weight_decay=0.0)
    assert net.weight.item() == pytest.approx(2, abs=1e-3)
    assert averaged["bias"].item() == pytest.approx(-1, abs=1e-2)


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path):
    whole, path = line(), tmp_path / "half.safetensors"
    expected = fit(whole, Regression(whole), 60, checkpoint=tmp_path / "whole.safetensors", every=20)
    half = line()

    class Killed(Regression):
        def __call__(self, update):
            if update == 47:
                raise KeyboardInterrupt
            return super().__call__(update)

    with pytest.raises(KeyboardInterrupt):
        fit(half, Killed(half), 60, checkpoint=path, every=20, about={"seed": 0})
    assert load_tensors(path)[1]["update"] == 40
    again = line(seed=5)
    objective = Regression(again)
    found = fit(again, objective, 60, checkpoint=path, every=20, about={"seed": 0})
    assert all(torch.equal(found[n], expected[n]) for n in expected)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters(), strict=True))
    assert objective.calls == 60
    for options, words in (({"lr": 3e-3}, r"lr 0\.001, not 0\.003"), ({"about": {"seed": 1}}, "seed 0, not 1")):
        with pytest.raises(ValueError, match=f"is of a training with {words}; go on with the same settings"):
            fit(line(), objective, 60, checkpoint=path, **{"about": {"seed": 0}} | options)
    other = nn.Linear(2, 1)
    with pytest.raises(ValueError, match="checkpoint of another network"):
        fit(other, Regression(other), 60, checkpoint=path, about={"seed": 0})


def test_buffers_and_updates_that_were_left_out_are_kept(tmp_path):
    """Running means of batch normalisation; a training that goes on may leave out no more than one that does not."""

    def net():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))

    broken = (3, 4, 5, 6, 7, 8)
    whole, half, again = net(), net(), net()
    fit(whole, Regression(whole, broken), 40, checkpoint=tmp_path / "whole", every=20)

    class Killed(Regression):
        def __call__(self, update):
            if update == 25:
                raise KeyboardInterrupt
            return super().__call__(update)

    with pytest.raises(KeyboardInterrupt):
        fit(half, Killed(half, broken), 40, checkpoint=tmp_path / "new" / "half", every=20)
    assert load_tensors(tmp_path / "new" / "half")[1]["skipped"] == 6
    with pytest.raises(FloatingPointError, match="11 updates up to 24"):
        fit(again, Regression(again, tuple(range(20, 25))), 40, checkpoint=tmp_path / "new" / "half", every=20)
    again = net()
    fit(again, Regression(again, broken), 40, checkpoint=str(tmp_path / "new" / "half"), every=20)
    assert all(torch.equal(a, b) for a, b in zip(again.buffers(), whole.buffers(), strict=True))


def test_updates_without_finite_gradient_are_left_out():
    net = line()
    fit(net, Regression(net, broken=(3, 4, 5)), 300, lr=0.05)
    assert net.weight.item() == pytest.approx(2, abs=1e-2)
    with pytest.raises(FloatingPointError, match="no finite gradient"):
        fit(net, Regression(net, broken=tuple(range(50))), 50)


class Noisy(Regression):
    """With a residual that cannot be fitted, and once, or from some update on, weights far off."""

    def __init__(self, net: nn.Module, off: tuple[int, ...]):
        super().__init__(net)
        self.off = off

    def __call__(self, update: int) -> torch.Tensor:
        if update in self.off:
            self.net.weight.data += 1e4
        return super().__call__(update) + 0.1


def test_a_training_comes_back_from_a_surge():
    """At a late update, with steps too small to return from 1e4: the averaged weights are put back at once."""
    net, losses = line(), []
    fit(net, Noisy(net, (250,)), 300, lr=0.05, every=1, log=lambda i, loss: losses.append(loss))
    assert net.weight.item() == pytest.approx(2, abs=0.05)
    assert max(losses[249:]) < 0.2
    with pytest.raises(FloatingPointError, match="no finite gradient"):
        fit(net, Noisy(net, tuple(range(20, 50))), 50)


def test_schedule():
    rates = [schedule(i, 100, 10) for i in range(100)]
    assert rates[0] == 0.1
    assert max(rates) == rates[9] == 1.0
    assert rates[-1] < 1e-3
    assert schedule(55, 100, 10) == pytest.approx(0.5)
    assert all(math.isfinite(r) for r in rates)


# -- through cycles --------------------------------------------------------------------------------------------------
def cycling(setting, **changes) -> Cycling:  # noqa: F811
    """Two truths of three windows, observed at the same places each."""
    eq, step, z, inputs, window = setting
    truths = []
    for number in range(2):
        cut, ends, state = [], [], sm.State(z[number])
        for _ in range(3):
            fields = eq.init(sm.rollout(step, 4, every=1)(eq.read(state.z)).fields)
            seen = window.obs.assign(value=("obs", window.equivalents(fields).numpy(), window.obs["value"].attrs))
            cut.append(sm.windows(seen, window.operator, 0.0, step.dt, 4, 1)[0])
            state = sm.State(fields[-1])
            ends.append(state.z)
        truths.append(Truth(cut, torch.stack(ends)))
    torch.manual_seed(0)
    net = awake(FuXiDANet(Config(4, inputs.seen, 2, (8, 8), 4))).train()
    measures = [lambda dz: inputs.space.read(dz) / inputs.scale()]
    options = dict(batch=3, cycles=2, autocast=False, drop=((1.0, 0.0),), noisier=0.0, reliability=0.0) | changes
    return Cycling(FuXiDA(net, inputs), step, truths, z[2:], measures, **options)


def test_the_gradient_goes_through_cycles_and_forecasts(setting):  # noqa: F811
    """Against a finite difference, and other than that of the last analysis alone."""
    one = cycling(setting)
    bias, start = one.analysis.net.out.bias, one.state()
    start = {n: t.clone() for n, t in start.items()}
    one(0).backward()
    gradient = bias.grad[0].item()
    values = []
    for shift in (1e-2, -1e-2):
        other = cycling(setting)
        other.restore({n: t.clone() for n, t in start.items()})
        with torch.no_grad():
            other.analysis.net.out.bias[0] += shift
            values.append(float(other(0)))
    assert gradient == pytest.approx((values[0] - values[1]) / 2e-2, rel=2e-2)


def test_cycles_go_on_and_start_again(setting):  # noqa: F811
    one = cycling(setting, restart=0.0, cycles=1)
    first, z = one.where.clone(), one.z.clone()
    one(0)
    assert torch.equal(one.where[:, 1], first[:, 1] + 1)
    assert not torch.equal(one.z, z)
    assert not one.z.requires_grad
    for i in range(1, 6):
        one(i)
    assert bool((one.where[:, 1] <= 3).all()), "at the end of a truth another one begins"
    with pytest.raises(ValueError, match="more than 5 windows"):
        cycling(setting, cycles=5)


def test_training_lowers_the_error(setting):  # noqa: F811
    one = cycling(setting, restart=0.3, batch=4)
    start = {n: t.clone() for n, t in one.state().items()}

    def loss() -> float:
        one.restore({n: t.clone() for n, t in start.items()})
        with torch.no_grad():
            return float(one(1000))

    before = loss()
    fit(one.analysis.net, one, 40, lr=3e-3, warm_up=5)
    assert loss() < 0.8 * before


def test_a_network_starts_from_another_one_that_was_shown_less(setting):  # noqa: F811
    """It answers the same until it learns what the new planes are for."""
    _, step, z, inputs, window = setting
    torch.manual_seed(0)
    old_inputs = replace(inputs, planes=("value", "mask"))
    old = FuXiDA(awake(FuXiDANet(Config(4, old_inputs.seen, 2, (8, 8), 4))), old_inputs)
    new_inputs = replace(inputs, harmonics=2)
    new = FuXiDA(FuXiDANet(Config(12, new_inputs.seen, 2, (8, 8), 4)).eval(), new_inputs)
    adopt(new, old)
    first, second = (a(sm.State(z[0]), window, step).state.z for a in (old, new))
    assert torch.allclose(first, second, rtol=1e-5, atol=1e-6 * float(first.abs().max()))
    other = FuXiDA(FuXiDANet(Config(4, inputs.seen, 2, (8, 12), 4)), inputs)
    with pytest.raises(ValueError, match=r"the networks differ in .*same widths"):
        adopt(other, old)
