"""Derivatives of the compiled advection against those that autograd finds through the plain torch path."""

from __future__ import annotations

import pytest
import torch

import sciml as sm
from sciml.assim.minimise import linearised
from sciml.equation import loops, qg_fast

pytestmark = pytest.mark.skipif(not loops.compiled(), reason="needs numba and pyfftw")

GRIDS = [(32, 2 / 3), (27, 2 / 3), (24, 1.5), (21, 1.5), (32, 1.0), (27, 1.0)]


def both(monkeypatch, n: int, dealias: float, dtype=torch.float64, hills: bool = False):
    """The equation with compiled derivatives, the same in plain torch, a state and two directions."""
    eta = 1e-5 * torch.randn(n, n, generator=torch.Generator().manual_seed(2), dtype=dtype) if hills else None
    compiled, plain = (sm.TwoLayerQG.preset("eddy", n, dtype=dtype, dealias=dealias, topography=eta) for _ in range(2))
    z = compiled.init(sm.random_pv(compiled, seed=0, members=3, speed=0.02))
    compiled.tendency(z)
    with monkeypatch.context() as patch:
        patch.setattr(qg_fast, "plain", lambda *tensors: False)
        plain.tendency(z)
    generator = torch.Generator().manual_seed(1)
    y, v = (torch.randn(z.shape, dtype=z.dtype, generator=generator) for _ in range(2))
    return compiled, plain, z, y, v


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-13) -> bool:
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


@pytest.mark.parametrize("hills", [False, True])
@pytest.mark.parametrize(("n", "dealias"), GRIDS)
def test_first_and_second_derivatives_are_those_of_the_plain_path(monkeypatch, n, dealias, hills):
    compiled, plain, z, y, v = both(monkeypatch, n, dealias, hills=hills)
    found = []
    for eq in (compiled, plain):
        x = z.clone().requires_grad_()
        value = eq.tendency(x)
        (first,) = torch.autograd.grad(value, x, y, create_graph=True)
        (second,) = torch.autograd.grad(first, x, v)
        found.append((value.detach(), first.detach(), second, torch.func.jvp(eq.tendency, (z,), (v,))[1]))
    assert all(close(a, b) for a, b in zip(*found, strict=True))


def test_the_compiled_path_is_the_one_that_is_taken(monkeypatch):
    compiled, plain, z, _, _ = both(monkeypatch, 32, 2 / 3)
    names = []
    for eq in (compiled, plain):
        node, seen = eq.tendency(z.clone().requires_grad_()).grad_fn, []
        todo = [node]
        while todo:
            node = todo.pop()
            seen.append(type(node).__name__)
            todo += [n for n, _ in node.next_functions if n is not None]
        names.append("AdvectionBackward" in seen)
    assert names == [True, False]


@pytest.mark.parametrize(("n", "dealias"), GRIDS)
def test_tangent_and_adjoint_agree(monkeypatch, n, dealias):
    eq, _, z, y, v = both(monkeypatch, n, dealias)
    tangent = torch.func.jvp(eq.tendency, (z,), (v,))[1]
    adjoint = torch.func.vjp(eq.tendency, z)[1](y)[0]
    one, other = ((y.conj() * tangent).real.sum(), (adjoint.conj() * v).real.sum())
    assert abs(one - other) <= 1e-12 * abs(one)


def test_derivatives_of_the_tangent_and_of_the_adjoint(monkeypatch):
    """Third derivatives vanish and mixed second ones agree, as the advection is quadratic."""
    compiled, plain, z, y, v = both(monkeypatch, 24, 1.5)
    found = []
    for eq in (compiled, plain):

        def slope(x, eq=eq):
            return torch.func.jvp(eq.tendency, (x,), (v,))[1]

        found.append((torch.func.vjp(slope, z)[1](y)[0], torch.func.jvp(slope, (z,), (y,))[1]))
    assert all(close(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("dealias", [2 / 3, 1.0])
def test_tangent_that_4dvar_finds_as_the_adjoint_of_an_adjoint(monkeypatch, dealias):
    eq, _, z, _, v = both(monkeypatch, 32, dealias, hills=True)
    step = sm.rk4(eq, 3600.0)

    def two_steps(x: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(step(step(sm.State(torch.view_as_complex(x)))).z)

    x, p = torch.view_as_real(z), torch.view_as_real(v)
    value, tangent, adjoint = linearised(two_steps, x)
    assert close(value, two_steps(x))
    assert close(tangent(p), torch.func.jvp(two_steps, (x,), (p,))[1], 1e-12)
    assert close(adjoint(value), torch.func.vjp(two_steps, x)[1](value)[0], 1e-12)


def test_vmap_over_directions(monkeypatch):
    eq, _, z, y, v = both(monkeypatch, 24, 1.5)
    directions = torch.stack([y, v])
    batched = torch.func.vmap(lambda d: torch.func.jvp(eq.tendency, (z,), (d,))[1])(directions)
    one_by_one = torch.stack([torch.func.jvp(eq.tendency, (z,), (d,))[1] for d in directions])
    assert close(batched, one_by_one)
    pulled = torch.func.vmap(torch.func.vjp(eq.tendency, z)[1])(directions)[0]
    assert close(pulled[1], torch.func.vjp(eq.tendency, z)[1](v)[0])
    values = torch.func.vmap(eq.tendency)(z)
    assert close(values, eq.tendency(z))


def test_single_precision_stays_single(monkeypatch):
    compiled, plain, z, y, _ = both(monkeypatch, 32, 2 / 3, torch.float32)
    x = z.clone().requires_grad_()
    (first,) = torch.autograd.grad(compiled.tendency(x), x, y)
    (reference,) = torch.autograd.grad(plain.tendency(x), x, y)
    assert first.dtype == torch.complex64
    assert close(first, reference, 1e-5)
