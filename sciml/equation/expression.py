"""The expression language: immutable trees of fields, coordinates, parameters and a few operators.

An expression is built with ordinary Python operators, ``nu * lap(q) - J(psi, q)``, or read from text with
:func:`parse`. Here is what can be done with the tree itself: canonical order, prefix tokens, text, sympy and symbolic
differentiation. What it *means* on a grid or at points is in ``readings.py``.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

ARITY = {"add": 2, "mul": 2, "pow": 2, "sin": 1, "cos": 1, "exp": 1, "tanh": 1, "dx": 1, "dy": 1, "lap": 1, "J": 2}
"""Operators with their number of arguments; sums and products may have more and are nested as prefix tokens."""
ARITY["mean_x"] = 1
COORDINATES = ("x", "y", "t")


class Expr:
    """A node: :class:`Number`, :class:`Field`, :class:`Coord`, :class:`Param` or :class:`Apply`."""

    name: str
    op: str
    args: tuple[Expr, ...]

    def __add__(self, other):
        return canonical(Apply("add", (self, wrap(other))))

    def __mul__(self, other):
        return canonical(Apply("mul", (self, wrap(other))))

    def __pow__(self, other):
        return canonical(Apply("pow", (self, wrap(other))))

    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + wrap(other) * -1

    def __rsub__(self, other):
        return wrap(other) + self * -1

    def __truediv__(self, other):
        return self * wrap(other) ** -1

    def __rtruediv__(self, other):
        return wrap(other) * self**-1

    def __rpow__(self, other):
        return wrap(other) ** self

    __radd__ = __add__
    __rmul__ = __mul__

    def __str__(self) -> str:
        return to_text(self)


@dataclass(frozen=True, repr=False)
class Number(Expr):
    """A constant of the formula itself."""

    value: float

    def __post_init__(self):
        if isinstance(self.value, complex) or not math.isfinite(self.value):
            raise ValueError(f"{self.value} is not a finite real number")


@dataclass(frozen=True, repr=False)
class Field(Expr):
    """A function of position: a prognostic or diagnostic field, or a fixed one such as topography."""

    name: str


@dataclass(frozen=True, repr=False)
class Param(Expr):
    """A parameter: a number with a name, whose value the equation holds."""

    name: str


@dataclass(frozen=True, repr=False)
class Coord(Expr):
    """A coordinate: x, y or t."""

    name: str


@dataclass(frozen=True, repr=False)
class Apply(Expr):
    """An operator of :data:`ARITY` and its arguments."""

    op: str
    args: tuple[Expr, ...]


def wrap(value: Any) -> Expr:
    """An expression as it is, a number as a :class:`Number`."""
    return value if isinstance(value, Expr) else Number(float(value))


def operator(op: str) -> Callable[..., Expr]:
    """The function that applies ``op`` to its arguments."""

    def apply(*args) -> Expr:
        if len(args) != ARITY[op]:
            raise TypeError(f"{op} takes {ARITY[op]} argument(s), got {len(args)}")
        return canonical(Apply(op, tuple(wrap(a) for a in args)))

    apply.__name__ = op
    return apply


sin, cos, exp, tanh = (operator(op) for op in ("sin", "cos", "exp", "tanh"))
dx, dy, lap, J, mean_x = (operator(op) for op in ("dx", "dy", "lap", "J", "mean_x"))


# -- canonical order -------------------------------------------------------------------------------------------------
def key(e: Expr) -> tuple:
    """Sorting key: numbers, parameters, coordinates, fields, then operators."""
    if isinstance(e, Number):
        return 0, e.value
    if isinstance(e, Apply):
        return 4, e.op, len(e.args), tuple(key(a) for a in e.args)
    return {Param: 1, Coord: 2, Field: 3}[type(e)], e.name


def canonical(e: Expr) -> Expr:
    """Flattened, sorted, with numbers folded and equal terms and factors collected (of the top node)."""
    if not isinstance(e, Apply):
        return e
    if e.op in ("add", "mul"):
        return _collect(e.op, [a for arg in e.args for a in parts(arg, e.op)])
    if e.op == "pow":
        return _power(*e.args)
    if e.op in ("dx", "dy", "lap") and isinstance(e.args[0], Number):
        return Number(0.0)
    return e


def parts(e: Expr, op: str) -> tuple[Expr, ...]:
    """Terms of a sum or factors of a product; ``(e,)`` for anything else."""
    return e.args if isinstance(e, Apply) and e.op == op else (e,)


def _collect(op: str, items: list[Expr]) -> Expr:
    """A sum as ``sum c_i m_i``, a product as ``c prod b_i^(p_i)``, each m or b once and in order."""
    unit = 0.0 if op == "add" else 1.0
    number, counts = unit, {}
    for item in items:
        if isinstance(item, Number):
            number = number + item.value if op == "add" else number * item.value
            continue
        what, count = _split_term(item) if op == "add" else _split_power(item)
        counts[what] = counts.get(what, 0.0) + count
    if op == "mul" and number == 0:
        return Number(0.0)
    counted = [(w, c) for w, c in counts.items() if c]
    rest = [_scaled(w, c) if op == "add" else _power(w, Number(c)) for w, c in counted]
    if op == "mul" and any(parts(r, op) != (r,) or _split_power(r) != wc for r, wc in zip(rest, counted, strict=True)):
        return _collect(op, [Number(number), *(factor for r in rest for factor in parts(r, op))])
    rest.sort(key=key)
    if number != unit or not rest:
        rest.insert(0, Number(number))
    if op == "mul" and len(rest) == 2 and isinstance(rest[0], Number) and parts(rest[1], "add") != (rest[1],):
        return _collect("add", [_scaled(term, rest[0].value) for term in parts(rest[1], "add")])
    return rest[0] if len(rest) == 1 else Apply(op, tuple(rest))


def _split_term(e: Expr) -> tuple[Expr, float]:
    factors = parts(e, "mul")
    if not isinstance(factors[0], Number):
        return e, 1.0
    rest = factors[1:]
    return (rest[0] if len(rest) == 1 else Apply("mul", rest)), factors[0].value


def _split_power(e: Expr) -> tuple[Expr, float]:
    if isinstance(e, Apply) and e.op == "pow" and isinstance(e.args[1], Number):
        return e.args[0], e.args[1].value
    return e, 1.0


def _scaled(e: Expr, c: float) -> Expr:
    if isinstance(e, Number):
        return Number(e.value * c)
    rest, own = _split_term(e)
    return rest if c * own == 1 else Apply("mul", (Number(c * own), *parts(rest, "mul")))


def _power(base: Expr, exponent: Expr) -> Expr:
    if not isinstance(exponent, Number):
        return Apply("pow", (base, exponent))
    if exponent.value == 0:
        return Number(1.0)
    if exponent.value == 1:
        return base
    if isinstance(base, Number):
        if base.value == 0 and exponent.value < 0:
            raise ZeroDivisionError("an expression divides by zero")
        return Number(base.value**exponent.value)
    if isinstance(base, Apply) and base.op == "mul" and exponent.value == int(exponent.value):
        return _collect("mul", [_power(b, exponent) for b in base.args])
    inner, p = _split_power(base)
    whole = p != 1 and exponent.value == int(exponent.value)
    return _power(inner, Number(p * exponent.value)) if whole else Apply("pow", (base, exponent))


# -- prefix tokens ---------------------------------------------------------------------------------------------------
def to_prefix(e: Expr) -> list[str]:
    """Prefix (Polish) tokens; sums and products nest to the right, numbers keep all their digits."""
    if isinstance(e, Number):
        return [repr(e.value)]
    if not isinstance(e, Apply):
        return [f"{type(e).__name__.lower()}:{e.name}"]
    arity = ARITY[e.op]
    tokens = []
    for i, arg in enumerate(e.args):
        if i == 0 or (arity == 2 and i < len(e.args) - 1):
            tokens.append(e.op)
        tokens += to_prefix(arg)
    return tokens


def from_prefix(tokens: list[str]) -> Expr:
    """The expression of prefix tokens; raises ``ValueError`` where they are not one whole expression."""
    stream = iter(tokens)
    try:
        e = _read_prefix(stream)
    except StopIteration:
        raise ValueError(f"prefix tokens end too early: {' '.join(tokens)}") from None
    except ArithmeticError as error:
        raise ValueError(f"prefix tokens have no value: {error}") from None
    rest = list(stream)
    if rest:
        raise ValueError(f"tokens left over after a whole expression: {' '.join(rest)}")
    return e


def _read_prefix(stream: Iterator[str]) -> Expr:
    token = next(stream)
    if token in ARITY:
        return canonical(Apply(token, tuple([_read_prefix(stream) for _ in range(ARITY[token])])))
    kind, _, name = token.partition(":")
    kinds = {"field": Field, "param": Param, "coord": Coord}
    if name and kind in kinds:
        return kinds[kind](name)
    try:
        return Number(float(token))
    except ValueError:
        raise ValueError(f"unknown token {token!r}") from None


# -- text ------------------------------------------------------------------------------------------------------------
def to_text(e: Expr) -> str:
    """Infix text, which :func:`parse` reads back to the same tree."""
    if isinstance(e, Number):
        return str(int(e.value)) if e.value == int(e.value) and abs(e.value) < 1e6 else repr(e.value)
    if not isinstance(e, Apply):
        return e.name
    if e.op == "add":
        return " + ".join(to_text(a) for a in e.args).replace("+ -", "- ")
    if e.op == "mul":
        return _product_text(e)
    if e.op == "pow":
        return f"{_in_brackets(e.args[0], ('add', 'mul', 'pow'))}**{_in_brackets(e.args[1], ('add', 'mul', 'pow'))}"
    return f"{e.op}({', '.join(to_text(a) for a in e.args)})"


def _product_text(e: Apply) -> str:
    number, factors = "", e.args
    if isinstance(factors[0], Number):
        number, factors = ("-" if factors[0].value == -1 else f"{to_text(factors[0])}*"), factors[1:]
    text = "*".join(_in_brackets(f, ("add",)) for f in factors)
    # brackets, as a number next to a sum would be multiplied into it on reading
    return f"{number}({text})" if number and parts(factors[0], "add") != (factors[0],) else number + text


def _in_brackets(e: Expr, ops: tuple[str, ...]) -> str:
    text = to_text(e)
    negative = isinstance(e, Number) and e.value < 0
    return f"({text})" if negative or (isinstance(e, Apply) and e.op in ops) else text


def parse(text: str, params: tuple[str, ...] = ()) -> Expr:
    """Read an expression from text; names in ``params`` are parameters, x, y, t coordinates, all others fields."""
    try:
        return _from_ast(ast.parse(text.strip(), mode="eval").body, params, text)
    except (SyntaxError, TypeError, ArithmeticError) as error:
        raise ValueError(f"cannot read the expression {text!r}: {getattr(error, 'msg', error)}") from None


def _from_ast(node: ast.expr, params: tuple[str, ...], text: str) -> Expr:
    match node:
        case ast.Constant(value=int() | float() as value) if type(value) is not bool:
            return Number(float(value))
        case ast.Name(id=name):
            return Param(name) if name in params else Coord(name) if name in COORDINATES else Field(name)
        case ast.UnaryOp(op=ast.USub(), operand=arg):
            return -_from_ast(arg, params, text)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _from_ast(left, params, text), _from_ast(right, params, text)
            actions = {ast.Add: a.__add__, ast.Sub: a.__sub__, ast.Mult: a.__mul__}
            actions |= {ast.Div: a.__truediv__, ast.Pow: a.__pow__}
            if type(op) in actions:
                return actions[type(op)](b)
        case ast.Call(func=ast.Name(id=op), args=args, keywords=[]) if op in ARITY:
            return operator(op)(*(_from_ast(a, params, text) for a in args))
    raise ValueError(f"{ast.unparse(node)!r} in {text!r} is not part of the language; operators: {', '.join(ARITY)}")


# -- differentiation -------------------------------------------------------------------------------------------------
def diff(e: Expr, axis: str) -> Expr:
    """d e / d axis with the chain rule carried down to the fields: ``dx`` and ``dy`` remain on fields only."""
    return _diff(expand(e), axis)


def _diff(e: Expr, axis: str) -> Expr:
    if isinstance(e, Coord):
        return Number(1.0 if e.name == axis else 0.0)
    if isinstance(e, Number | Param):
        return Number(0.0)
    if isinstance(e, Field) or e.op in ("dx", "dy", "mean_x"):
        return _ordered_derivative(e, axis)
    args = e.args
    if e.op == "add":
        return wrap(sum((_diff(a, axis) for a in args), Number(0.0)))
    if e.op == "mul":
        rows = ([_diff(a, axis) if i == j else a for j, a in enumerate(args)] for i in range(len(args)))
        return wrap(sum(map(_product, rows), Number(0.0)))
    if e.op == "pow":
        if leaves(args[1]) or leaves(args[1], Coord) - {"t"}:
            raise ValueError(f"cannot differentiate {e}: its exponent is not constant")
        return args[1] * args[0] ** (args[1] - 1) * _diff(args[0], axis)
    outer = {"sin": cos, "cos": lambda a: -sin(a), "exp": exp, "tanh": lambda a: 1 - tanh(a) ** 2}
    return outer[e.op](args[0]) * _diff(args[0], axis)


def _product(factors) -> Expr:
    out: Expr = Number(1.0)
    for f in factors:
        out = out * f
    return out


def _ordered_derivative(e: Expr, axis: str) -> Expr:
    if axis == "x" and isinstance(e, Apply) and e.op in ("dy", "mean_x"):
        return dy(_ordered_derivative(e.args[0], "x")) if e.op == "dy" else Number(0.0)
    return Apply(f"d{axis}", (e,))


def expand(e: Expr) -> Expr:
    """The same expression with ``lap`` and ``J`` written out and every derivative carried down to the fields."""
    if not isinstance(e, Apply):
        return e
    args = tuple(expand(a) for a in e.args)
    if e.op in ("dx", "dy"):
        return _diff(args[0], e.op[1])
    if e.op == "lap":
        return wrap(_diff(_diff(args[0], "x"), "x") + _diff(_diff(args[0], "y"), "y"))
    if e.op == "J":
        a, b = args
        return wrap(_diff(a, "x") * _diff(b, "y") - _diff(a, "y") * _diff(b, "x"))
    return canonical(Apply(e.op, args))


def leaves(e: Expr, kind: type = Field) -> set[str]:
    """Names of all fields (or parameters, or coordinates) in an expression."""
    if isinstance(e, Apply):
        return set().union(*(leaves(a, kind) for a in e.args))
    return {e.name} if isinstance(e, kind) else set()


def to_sympy(e: Expr):
    """The expression in sympy: fields are functions of x and y, parameters and coordinates are symbols."""
    import sympy as sp

    x, y = sp.symbols("x y")
    if isinstance(e, Number):
        return sp.Integer(int(e.value)) if e.value == int(e.value) else sp.Float(e.value, 17)
    if isinstance(e, Field):
        return sp.Function(e.name)(x, y)
    if not isinstance(e, Apply):
        return sp.Symbol(e.name)
    args = [to_sympy(a) for a in e.args]
    if e.op == "mean_x":
        return sp.Function("mean_x")(args[0])
    meaning = {
        "add": sp.Add, "mul": sp.Mul, "pow": sp.Pow, "sin": sp.sin, "cos": sp.cos, "exp": sp.exp, "tanh": sp.tanh,
        "dx": lambda a: sp.Derivative(a, x), "dy": lambda a: sp.Derivative(a, y),
        "lap": lambda a: sp.Derivative(a, (x, 2)) + sp.Derivative(a, (y, 2)),
        "J": lambda a, b: sp.Derivative(a, x) * sp.Derivative(b, y) - sp.Derivative(a, y) * sp.Derivative(b, x),
    }  # fmt: skip
    return meaning[e.op](*args)
