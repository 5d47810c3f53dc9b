"""Integration of many trajectories at once, against scipy, exact solutions and the order of the method; data sets."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from sciml.equation.expression import Apply, Field, Number, Param, exp, leaves, parse, sin, tanh
from sciml.prose.ordinary import SUBSTEPS, SYSTEMS
from sciml.prose.polynomials import random_systems
from sciml.prose.system import System
from sciml.prose.trajectories import compiled, generate, integrate, with_noise

TIMES = torch.linspace(0, 6, 192, dtype=torch.float64)
FEW = [SYSTEMS[name] for name in ("thomas", "sprott_linz_f", "lorenz96_4")]


def dop853(rhs, u0, times):
    """A trajectory by scipy, the right-hand side read by sympy."""
    import sympy as sp

    names = sp.symbols([f"u_{i}" for i in range(len(rhs))])
    f = sp.lambdify(names, [sp.sympify(str(e)) for e in rhs], "numpy")
    t = times.numpy()
    out = solve_ivp(lambda _, u: f(*u), (t[0], t[-1]), u0.numpy(), "DOP853", t, rtol=1e-10, atol=1e-12)
    return torch.from_numpy(out.y.T)


# -- compiled right-hand sides ---------------------------------------------------------------------------------------
def test_every_operator_means_what_it_says():
    x, y, p = Field("u_0"), Field("u_1"), Param("p")
    constant = Apply("sin", (Number(2.0),))
    rhs = (
        exp(-x * y) + tanh(p * x) ** 3 - 2 * constant * x + 0.5,
        (3 + y**2) ** -1 * (x - 2 * y) + x**2.5 * p - 3 * p + sin(x) * sin(x) * y,
        p * 2 + constant,
    )
    *u, values = torch.rand(4, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u = torch.stack(u, -1)
    a, b, q = u[..., 0].numpy(), u[..., 1].numpy(), values.numpy()
    expected = (
        np.exp(-a * b) + np.tanh(q * a) ** 3 - 2 * np.sin(2) * a + 0.5,
        (a - 2 * b) / (3 + b**2) + a**2.5 * q - 3 * q + np.sin(a) ** 2 * b,
        2 * q + np.sin(2),
    )
    np.testing.assert_allclose(compiled(rhs)(u, {"p": values}), np.stack(expected, -1), rtol=1e-13, atol=1e-14)


def test_numbers_without_a_value_give_nan_and_constants_keep_the_shape():
    bad = Apply("pow", (Number(-2.0), Number(0.5)))
    out = compiled((Apply("mul", (bad, Field("u_1"))), Number(1.0)))(torch.rand(7, 2), {})
    assert out.shape == (7, 2)
    assert out[:, 0].isnan().all()
    assert (out[:, 1] == 1).all()


def test_compiled_functions_refuse_what_does_not_fit():
    f = compiled(SYSTEMS["thomas"].rhs)
    with pytest.raises(ValueError, match=r"\(\.\.\., 3\)"):
        f(torch.rand(5, 4), {"b": torch.tensor(1.0)})
    with pytest.raises(ValueError, match=r"\['b'\] have no values"):
        f(torch.rand(5, 3), {})
    with pytest.raises(ValueError, match="derivatives"):
        compiled((parse("dx(u_0)"),))


# -- integration -----------------------------------------------------------------------------------------------------
def test_error_falls_with_the_fourth_power_of_the_step():
    """Harmonic oscillator, whose solution is known, at uneven times."""
    times = torch.tensor([0.0, 0.5, 2.0, 3.0], dtype=torch.float64)
    rhs, u0 = (parse("u_1"), parse("-u_0")), torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    exact = torch.stack([torch.stack([times.cos(), -times.sin()], -1), 2 * torch.stack([times.sin(), times.cos()], -1)])
    errors = [float((integrate(rhs, {}, u0, times, k) - exact).abs().max()) for k in (8, 16, 32)]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert orders == pytest.approx([4, 4], abs=0.1)
    assert errors[-1] < 1e-6


SHORTER = {"chen_lee": 128, "double_pendulum": 128}
"""Numbers of times, up to t = 4, for the families that multiply errors most."""


@pytest.mark.parametrize("name", SYSTEMS)
def test_trajectories_agree_with_scipy(name):
    system, generator = SYSTEMS[name], torch.Generator().manual_seed(11)
    times, n = TIMES[: SHORTER.get(name, 192)], 8
    params = system.sample(n, generator)
    u0 = 4 * torch.rand(n, len(system.rhs), generator=generator, dtype=torch.float64) - 2
    u = integrate(system.rhs, params, u0, times, SUBSTEPS.get(name, 8))
    kept = (u.abs() < system.bound).all(-1).all(-1).nonzero()[:3, 0].tolist()
    assert len(kept) == 3
    for k in kept:
        reference = dop853(system.written({key: float(p[k]) for key, p in params.items()}), u0[k], times)
        assert float((u[k] - reference).norm(dim=-1).max() / reference.norm(dim=-1).max()) < 1e-6


def test_gradients_pass_through_the_integration():
    """du(t)/db of ``du/dt = -b u`` is ``-t u(t)``."""
    b = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    u = integrate((parse("-b*u_0", ("b",)),), {"b": b}, torch.ones(2, 1, dtype=torch.float64), TIMES[:33])[:, -1, 0]
    (gradient,) = torch.autograd.grad(u.sum(), b)
    torch.testing.assert_close(gradient, (-TIMES[32] * u).detach(), rtol=1e-7, atol=0)


def test_integration_refuses_what_it_cannot_run():
    rhs, u0 = (parse("-u_0"),), torch.ones(2, 1)
    with pytest.raises(ValueError, match="increases"):
        integrate(rhs, {}, u0, torch.tensor([0.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="substeps"):
        integrate(rhs, {}, u0, TIMES, 0)
    with pytest.raises(ValueError, match="u0 must have shape"):
        integrate(rhs, {}, torch.ones(2, 3), TIMES)


# -- data sets -------------------------------------------------------------------------------------------------------
def test_a_data_set_holds_what_its_equations_say():
    data = generate(FEW, 7, 3, seed=5, times=TIMES[:20])
    assert data.u.shape == (21, 20, 5)
    assert data.u.dtype == torch.float32
    assert data.equation.tolist() == [i for i in range(7) for _ in range(3)]
    assert data.family.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert data.dims.tolist() == [3, 3, 4, 3, 3, 4, 3]
    assert data.names == ("thomas", "sprott_linz_f", "lorenz96_4")
    assert (data.u[:, 0].abs() <= 2).all()
    for k in (0, 4, 8, 20):
        dim = int(data.dims[data.equation[k]])
        assert (data.u[k, :, dim:] == 0).all()
        reference = dop853(data.equations[int(data.equation[k])], data.u[k, 0, :dim].double(), TIMES[:20])
        torch.testing.assert_close(data.u[k, :, :dim], reference.float(), rtol=1e-4, atol=1e-4)


def test_equal_seeds_give_equal_bits_and_batches_do_not_matter():
    a, b, c = (generate(FEW, 6, 8, seed=s, times=TIMES[:16], batch=n) for s, n in ((1, None), (1, 5), (2, None)))
    assert torch.equal(a.u, b.u)
    assert a.equations == b.equations
    assert not torch.equal(a.u, c.u)


def test_trajectories_that_leave_are_drawn_again_or_refused():
    """About half of the trajectories of Sprott-Linz F leave for infinity before t = 6."""
    system = SYSTEMS["sprott_linz_f"]
    first = 4 * torch.rand(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 2
    u = integrate(system.rhs, {"a": torch.tensor(0.5)}, first, TIMES, 4)
    assert 5 < int((~(u.abs() < 1e3).all(-1).all(-1)).sum()) < 35
    assert generate([system], 2, 20, seed=0, substeps=4).u.abs().max() < 1e3
    hopeless = System("burst", (parse("1 + u_0**2"),), {}, bound=10.0)
    with pytest.raises(ValueError, match="'burst' are not finite or larger than 10 from 3 initial states"):
        generate([hopeless], 1, 4, seed=0, tries=3, substeps=1)


def test_split_shares_no_equation_though_draws_repeat():
    data = generate(FEW, 180, 2, seed=3, times=TIMES[:2], substeps=1)
    assert len(set(data.equations[::3])) < 40  # Thomas: 35 values of three digits within 10 % of 0.17
    train, test = data.split(0.2, seed=1)
    assert len(train) + len(test) == len(data)
    trained, tested = ({data.equations[i] for i in part.equation.tolist()} for part in (train, test))
    assert not trained & tested
    assert {int(data.family[i]) for i in test.equation} == {0, 1, 2}
    assert 0.1 < len(test) / len(data) < 0.3
    with pytest.raises(ValueError, match="between 0 and 1"):
        data.split(1.0)
    with pytest.raises(ValueError, match="one equation only"):
        generate(FEW, 3, 2, seed=0, times=TIMES[:2]).split(0.5)


def test_selection_keeps_trajectory_and_equation_together():
    data = generate(FEW, 6, 2, seed=3, times=TIMES[:3])
    some = data.select(torch.tensor([7, 2]))
    assert torch.equal(some.u, data.u[[7, 2]])
    assert some.equation.tolist() == [3, 1]
    assert len(data.select(data.equation == 4)) == 2


def test_impossible_data_sets_are_refused():
    with pytest.raises(ValueError, match="dmax = 3"):
        generate(FEW, 3, 1, seed=0, dmax=3)
    with pytest.raises(ValueError, match="fewer than the 3 families"):
        generate(FEW, 2, 1, seed=0)
    with pytest.raises(ValueError, match="at least one"):
        generate([], 2, 1, seed=0)


def test_noise_has_the_size_asked_for_and_leaves_padding_alone():
    u = torch.randn(300, 64, 5, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 300)[:, None, None]
    u[..., 3:] = 0
    noise = with_noise(u, 0.02, torch.Generator().manual_seed(1)) - u
    ratio = noise.flatten(1).norm(dim=1) / u.flatten(1).norm(dim=1)
    assert float(ratio.mean()) == pytest.approx(0.02, rel=0.01)
    assert float(ratio.std()) < 0.002
    assert (noise[..., 3:] == 0).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_data_sets_are_the_same_on_cuda():
    a, b = (generate(FEW, 6, 8, seed=1, times=TIMES[:16], device=device) for device in ("cpu", "cuda"))
    assert a.equations == b.equations
    torch.testing.assert_close(a.u, b.u.cpu())
    assert [len(part) for part in a.split(0.4)] == [len(part) for part in b.split(0.4)]


# -- random polynomials ----------------------------------------------------------------------------------------------
def test_random_systems_are_bounded_distinct_and_repeatable():
    systems = random_systems(8, seed=4)
    assert [s.rhs for s in systems] == [s.rhs for s in random_systems(8, seed=4)]
    assert len({s.rhs for s in systems}) == 8
    assert {len(s.rhs) for s in systems} == {2, 3, 4}
    long = generate(systems, 8, 20, seed=0, times=torch.linspace(0, 20, 80), substeps=12, tries=1)
    assert float(long.u.abs().max()) < 40
    with pytest.raises(ValueError, match="dims of 2 or more"):
        random_systems(3, seed=0, dims=(1, 2))


def test_exchanges_keep_the_energy():
    """``u . du/dt`` is zero where only the parameters that two right-hand sides share, those of exchanges, are not."""
    exchanges = 0
    for system in random_systems(20, seed=6):
        names = [name for e in system.rhs for name in leaves(e, Param)]
        values = {name: float(names.count(name) - 1) * c for name, c in system.centres.items()}
        u = torch.randn(9, len(system.rhs), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        tendency = compiled(system.written(values))(u, {})
        assert float((tendency * u).sum(-1).abs().max()) < 1e-12
        exchanges += int(tendency.abs().max() > 0.1)
    assert exchanges == 20
