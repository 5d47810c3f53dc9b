"""Surrogates as steps, their files, windows of runs, and objectives of training."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import sciml as sm
from sciml.files import load_tensors, save_tensors
from sciml.losses import relative_l2
from sciml.nn.mgno import MgNO
from sciml.nn.unet import UNet
from sciml.objectives import Emulation, Supervised, drawn
from sciml.rollout import Trajectory
from sciml.surrogate import NETWORKS, Learned, Scaling, Surrogate, Windows
from sciml.train import fit
from tests import ROOT

SMALL = dict(width=8, layers=1, smoothings=((1, 1), (1, 0)))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scaling(n: int, std: float = 1.0) -> Scaling:
    return Scaling(torch.zeros(n, 1, 1), torch.full((n, 1, 1), std))


@pytest.fixture
def surrogate():
    torch.manual_seed(0)
    learned = Learned(MgNO(2, 2, **SMALL), scaling(2, 1e-5), scaling(2, 1e-6))
    return Surrogate(learned, sm.Grid(8, dealias=1), 86400.0, ("q1", "q2"))


# -- scaling ---------------------------------------------------------------------------------------------------------
def test_scaling_is_of_each_channel_and_goes_back():
    x = random(5, 2, 6, 6) * torch.tensor([3.0, 7.0])[:, None, None] + 4
    s = Scaling.of(x)
    z = s.scaled(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.square().mean((0, 2, 3)), torch.ones(2))
    torch.testing.assert_close(s.unscaled(z), x)
    assert torch.equal(Scaling.of(x, centred=False).mean, torch.zeros(2, 1, 1))


def test_scaling_works_on_lines():
    x = random(5, 2, 9)
    assert Scaling.of(x).scaled(x).shape == x.shape


@pytest.mark.parametrize(("values", "message"), [(math.nan, "not finite"), (2.0, "channel 1 is constant")])
def test_scaling_refuses(values, message):
    x = random(4, 2, 5, 5)
    x[:, 1] = values
    with pytest.raises(ValueError, match=message):
        Scaling.of(x)


# -- the step --------------------------------------------------------------------------------------------------------
def test_a_surrogate_is_a_step(surrogate):
    q = 1e-5 * random(3, 2, 8, 8).double()
    state = surrogate.init(q, time=5.0)
    torch.testing.assert_close(surrogate.read(state).double(), q, rtol=1e-6, atol=1e-12)
    run = sm.rollout(surrogate, 4, every=2)(q)
    assert run.fields.shape == (3, 3, 2, 8, 8)
    assert run.time.tolist() == [0.0, 2 * 86400.0, 4 * 86400.0]
    by_hand = surrogate(surrogate(state))
    assert by_hand.time == 5.0 + 2 * 86400.0
    assert torch.equal(surrogate.read(by_hand), run.fields[1])


def test_increments_are_in_their_units_and_have_no_mean(surrogate):
    q = 1e-5 * random(2, 8, 8)
    change = surrogate.learned.net(q[None] / 1e-5)[0] * 1e-6
    after = surrogate.read(surrogate(surrogate.init(q)))
    torch.testing.assert_close(after - q, change - change.mean((-2, -1), keepdim=True), rtol=1e-3, atol=1e-11)
    torch.testing.assert_close(after.mean((-2, -1)), q.mean((-2, -1)), rtol=0, atol=1e-11)


def test_files_give_the_same_surrogate(surrogate, tmp_path):
    surrogate.save(tmp_path / "w.safetensors", command="python", score=1.0)
    again = Surrogate.load(tmp_path / "w.safetensors")
    assert (again.grid, again.dt, again.names) == (surrogate.grid, surrogate.dt, surrogate.names)
    q = 1e-5 * random(2, 8, 8)
    assert torch.equal(again.read(again(again.init(q))), surrogate.read(surrogate(surrogate.init(q))))
    assert Learned.load(tmp_path / "w.safetensors").about["score"] == 1.0


def test_files_hold_any_network(tmp_path):
    net = UNet(1, 1, widths=(8, 8), boundary=("dirichlet", "periodic"))
    learned = Learned(net, scaling(1), scaling(1, 2.0))
    learned.save(tmp_path / "w.safetensors")
    again = Learned.load(tmp_path / "w.safetensors")
    x = random(1, 1, 8, 8)
    assert torch.equal(learned(x), again(x))
    with pytest.raises(ValueError, match="no time step"):
        Surrogate.load(tmp_path / "w.safetensors")


class Normalised(torch.nn.Module):
    """A network whose state is more than its parameters."""

    config = SimpleNamespace(inputs=1, outputs=1)

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(1)

    def forward(self, x):
        return self.norm(x)

    def about(self):
        return {}


def test_files_hold_running_means_of_a_network(tmp_path, monkeypatch):
    net = Normalised()
    net(3 + 2 * random(4, 1, 8, 8))
    learned = Learned(net.eval(), scaling(1), scaling(1))
    with pytest.raises(ValueError, match=r"NETWORKS\['Normalised'\] = Normalised first"):
        learned.save(tmp_path / "w.safetensors")
    monkeypatch.setitem(NETWORKS, "Normalised", Normalised)
    learned.save(tmp_path / "w.safetensors")
    x = random(2, 1, 8, 8)
    assert torch.equal(Learned.load(tmp_path / "w.safetensors")(x), learned(x))
    tensors, header = load_tensors(tmp_path / "w.safetensors")
    del tensors["net.norm.running_mean"]
    save_tensors(tmp_path / "w.safetensors", tensors, header)
    with pytest.raises(ValueError, match="running_mean of the network is missing"):
        Learned.load(tmp_path / "w.safetensors")


def test_other_files_are_refused(tmp_path):
    save_tensors(tmp_path / "other", {"a": torch.zeros(1)}, {"kind": "another"})
    with pytest.raises(ValueError, match="another"):
        Learned.load(tmp_path / "other")
    (tmp_path / "text").write_text("no")
    with pytest.raises(ValueError, match="damaged"):
        Learned.load(tmp_path / "text")


def test_a_file_without_its_scaling_is_refused(surrogate, tmp_path):
    surrogate.save(tmp_path / "w")
    tensors, header = load_tensors(tmp_path / "w")
    del tensors["inputs.std"]
    save_tensors(tmp_path / "w", tensors, header)
    with pytest.raises(ValueError, match="damaged"):
        Surrogate.load(tmp_path / "w")


@pytest.mark.parametrize(("fields", "message"), [
    (torch.zeros(3, 8, 8), "q1, q2, got"),
    (torch.zeros(2, 16, 16), "2, 8, 8"),
    (torch.full((2, 8, 8), math.nan), "not finite"),
])  # fmt: skip
def test_refused_fields(surrogate, fields, message):
    with pytest.raises(ValueError, match=message):
        surrogate.init(fields)


def test_scalings_must_be_of_the_networks_channels():
    with pytest.raises(ValueError, match="2 inputs and 2 outputs"):
        Learned(MgNO(2, 2, **SMALL), scaling(3), scaling(2))


def test_a_surrogate_that_blows_up_says_when(surrogate):
    with torch.no_grad():
        surrogate.learned.net.head.weight.fill_(1e30)
    with pytest.raises(sm.BlowUp, match="stopped being finite at t ="):
        sm.rollout(surrogate, 50, every=50)(1e-5 * random(2, 8, 8))


def test_a_grid_that_drops_waves_drops_them_at_each_step(surrogate):
    own = replace(surrogate, grid=sm.Grid(8, dealias=2 / 3))
    q = 1e-5 * random(2, 8, 8)
    for state in (own.init(q), own(own.init(q))):
        waves = torch.fft.rfft2(state.z).abs()
        assert waves[..., 3:].max() < 1e-5
        assert waves[..., 3:6, :].max() < 1e-5
        assert waves[..., :3, :3].max() > 0.1
    assert torch.equal(surrogate.init(q).z, q / 1e-5)


# -- windows ---------------------------------------------------------------------------------------------------------
def test_windows_stay_in_their_run():
    runs = torch.arange(2 * 7.0).reshape(2, 7, 1, 1, 1)
    w = Windows(runs, 2)
    assert w.count(2) == 6
    found = w(range(6), 2)[..., 0, 0, 0].tolist()
    assert found == [[0, 2, 4], [1, 3, 5], [2, 4, 6], [7, 9, 11], [8, 10, 12], [9, 11, 13]]
    states, steps = w.scalings()
    assert float(states.std) == pytest.approx(math.sqrt(np.mean(np.arange(14.0) ** 2)))
    assert float(steps.std) == 2.0


def dataset(q, hours=24.0):
    eq = sm.TwoLayerQG.preset("eddy", nx=8)
    times = torch.arange(len(q), dtype=torch.float64) * hours * 3600
    return sm.to_dataset(Trajectory(times, q.double(), None), eq)


def test_windows_of_datasets():
    runs = [dataset(1e-5 * random(5, 2, 8, 8, seed=s)) for s in (0, 1)]
    windows, grid, dt = Windows.of(runs, every=2)
    assert (windows.runs.shape, windows.every, dt) == ((2, 5, 2, 8, 8), 2, 2 * 86400.0)
    assert (grid.shape, grid.Lx, grid.dealias) == ((8, 8), 1e6, 1)
    np.testing.assert_allclose(windows.runs[1, 3, 0], runs[1]["q"].values[3, 0], rtol=1e-6)


def test_windows_of_one_level_and_of_other_units_of_time():
    one = dataset(random(4, 2, 8, 8)).isel(lev=0, drop=True)
    windows, _, dt = Windows.of([one])
    assert (windows.runs.shape, dt) == ((1, 4, 1, 8, 8), 86400.0)
    days = one.assign_coords(time=("time", np.arange(4.0), {"units": "days since 2001-01-01"}))
    dates = one.assign_coords(time=np.datetime64("2001-01-01", "ns") + np.arange(4) * np.timedelta64(24, "h"))
    assert Windows.of([days])[2] == Windows.of([dates])[2] == 86400.0
    with pytest.raises(ValueError, match=r"at most one more, got .*; select one"):
        Windows.of([one.expand_dims(a=2, b=2)])


def test_datasets_that_do_not_fit_are_refused():
    uneven = dataset(random(4, 2, 8, 8)).isel(time=[0, 1, 3])
    with pytest.raises(ValueError, match="not evenly spaced"):
        Windows.of([uneven])
    with pytest.raises(ValueError, match=r"run 0 has no variable 'b', but .*; choose one with name="):
        Windows.of([uneven], name="b")


def test_an_emulator_learns_to_persist_and_decay():
    """Fields that halve each day: the increment is minus half the field."""
    q = 1e-5 * random(1, 2, 8, 8)
    run = dataset(torch.cat([q * 0.5**i for i in range(12)]))
    torch.manual_seed(0)
    found = sm.emulator(MgNO(2, 2, **SMALL), [run], updates=150, lr=1e-2, batch=4, autocast=False)
    after = found.read(found(found.init(q[0])))
    mean = q[0].mean((-2, -1), keepdim=True)
    assert (after - q[0] / 2 - mean / 2).norm() < 0.2 * q[0].norm() / 2


def test_a_checkpoint_of_other_runs_is_refused(tmp_path):
    runs = [dataset(torch.cat([1e-5 * random(1, 2, 8, 8) * f**i for i in range(12)])) for f in (0.5, 0.6)]

    def trained(run, **options):
        torch.manual_seed(0)
        return sm.emulator(MgNO(2, 2, **SMALL), [run], updates=4, batch=4, checkpoint=tmp_path / "c", **options)

    trained(runs[0])
    trained(runs[0])  # goes on
    with pytest.raises(ValueError, match=r"other settings|data"):
        trained(runs[1])
    with pytest.raises(ValueError, match="seed"):
        trained(runs[0], seed=1)


# -- objectives ------------------------------------------------------------------------------------------------------
def test_each_sample_is_used_once_before_any_is_used_again():
    seen = np.concatenate([drawn(0, u, 10, 4) for u in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert list(seen[:10]) != list(seen[10:])
    assert list(drawn(0, 3, 10, 4)) == list(drawn(0, 3, 10, 4))


def line(net=None, **options):
    """y = 2 x - 1 on fields of one channel."""
    x = random(12, 1, 8, 8)
    y = 2 * x - 1
    torch.manual_seed(1)
    net = net or MgNO(1, 1, width=8, layers=1, smoothings=((1, 0), (1, 0)))
    return Supervised(Learned(net, Scaling.of(x), Scaling.of(y)), x, y, relative_l2, batch=4, **options)


@pytest.mark.parametrize(("change", "message"), [
    (lambda y: y[:, 0], r"are \(samples, channels, \*points\) on the same points"),
    (lambda y: y[..., :1], "on the same points"),
    (lambda y: y.expand(-1, 3, -1, -1), r"the network gives \(1, 8, 8\) for a sample, targets have \(3, 8, 8\)"),
])  # fmt: skip
def test_targets_that_do_not_fit_are_refused(change, message):
    """They would be broadcast."""
    x = random(12, 1, 8, 8)
    y = change(2 * x)
    learned = Learned(MgNO(1, 1, **SMALL), Scaling.of(x), Scaling.of(x))
    with pytest.raises(ValueError, match=message):
        Supervised(learned, x, y, relative_l2, batch=4, unscaled=False)(0)


def test_training_learns_a_line():
    objective = line()
    first = float(objective(0).detach())
    fit(objective.learned.net, objective, 150, lr=1e-2, warm_up=10)
    assert float(objective(0).detach()) < 0.2 * first


def test_bfloat16_is_near_and_used_only_where_the_processor_has_it(monkeypatch):
    exact = float(line()(0).detach())
    for there in (True, False):
        monkeypatch.setattr("sciml.nn.layers.has_bfloat16", lambda kind, there=there: there)
        rough = float(line(autocast=True)(0).detach())
        assert (rough == exact) is not there
        assert rough == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("kind", ["supervised", "emulation"])
def test_interrupted_training_ends_with_the_same_weights(kind, tmp_path, surrogate):
    def objective():
        if kind == "supervised":
            return line()
        torch.manual_seed(0)
        learned = Learned(MgNO(2, 2, **SMALL), scaling(2), scaling(2))
        again = Surrogate(learned, sm.Grid(8, dealias=1), 1.0, ("q1", "q2"))
        return Emulation(again, Windows(random(2, 9, 2, 8, 8), 1), relative_l2, 4, lambda u: 1 + u // 4)

    def net(o):
        return (o.learned if kind == "supervised" else o.surrogate.learned).net

    whole = objective()
    expected = fit(net(whole), whole, 8, every=4, checkpoint=tmp_path / "a")

    class Interrupted(Exception):
        pass

    def interrupt(update, loss):
        if update == 8:
            raise Interrupted

    broken = objective()
    with pytest.raises(Interrupted):
        fit(net(broken), broken, 8, every=4, checkpoint=tmp_path / "b", log=interrupt)
    again = objective()
    found = fit(net(again), again, 8, every=4, checkpoint=tmp_path / "b")
    assert all(torch.equal(found[n], expected[n]) for n in expected)


TWO = """
import sys
import torch
from tests.test_surrogate import line
from sciml.train import fit, share
torch.set_num_threads(1)
objective = line()
objective.batch //= share()[1]
weights = fit(objective.learned.net, objective, 6, warm_up=2)
if share()[0] == 0:
    torch.save(weights, sys.argv[1])
"""


def test_two_processes_train_as_one(tmp_path):
    """Of half a batch each."""
    (tmp_path / "two.py").write_text(TWO)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    found = []
    for launcher in ([], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]):
        out = tmp_path / f"{len(launcher)}.pt"
        line = [sys.executable, *launcher, tmp_path / "two.py", out]
        subprocess.run(line, env=environment, check=True, capture_output=True, timeout=120)
        found.append(torch.load(out))
    one, two = found
    assert all(torch.allclose(one[n], two[n], rtol=1e-4, atol=1e-6) for n in one)


def test_a_loss_that_is_not_finite_names_update_and_samples():
    objective = line()
    objective.inputs[7] = math.nan
    with pytest.raises(FloatingPointError, match=r"loss of update \d is not finite \(samples 7\)"):
        fit(objective.learned.net, objective, 3)


def test_emulation_is_the_error_of_its_own_steps(surrogate):
    runs = 1e-5 * random(1, 6, 2, 8, 8)
    objective = Emulation(surrogate, Windows(runs, 1), relative_l2, 2, lambda u: 2, shifted=False)
    samples = np.random.default_rng([0, 0, 3]).choice(4, 2, replace=False)
    errors = []
    for s in samples:
        fields = sm.rollout(surrogate, 2)(runs[0, s]).fields
        errors += [relative_l2(fields[i][None] / 1e-5, runs[0, s + i][None] / 1e-5) for i in (1, 2)]
    torch.testing.assert_close(objective(3).detach(), torch.cat(errors).mean(), rtol=1e-5, atol=0)


def test_too_few_samples_are_refused(surrogate):
    with pytest.raises(ValueError, match="fewer than a batch of 8"):
        Emulation(surrogate, Windows(random(1, 4, 2, 8, 8), 1), relative_l2)(0)
    with pytest.raises(ValueError, match="3 inputs and 3 targets for batches of 8"):
        Supervised(Learned(MgNO(1, 1, **SMALL), scaling(1), scaling(1)), *[random(3, 1, 8, 8)] * 2, relative_l2)
