"""Tokens of equations: exact round trips, order without regard to numbers, refusals."""

import math
import random

import pytest
import sympy as sp

import sciml
from sciml import Grid, Term
from sciml.equation import KortewegDeVries, KuramotoSivashinsky, Lorenz63, Lorenz96
from sciml.equation.expression import Apply, Coord, Field, Number, Param, canonical, parse, to_sympy
from sciml.equation.tokens import (
    OPERATORS,
    PLACEHOLDER,
    Vocabulary,
    from_sympy,
    number_of,
    number_tokens,
    read,
    representable,
    right_sides,
    skeleton,
    write,
)  # fmt: skip
from sciml.prose.ordinary import SYSTEMS
from sciml.prose.partial import PDES

FIELDS = tuple(f"u_{i}" for i in range(5))


def random_number(rng: random.Random) -> Number:
    if rng.random() < 0.4:
        return Number(float(rng.randint(-10, 10)))
    return Number(float(f"{rng.choice('+-')}{rng.randint(100, 999)}e{rng.randint(-8, 6)}"))


def random_tree(rng: random.Random, depth: int):
    """A tree in canonical order; those in which folding made a number of more digits are drawn again."""
    while True:
        try:
            e = _tree(rng, depth)
        except (ArithmeticError, ValueError):  # a division by zero, a power that overflows
            continue
        if representable(e):
            return e


def _tree(rng: random.Random, depth: int):
    if depth == 0 or rng.random() < 0.15:
        leaf = rng.random()
        return random_number(rng) if leaf < 0.25 else Coord("x") if leaf < 0.3 else Field(rng.choice(FIELDS))
    op = rng.choice(["add", "add", "mul", "mul", "pow", "sin", "cos", "exp", "tanh", "dx", "lap", "J"])
    if op == "pow":
        return canonical(Apply(op, (_tree(rng, depth - 1), Number(float(rng.choice([-2, -1, 2, 3, 4]))))))
    return canonical(Apply(op, tuple(_tree(rng, depth - 1) for _ in range(2 if op in ("add", "mul", "J") else 1))))


def value(e, at: dict[str, float]) -> float:
    """Of an expression without derivatives, typed here once more."""
    if isinstance(e, Number):
        return e.value
    if not isinstance(e, Apply):
        return at[e.name]
    args = [value(a, at) for a in e.args]
    known = {"add": sum, "mul": math.prod, "pow": lambda a: a[0] ** a[1], "sin": lambda a: math.sin(a[0])}
    known |= {"cos": lambda a: math.cos(a[0]), "exp": lambda a: math.exp(a[0]), "tanh": lambda a: math.tanh(a[0])}
    return known[e.op](args)


# -- numbers ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("number", "tokens"),
    [(2.6, "+ N260 E-2"), (-0.17, "- N170 E-3"), (28.0, "+ N280 E-1"), (9.996, "+ N100 E-1"), (-10.0, "-10"), (0, "0"),
     (3.0, "3"), (1e-19, "+ N000 E0"), (9.99e22, "+ N999 E20"), (12345.0, "+ N123 E2")],
)  # fmt: skip
def test_numbers(number, tokens):
    assert number_tokens(number) == tokens.split()


def test_three_digits_survive_and_more_are_rounded_to_half_a_percent():
    rng = random.Random(0)
    for _ in range(2000):
        exact = float(f"{rng.choice('+-')}{rng.randint(100, 999)}e{rng.randint(-10, 10)}")
        tokens = number_tokens(exact)
        assert (float(tokens[0]) if len(tokens) == 1 else number_of(*tokens)) == exact
        other = rng.uniform(11, 1e6)
        assert abs(number_of(*number_tokens(other)) / other - 1) <= 0.005


def test_refuses_numbers_that_have_no_tokens():
    with pytest.raises(ValueError, match="rescale"):
        number_tokens(1e23)
    with pytest.raises(ValueError, match="no number"):
        number_of("+", "N12", "E0")


# -- trees -----------------------------------------------------------------------------------------------------------
def test_ten_thousand_random_trees_come_back_exactly():
    rng = random.Random(1)
    vocabulary = Vocabulary(FIELDS)
    lengths = []
    for _ in range(5000):
        system = tuple(random_tree(rng, 4) for _ in range(2))
        tokens = write(system)
        assert read(tokens, FIELDS) == system
        assert vocabulary.decode(vocabulary.encode(tokens)) == tokens
        assert write(read(tokens, FIELDS)) == tokens
        lengths.append(len(tokens))
    assert max(lengths) > 50


def test_skeletons_come_back_exactly():
    rng = random.Random(2)
    for _ in range(1000):
        bare = skeleton(write([random_tree(rng, 3)]))
        again = read(bare, FIELDS)
        assert write(again).count(PLACEHOLDER) <= bare.count(PLACEHOLDER)
        assert not {"+", "-"} & set(bare)


@pytest.mark.parametrize("name", [*SYSTEMS, *PDES])
def test_every_family_comes_back_exactly(name):
    import torch

    system = (SYSTEMS | PDES)[name]
    values = system.sample(20, torch.Generator().manual_seed(0))
    bare = set()
    for i in range(20):
        written = system.written({n: float(v[i]) for n, v in values.items()})
        tokens = write(written)
        assert read(tokens, FIELDS) == written
        bare.add(tuple(skeleton(tokens)))
    choices = math.prod(len(c) for c in system.choices.values())
    assert len(bare) <= 4 * choices  # a parameter that is a small integer is one token


def test_order_does_not_depend_on_numbers():
    a, b = (write([parse(f"{p}*u_0 + {q}*u_1 + {r}")]) for p, q, r in ((0.12, 0.34, 5.6), (0.34, 0.12, -5.6)))
    assert skeleton(a) == skeleton(b)
    assert a != b


def test_sympy_agrees_and_brings_back():
    rng, at = random.Random(3), {"x": 0.3} | {f: 0.4 + 0.1 * i for i, f in enumerate(FIELDS)}
    compared = 0
    for _ in range(300):
        e = random_tree(rng, 3)
        try:
            again = from_sympy(to_sympy(e))
            expected = value(e, at)
        except (KeyError, ArithmeticError, ValueError):  # derivatives have no value at a point, some powers overflow
            continue
        if isinstance(expected, complex) or not abs(expected) < 1e6:
            continue
        assert value(again, at) == pytest.approx(expected, rel=1e-9, abs=1e-9)
        compared += 1
    assert compared > 50


def test_sympy_round_trip_of_all_families():
    import torch

    for system in (SYSTEMS | PDES).values():
        values = system.sample(1, torch.Generator().manual_seed(0))
        for e in system.written({n: float(v[0]) for n, v in values.items()}):
            assert sp.simplify(to_sympy(from_sympy(to_sympy(e))) - to_sympy(e)) == 0


# -- equations of the package ----------------------------------------------------------------------------------------
def test_equations_emit_tokens():
    line, box = Grid(16, 1), Grid(8, Lx=1e6)
    flows = [
        sciml.preset("eddy", nx=8),
        sciml.equation.Vorticity(grid=box, beta=1e-11),
        sciml.equation.AllenCahn(grid=box),
    ]
    for equation in (Lorenz63(), Lorenz96(n=5), KortewegDeVries(grid=line), KuramotoSivashinsky(grid=line), *flows):
        tokens = write(right_sides(equation))
        assert tokens.count("|") == len(equation.prognostic) - 1
        known = (*equation.prognostic, *equation.diagnostic, *equation.fixed)
        assert write(read(tokens, known)) == tokens


def test_added_terms_are_written():
    plain = KortewegDeVries(grid=Grid(16, 1))
    assert len(write(right_sides(plain + Term("u", "drag", "-0.125*u")))) > len(write(right_sides(plain)))
    with pytest.raises(ValueError, match="as terms"):
        right_sides(plain.with_tendency(lambda equation, z, t: z))


# -- refusals --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "match"),
    [("add u_0", "end too early"), ("", "end too early"), ("u_0 u_1", "left over"), ("u_0 |", "end too early"),
     ("u_9", "unknown token"), ("psi", "unknown token"), ("mul + N12 E0 u_0", "no number"), ("+ u_0 u_1", "no number"),
     ("inv 0", "no value")],
)  # fmt: skip
def test_refuses_what_is_no_system(text, match):
    with pytest.raises(ValueError, match=match):
        read(text.split(), FIELDS)


def test_vocabulary_refuses_unknown_tokens_and_empty_systems():
    with pytest.raises(ValueError, match="unknown token 'v'"):
        Vocabulary(FIELDS).encode(["v"])
    with pytest.raises(ValueError, match="at least one"):
        write([])


def test_the_vocabulary_has_about_a_thousand_tokens():
    v = Vocabulary(FIELDS)
    assert len(set(v.tokens)) == len(v) == 5 + len(OPERATORS) + 3 + 2 + 901 + 41 + 21 + 5
    assert v.number["PAD"] == 0
    assert write([Param("a")]) == [PLACEHOLDER]
