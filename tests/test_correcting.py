"""Emulators of fields whose mean drifts, and such that correct a classical step: what they add to it, learn, files."""

import pytest
import torch

import sciml as sm
from sciml.nn.mgno import MgNO
from sciml.rollout import rollout
from sciml.surrogate import Learned, Scaling, Surrogate, Windows, often
from tests.test_surrogate import dataset, random

DT, DAY = 14400.0, 86400.0
SMALL = dict(width=8, layers=1, smoothings=((1, 0), (1, 0)))


def model(**changes):
    return sm.ab3(sm.preset("eddy", nx=16, dtype=torch.float32, **changes), DT)


@pytest.fixture(scope="module")
def truths():
    """Sixty days with another drag than the model's."""
    step = sm.ab3(sm.preset("eddy", nx=16, rek=3e-6), DT)
    runs = [sm.rollout(step, 360, every=6)(sm.random_pv(step.equation, seed=s)) for s in (0, 1)]
    return [sm.to_dataset(r, step.equation) for r in runs]


def surrogate(truths, step, days=2):
    torch.manual_seed(0)
    windows, grid, dt = Windows.of(truths, every=days)
    learned = Learned(MgNO(4, 2, **SMALL), *windows.scalings(step=step, times=often(step, grid, dt)))
    return Surrogate(learned, grid, dt, ("q1", "q2"), step=step)


def test_means_that_drift_are_learnt_where_nothing_conserves_them():
    """Temperatures near 290 that rise by 2 a day."""
    run = dataset(290 + 0.01 * random(1, 1, 8, 8) + 2 * torch.arange(12.0)[:, None, None, None].expand(12, 2, 1, 1))
    for conserving, error in ((False, 0.3), (True, 2.0)):
        torch.manual_seed(0)
        found = sm.emulator(MgNO(2, 2, **SMALL), [run], updates=150, lr=1e-2, batch=4, conserving=conserving,
                            autocast=False)  # fmt: skip
        q = torch.as_tensor(run["q"].values)
        after = found.read(found(found.init(q[4])))
        assert float((after - q[5]).abs().mean()) == pytest.approx(error, abs=error if not conserving else 0.01)


def test_without_a_correction_it_is_the_classical_model(truths):
    step = model()
    own = surrogate(truths, step)
    torch.nn.init.zeros_(own.learned.net.head.weight)
    q = sm.from_dataset(truths[0], step.equation)
    assert (own.every, own.dt) == (12, 2 * DAY)
    expected = rollout(step, 12, 12)(q.float()).fields[-1]
    assert (own.read(own(own.init(q))) - expected).norm() < 1e-5 * expected.norm()


def test_scales_of_changes_and_of_errors(truths):
    step = model()
    inputs, outputs = surrogate(truths, step).learned.inputs, surrogate(truths, step).learned.outputs
    assert inputs.mean.shape == (4, 1, 1)
    assert (inputs.mean == 0).all()
    assert (inputs.std[2:] < inputs.std[:2]).all()
    assert (outputs.std < inputs.std[2:]).all()  # the model is better than persistence


def test_it_learns_what_the_model_does_wrong(truths):
    step = model()
    torch.manual_seed(0)
    learnt = sm.emulator(MgNO(4, 2, **SMALL), truths[:1], updates=150, lr=1e-2, batch=4, step=step, autocast=False)
    test, _, dt = Windows.of(truths[1:])
    pairs = test(range(0, 50, 5), 1).double()
    after = learnt.read(learnt(learnt.init(pairs[:, 0]))).double()
    plain = rollout(step, 6, 6)(pairs[:, 0].float()).fields[-1].double()
    assert dt == DAY
    error, before = ((f - pairs[:, 1]).square().mean((0, 2, 3)).sqrt() for f in (after, plain))
    assert float(error[1]) < 0.6 * float(before[1])  # the lower layer, where drag acts


def test_gradients_go_through_the_classical_step(truths):
    own = surrogate(truths, model())
    z = own.init(sm.from_dataset(truths[0], own.step.equation)).z.requires_grad_()
    own.advanced(own.advanced(z)).square().sum().backward()
    assert torch.isfinite(z.grad).all()
    assert (z.grad.abs().amax((-2, -1)) > 0).all()


def test_files_ask_for_the_step(truths, tmp_path):
    step, path = model(), tmp_path / "w.safetensors"
    own = surrogate(truths, step)
    own.save(path)
    again = Surrogate.load(path, step)
    q = sm.from_dataset(truths[0], step.equation)
    assert torch.equal(again(again.init(q)).z, own(own.init(q)).z)
    with pytest.raises(ValueError, match="corrects a classical model: give its step"):
        Surrogate.load(path)
    with pytest.raises(ValueError, match="does not go into 172800 s"):
        Surrogate.load(path, sm.ab3(sm.preset("eddy", nx=16), 50000.0))
    one = Learned(MgNO(2, 2, **SMALL), *[Scaling(torch.zeros(2, 1, 1), torch.ones(2, 1, 1))] * 2)
    Surrogate(one, own.grid, own.dt, own.names).save(path)
    with pytest.raises(ValueError, match="corrects no classical model"):
        Surrogate.load(path, step)
    with pytest.raises(ValueError, match="that corrects a step needs a network of 4 inputs and 2 outputs"):
        Surrogate(one, own.grid, own.dt, own.names, step=step)


def test_another_step_is_refused_before_any_work_and_by_checkpoints(truths, tmp_path):
    def train(step, **options):
        torch.manual_seed(0)
        net = MgNO(4, 2, **SMALL)
        return sm.emulator(net, truths[:1], batch=4, step=step, autocast=False, **options)

    with pytest.raises(ValueError, match=r"a step of 50000 s .* does not go into 86400 s"):
        train(sm.ab3(sm.preset("eddy", nx=16), 50000.0), updates=2)
    train(model(), updates=2, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match="data"):
        train(model(rek=2e-6), updates=4, checkpoint=tmp_path / "c")
