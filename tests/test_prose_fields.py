import pytest
import torch

from sciml.prose.fields import generate_fields
from sciml.prose.partial import PDE, PDES
from sciml.prose.states import gaussian_process

FAST = [PDES[name] for name in ("heat", "kdv", "wave", "logistic")]
SHORT = torch.linspace(0, 0.25, 9, dtype=torch.float64)


def test_shapes_types_and_families_in_turn():
    data = generate_fields(FAST, 6, 3, seed=0)
    assert data.u.shape == (18, 64, 128)
    assert data.u.dtype == data.t.dtype == data.x.dtype == torch.float32
    assert data.x[0] == 1 / 128
    assert data.t[-1] == 2
    assert data.names == ("heat", "kdv", "wave", "logistic")
    assert data.family.tolist() == [0, 1, 2, 3, 0, 1]
    assert data.dims.tolist() == [1, 1, 2, 1, 1, 1]
    assert data.equation.tolist() == [i for i in range(6) for _ in range(3)]
    assert data.u.isfinite().all()


def test_every_family_gives_finite_fields_also_from_the_shifted_states():
    for shape in (None, gaussian_process()):
        data = generate_fields(PDES.values(), 20, 1, seed=1, spread=0.2, times=SHORT, shape=shape)
        assert data.u.isfinite().all()
        assert data.u.abs().max() < 2
        assert (data.u.std(-1) > 1e-3).all()


def test_the_equation_written_is_the_one_that_is_solved():
    data = generate_fields(FAST, 8, 2, seed=2, times=SHORT)
    for i in range(len(data)):
        rhs = data.equations[int(data.equation[i])]
        pde = FAST[int(data.family[data.equation[i]])]
        start = torch.zeros(1, len(rhs), 128, dtype=torch.float64)
        start[0, 0] = data.u[i, 0]
        again = pde.solver(rhs, {}, start, SHORT, 128, 2.0)[0, :, 0]
        torch.testing.assert_close(again.float(), data.u[i], atol=1e-5, rtol=0)


def test_same_seed_same_bits_and_batches_do_not_matter():
    a, b = (generate_fields(FAST, 4, 5, seed=3, times=SHORT) for _ in range(2))
    assert torch.equal(a.u, b.u)
    c = generate_fields(FAST, 4, 5, seed=3, times=SHORT, batch=2)
    torch.testing.assert_close(a.u, c.u, atol=1e-6, rtol=0)
    assert a.equations == c.equations
    assert not torch.equal(a.u, generate_fields(FAST, 4, 5, seed=4, times=SHORT).u)


def test_split_shares_no_equation():
    data = generate_fields(FAST[:2], 40, 2, seed=5, times=SHORT)
    first, second = data.split(0.25, seed=1)
    of = [{data.equations[i] for i in part.equation.tolist()} for part in (first, second)]
    assert not of[0] & of[1]
    assert len(first) + len(second) == len(data)
    assert torch.equal(first.to("cpu").x, data.x)


def test_solutions_out_of_bounds_start_again():
    def bounded(bound):
        return PDE("heat", PDES["heat"].rhs, PDES["heat"].centres, bound=bound, states=(-1.0, 1.0), shape=mixed)

    def mixed(n, length, generator):
        """States of which every other, at random, is not a number."""
        bad = torch.rand(n, 1, generator=generator) < 0.5
        return lambda x: torch.where(bad, torch.nan, torch.sin(torch.pi * x))

    assert generate_fields([bounded(2.0)], 2, 8, seed=0, times=SHORT).u.isfinite().all()
    with pytest.raises(ValueError, match=r"of 'heat' are not finite or larger than 0.5 from 3 initial states"):
        generate_fields([bounded(0.5)], 2, 8, seed=0, times=SHORT, tries=3)


@pytest.mark.parametrize(("families", "equations", "conditions"), [([], 1, 1), (FAST, 3, 1), (FAST, 4, 0)])
def test_too_few_are_refused(families, equations, conditions):
    with pytest.raises(ValueError, match="at least"):
        generate_fields(families, equations, conditions, seed=0)
