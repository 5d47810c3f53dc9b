"""Repeated steps: times, ensembles, gradients, and what is said when a run blows up or must."""

import re

import pytest
import torch

import sciml as sm
from sciml.rollout import CHECK_EVERY, check_stability, states, suggested

F64 = torch.float64


def eddies(nx: int = 16, **changes):
    return sm.preset("eddy", nx, **changes)


@pytest.mark.parametrize(("n", "every"), [(6, 1), (6, 2), (6, 3), (6, 6), (0, 1), (0, 5)])
@pytest.mark.parametrize("members", [None, 2])
def test_times_and_shapes(n, every, members):
    """The start and each every-th step, equal to stepping by hand."""
    eq = eddies(12, ny=10)
    step = sm.ab3(eq, 7200.0)
    q = sm.random_pv(eq, seed=0, members=members)
    run = sm.rollout(step, n, every)(q)
    assert run.time.tolist() == [7200.0 * i for i in range(0, n + 1, every)]
    assert run.time.dtype == F64
    assert run.fields.shape == (n // every + 1, *q.shape)
    state, kept = step.init(q), []
    for i in range(n + 1):
        kept += [step.read(state)] if i % every == 0 else []
        state = step(state) if i < n else state
    assert torch.equal(run.fields, torch.stack(kept))
    assert torch.equal(run.state.z, state.z)
    assert run.state.time == state.time


def test_goes_on_from_a_state():
    step = sm.ab3(eddies(), 7200.0)
    q = sm.random_pv(step.equation, seed=0)
    once = sm.rollout(step, 8, 4)(q)
    twice = sm.rollout(step, 4, 4)(sm.rollout(step, 4, 4)(q).state)
    assert torch.equal(twice.fields[-1], once.fields[-1])
    assert twice.time.tolist() == once.time.tolist()[1:]


@pytest.mark.parametrize(("n", "every"), [(5, 2), (3, 4), (-2, 1), (4, 0), (4, -1)])
def test_uneven_numbers_are_refused(n, every):
    step = sm.rk4(eddies(), 7200.0)
    for make in (sm.rollout, states):
        with pytest.raises(ValueError, match=rf"steps \({n}\) must be a multiple of the saving interval \({every}\)"):
            make(step, n, every)


def test_states_lie_in_memory_as_a_file_gives_them_back():
    """Whatever a step does; otherwise sums of a resumed run round differently."""
    step = sm.ab3(eddies(12, ny=15), 7200.0)
    start = step.init(sm.random_pv(step.equation, seed=0))

    def turned(state):
        z, *memory = (t.transpose(-1, -2).contiguous().transpose(-1, -2) for t in (state.z, *state.memory))
        assert not z.is_contiguous()
        return state._replace(z=z, memory=tuple(memory))

    found = states(lambda state: turned(step(state)), 4, 2)(turned(start))
    for state, truth in zip(found, states(step, 4, 2)(start), strict=True):
        assert all(t.is_contiguous() for t in (state.z, *state.memory))
        assert torch.equal(state.z, truth.z)


@pytest.mark.parametrize("name", sm.STEPPERS)
def test_members_equal_single_runs(name):
    eq = eddies(12, ny=15, dealias=2 / 3)
    run = sm.rollout(sm.STEPPERS[name](eq, 7200.0), 20, 10)
    q = sm.random_pv(eq, seed=0, members=6).reshape(3, 2, 2, 15, 12)
    together = run(q).fields
    for i, j in ((0, 0), (2, 1)):
        alone = run(q[i, j]).fields
        assert (together[:, i, j] - alone).abs().max() < 1e-13 * alone.abs().max()
    assert not torch.allclose(together[-1, 0, 0], together[-1, 2, 1], rtol=0.1)


def test_save_chooses_what_is_kept():
    step = sm.rk4(eddies(), 7200.0)
    q = sm.random_pv(step.equation, seed=0)
    energy = sm.rollout(step, 4, 2, save=lambda s: step.equation.energy(s.z))(q)
    assert energy.fields.shape == (3,)
    assert torch.equal(energy.fields[-1], step.equation.energy(energy.state.z))
    kept = sm.rollout(step, 2, 1, save=lambda s: {"t": s.time})(q).fields
    assert kept == [{"t": 0.0}, {"t": 7200.0}, {"t": 14400.0}]


def test_ordinary_equations():
    run = sm.rollout(sm.rk4(sm.equation.Lorenz96(n=5), 0.01), 10, 5)(torch.rand(3, 5, dtype=F64))
    assert run.fields.shape == (3, 3, 5)


@pytest.mark.parametrize("every", [1, 3])
def test_gradients_flow(every):
    """Directional derivative of a loss on all saved times by autograd and by central differences."""
    step = sm.ab3(eddies(8), 7200.0)
    q = sm.random_pv(step.equation, seed=0)
    direction = sm.random_pv(step.equation, seed=1)
    weight = torch.randn(6 // every + 1, *q.shape, dtype=F64, generator=torch.Generator().manual_seed(2))

    def loss(a):
        return (weight * (sm.rollout(step, 6, every)(q + a * direction).fields * 1e5) ** 2).sum()

    a = torch.zeros((), dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(a), a)
    difference = (loss(1e-4) - loss(-1e-4)) / 2e-4
    assert abs(slope) > 1e-3
    assert torch.isclose(slope, difference, rtol=1e-6)


def test_quiet_where_no_terminal_reads(capfd):
    sm.rollout(sm.rk4(eddies(8), 7200.0), 4, progress="eddy")(sm.random_pv(eddies(8), seed=0))
    assert capfd.readouterr() == ("", "")


# -- blow-up -----------------------------------------------------------------------------------------------------------
BLOWN = re.compile(
    r"stopped being finite at t = (\S+); the CFL number was (\S+) at t = (\S+?)(?:, passed 1 at t = (\S+),)? with "
    r"dt = (\S+)\. Try dt = (\S+), more dissipation, or the stepper etdrk4"
)


@pytest.mark.parametrize("every", [1, 50, 2 * CHECK_EVERY])
def test_blow_up_says_when_why_and_what_to_try(every):
    eq = eddies(16, filterfac=0)
    dt = 2e6
    step = sm.ab3(eq, dt)
    q = sm.random_pv(eq, seed=0, speed=0.1)
    with pytest.raises(sm.BlowUp) as caught:
        sm.rollout(step, 4 * CHECK_EVERY, every)(q)
    after, cfl, before, passed, told, tried = (float(x) for x in BLOWN.search(str(caught.value)).groups("nan"))
    assert before < after <= before + min(every, CHECK_EVERY) * dt
    assert every == 1 or before < passed < after
    steps = round(after / dt)
    last = sm.rollout(step, steps - 1)(q).state if steps > 1 else step.init(q)
    assert torch.isfinite(last.z.abs().sum())
    assert not torch.isfinite(step(last).z.abs().sum())
    state = sm.rollout(step, round(before / dt), max(1, round(before / dt)))(q).state if before else step.init(q)
    assert torch.isfinite(state.z.abs().sum())
    assert cfl == pytest.approx(eq.cfl(state.z, dt), rel=1e-2)
    assert told == dt
    assert dt / 10 <= tried <= dt / 2
    with pytest.raises(FloatingPointError):
        sm.rollout(step, round(after / dt), round(after / dt))(q)


def test_infinite_start_is_a_blow_up():
    step = sm.rk4(eddies(8), 7200.0)
    q = sm.random_pv(step.equation, seed=0)
    q[1, 2, 3] = torch.nan
    with pytest.raises(sm.BlowUp, match="the fields at t = 0 are not finite"):
        sm.rollout(step, 2)(q)


def test_one_member_that_blows_up_is_enough():
    eq = sm.equation.Lorenz63()
    start = torch.tensor([[1.0, 1.0, 1.0], [1e150, 1e150, 1e150]], dtype=F64)
    with pytest.raises(sm.BlowUp):
        sm.rollout(sm.rk4(eq, 0.01), 20)(start)


@pytest.mark.parametrize(
    ("cfl", "factor"),
    [(0.1, 0.5), (0.4, 0.5), (1.0, 0.2), (100.0, 0.1), (torch.inf, 0.1), (0.0, 0.5), (torch.nan, 0.5)],
)
def test_suggested_step(cfl, factor):
    assert suggested(100.0, cfl) == pytest.approx(100.0 * factor)


# -- blow-ups that are certain -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["ab3", "rk4"])
def test_too_large_a_step_is_refused_at_once(name):
    eq = eddies(32)
    q = sm.random_pv(eq, seed=0)
    limit = {"ab3": 0.72, "rk4": 2 * 2**0.5}[name] / (0.65 * torch.pi) / eq.cfl(eq.init(q), 1.0)
    good, bad = (sm.STEPPERS[name](eq, f * limit) for f in (0.99, 1.01))
    check_stability(good, good.init(q))
    with pytest.raises(sm.BlowUp, match=r"must blow up: the CFL number of the start is .*Try dt = ") as caught:
        check_stability(bad, bad.init(q))
    better = sm.STEPPERS[name](eq, float(str(caught.value).split("Try dt = ")[1]))
    check_stability(better, better.init(q))


@pytest.mark.parametrize("name", ["ab3", "rk4"])
def test_refused_steps_do_blow_up(name):
    """What is called certain is: waves carried by the mean flow grow in the linear model."""
    eq = sm.TwoLayerQG(grid=sm.Grid(16, Lx=1e6), U1=1.0, U2=1.0)
    q = sm.random_pv(eq, seed=0, speed=1e-9)
    limit = {"ab3": 0.72, "rk4": 2 * 2**0.5}[name] / (0.65 * torch.pi) / eq.cfl(eq.init(q), 1.0)
    good, bad = (sm.STEPPERS[name](eq, f * limit) for f in (0.9, 1.15))
    size = sm.rollout(good, 400, 400, save=lambda s: s.z.abs().max())(q).fields
    assert size[1] < 2 * size[0]
    with pytest.raises(sm.BlowUp, match="must blow up"):
        check_stability(bad, bad.init(q))
    with pytest.raises(sm.BlowUp, match="stopped being finite"):
        sm.rollout(bad, 2 * CHECK_EVERY, CHECK_EVERY)(q)


@pytest.mark.parametrize(("name", "limit"), [("ab3", 6 / 11), ("rk4", 2.785), ("euler", 2.0)])
def test_too_stiff_a_term_is_refused_at_once(name, limit):
    """Hyperviscosity whose fastest decay lies 20 % outside the stability region, and 5 % inside."""
    dt = 7200.0
    kmax2 = float(eddies(16).grid.K2.max())
    for factor, good in ((0.95, True), (1.2, False)):
        eq = eddies(16, filterfac=0, nu=factor * limit / dt / kmax2**4, nu_order=4, rek=0)
        step = sm.STEPPERS[name](eq, dt)
        q = sm.random_pv(eq, seed=0)
        if good:
            check_stability(step, step.init(q))
            continue
        with pytest.raises(sm.BlowUp, match=r"a linear mode decays at .*etdrk4 or imex"):
            check_stability(step, step.init(q))
        noise = q + 1e-12 * torch.randn(q.shape, dtype=F64, generator=torch.Generator().manual_seed(0))
        with pytest.raises(sm.BlowUp, match="stopped being finite"):
            sm.rollout(step, 20 * CHECK_EVERY, CHECK_EVERY)(noise)


@pytest.mark.parametrize("name", ["etdrk4", "imex"])
def test_implicit_steppers_take_stiff_terms(name):
    eq = eddies(16, filterfac=0, nu=1e3 / 7200.0 / float(eddies(16).grid.K2.max()) ** 4, nu_order=4)
    step = sm.STEPPERS[name](eq, 7200.0)
    check_stability(step, step.init(sm.random_pv(eq, seed=0)))
    run = sm.rollout(step, CHECK_EVERY, CHECK_EVERY)(sm.random_pv(eq, seed=0))
    assert run.fields[-1].abs().max() < 10 * run.fields[0].abs().max()


@pytest.mark.parametrize("config", ["eddy", "jet", "phillips"])
@pytest.mark.parametrize("name", ["euler", "ab3", "rk4", "etdrk4", "imex"])
def test_published_set_ups_are_accepted(config, name):
    step = sm.STEPPERS[name](sm.preset(config, 64), 7200.0)
    check_stability(step, step.init(sm.random_pv(step.equation, seed=0)))


def test_equations_without_advection_are_accepted():
    step = sm.rk4(sm.equation.Lorenz63(), 0.01)
    check_stability(step, step.init(torch.ones(3, dtype=F64)))
