"""Equations as the tokens of a transformer: prefix order, numbers as sign, mantissa and exponent, one placeholder.

A system is one expression per component, joined with ``|``. A number is three tokens, ``-2.6`` is ``- N260 E-2``
(:math:`-260 \\cdot 10^{-2}`): three significant digits; integers from -10 to 10 are one token (Liu et al. 2023,
arXiv 2309.16816, section 3). Sums are in an order that does not depend on their coefficients, so that a skeleton, where
every number is the placeholder, says nothing about them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

from sciml.equation.base import Equation, substituted
from sciml.equation.expression import (
    ARITY,
    COORDINATES,
    Apply,
    Coord,
    Expr,
    Field,
    Number,
    Param,
    canonical,
    parts,
)  # fmt: skip

PAD, BOS, EOS, SEPARATOR, PLACEHOLDER = "PAD", "BOS", "EOS", "|", "?"
SPECIAL = (PAD, BOS, EOS, SEPARATOR, PLACEHOLDER)
SIGNS = ("+", "-")
MANTISSAS = ("N000", *(f"N{i}" for i in range(100, 1000)))
LARGEST = 20
EXPONENTS = tuple(f"E{i}" for i in range(-LARGEST, LARGEST + 1))
"""Twice as far as PROSE's, as coefficients in SI units ask for."""
TOO_LARGE = 9.995e22
INTEGERS = tuple(str(i) for i in range(-10, 11))
POWERS = {"pow2": 2.0, "pow3": 3.0, "inv": -1.0}
"""Unary operators that stand for common exponents."""
OPERATORS = {**ARITY, **dict.fromkeys(POWERS, 1)}


@dataclass(frozen=True)
class Vocabulary:
    """All tokens of equations in these fields, in the order of their numbers; the padding is number 0."""

    fields: tuple[str, ...]

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        return (*SPECIAL, *OPERATORS, *COORDINATES, *SIGNS, *MANTISSAS, *EXPONENTS, *INTEGERS, *self.fields)

    @cached_property
    def number(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, tokens: Sequence[str]) -> list[int]:
        """Numbers of tokens; raises ``ValueError`` for one that is not in the vocabulary."""
        for token in tokens:
            if token not in self.number:
                raise ValueError(f"unknown token {token!r}; fields of this vocabulary: {', '.join(self.fields)}")
        return [self.number[token] for token in tokens]

    def decode(self, numbers: Sequence[int]) -> list[str]:
        """Tokens up to the end, without beginning and padding."""
        out = []
        for n in numbers:
            token = self.tokens[int(n)]
            if token == EOS:
                break
            if token not in (PAD, BOS):
                out.append(token)
        return out


# -- numbers ---------------------------------------------------------------------------------------------------------
def number_tokens(value: float) -> list[str]:
    """One token for a small integer, three for any other number, rounded to three digits; below 1e-18 it is zero.

    Raises ``ValueError`` beyond 9.99e22.
    """
    if value == int(value) and abs(value) <= 10:
        return [str(int(value))]
    digits, _, power = f"{abs(value):.2e}".partition("e")
    exponent = int(power) - 2
    if abs(value) >= TOO_LARGE:
        raise ValueError(f"{value} is too large for the tokens of numbers, which end at 9.99e22; rescale the equation")
    if exponent < -LARGEST:
        return ["+", "N000", "E0"]
    return ["+" if value > 0 else "-", f"N{digits.replace('.', '')}", f"E{exponent}"]


def number_of(sign: str, mantissa: str, exponent: str) -> float:
    """The value of three tokens, the float nearest to the decimal."""
    if sign not in SIGNS or mantissa not in MANTISSAS or exponent not in EXPONENTS:
        raise ValueError(f"{sign} {mantissa} {exponent} is no number: a sign, N and three digits, E and a power")
    return float(f"{sign}{mantissa[1:]}e{exponent[1:]}")


# -- writing ---------------------------------------------------------------------------------------------------------
def write(system: Sequence[Expr]) -> list[str]:
    """Tokens of a system; parameters are placeholders. Raises ``ValueError`` where it has no components."""
    if not system:
        raise ValueError("a system needs at least one right-hand side")
    out = []
    for e in system:
        out += [*_write(e), SEPARATOR]
    return out[:-1]


def _write(e: Expr) -> list[str]:
    if isinstance(e, Number):
        return number_tokens(e.value)
    if isinstance(e, Param):
        return [PLACEHOLDER]
    if not isinstance(e, Apply):
        return [e.name]
    if e.op == "pow":
        return _write_power(*e.args)
    args = [_write(a) for a in e.args]
    if e.op in ("add", "mul"):
        args = [a for _, _, a in sorted((_rank(e.op, own), a, a) for own, a in zip(e.args, args, strict=True))]
    if ARITY[e.op] == 1:
        return [e.op, *args[0]]
    return [token for a in args[:-1] for token in (e.op, *a)] + args[-1]


def _rank(op: str, e: Expr) -> tuple:
    """Order among terms and factors without regard to numbers, which are the first factor and the last term."""
    constant = isinstance(e, Number | Param)
    factors = [] if constant else [f for f in parts(e, "mul") if not isinstance(f, Number | Param)]
    return (constant if op == "add" else not constant), skeleton([token for f in factors for token in _write(f)])


def _write_power(base: Expr, exponent: Expr) -> list[str]:
    for name, value in POWERS.items():
        if exponent == Number(value):
            return [name, *_write(base)]
    return ["pow", *_write(base), *_write(exponent)]


def skeleton(tokens: Sequence[str]) -> list[str]:
    """The tokens with the placeholder for every number of three tokens."""
    return [PLACEHOLDER if t in SIGNS else t for t in tokens if t not in _PARTS]


_PARTS = frozenset((*MANTISSAS, *EXPONENTS))


def right_sides(equation: Equation) -> tuple[Expr, ...]:
    """The sum of the terms of each prognostic field, with numbers for the parameters (one without terms is 0).

    Raises ``ValueError`` where the equation has tendencies that are functions and no terms.
    """
    if equation.tendencies:
        raise ValueError("tendencies given as functions have no tokens; add them as terms")
    values = {n: float(v) for n, v in equation.params.items()}
    out: dict[str, Expr] = dict.fromkeys(equation.prognostic, Number(0.0))
    for term in equation.terms:
        out[term.field] = out[term.field] + substituted(term.expr, values)
    return tuple(out.values())


# -- reading ---------------------------------------------------------------------------------------------------------
def read(tokens: Sequence[str], fields: Sequence[str]) -> tuple[Expr, ...]:
    """The system of tokens, in canonical order; placeholders become parameters c00, c01, ... in their order.

    Raises ``ValueError`` where the tokens are not whole expressions in these fields.
    """
    stream, names, out = iter(tokens), (Param(f"c{i:02d}") for i in count()), []
    try:
        while True:
            out.append(_read(stream, fields, names))
            further = next(stream, None)
            if further is None:
                return tuple(out)
            if further != SEPARATOR:
                rest = " ".join([further, *stream])
                raise ValueError(f"tokens left over after a whole expression: {rest}; components are joined with |")
    except StopIteration:
        raise ValueError(f"the tokens end too early: {' '.join(tokens) or 'there are none'}") from None
    except (ArithmeticError, RecursionError) as error:
        raise ValueError(f"the tokens have no value: {error}") from None


def _read(stream: Iterator[str], fields: Sequence[str], names: Iterator[Param]) -> Expr:
    token = next(stream)
    if token in POWERS:
        return canonical(Apply("pow", (_read(stream, fields, names), Number(POWERS[token]))))
    if token in ARITY:
        return canonical(Apply(token, tuple([_read(stream, fields, names) for _ in range(ARITY[token])])))
    if token in SIGNS:
        return Number(number_of(token, next(stream), next(stream)))
    if token in INTEGERS:
        return Number(float(token))
    if token == PLACEHOLDER:
        return next(names)
    if token in COORDINATES:
        return Coord(token)
    if token in fields:
        return Field(token)
    raise ValueError(f"unknown token {token!r}; fields of this system: {', '.join(fields)}")


def representable(e: Expr) -> bool:
    """Whether all numbers of an expression survive being written."""
    if isinstance(e, Number):
        if abs(e.value) >= TOO_LARGE:
            return False
        own = number_tokens(e.value)
        return (float(own[0]) if len(own) == 1 else number_of(*own)) == e.value
    return not isinstance(e, Apply) or all(representable(a) for a in e.args)


def from_sympy(e: Any) -> Expr:
    """The expression of what :func:`~sciml.equation.expression.to_sympy` makes, up to the order of ``dx`` and ``dy``.

    Raises ``ValueError`` for what is not part of the language.
    """
    import sympy as sp

    if e.is_number:
        return Number(float(e))
    if isinstance(e, sp.Symbol):
        return Coord(e.name) if e.name in COORDINATES else Param(e.name)
    if isinstance(e, sp.Derivative):
        derivative: Any = e
        inner = from_sympy(derivative.expr)
        for variable, times in derivative.variable_count:
            for _ in range(int(times)):
                inner = canonical(Apply(f"d{variable}", (inner,)))
        return inner
    ops = {sp.Add: "add", sp.Mul: "mul", sp.Pow: "pow", sp.sin: "sin", sp.cos: "cos", sp.exp: "exp", sp.tanh: "tanh"}
    for kind, op in ops.items():
        if isinstance(e, kind):
            return canonical(Apply(op, tuple(from_sympy(a) for a in e.args)))
    if e.func.__name__ == "mean_x":
        return canonical(Apply("mean_x", (from_sympy(e.args[0]),)))
    if isinstance(e, sp.Function) and all(isinstance(a, sp.Symbol) for a in e.args):
        return Field(e.func.__name__)
    raise ValueError(f"{e} is not part of the language")
