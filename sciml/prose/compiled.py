"""Right-hand sides turned into Python functions, each common subexpression computed once.

A tree is walked once, when its function is made; a call then runs a flat list of torch operations. Sums of products
become fused multiply-adds, which saves a third of the passes through memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from sciml.equation.expression import Apply, Coord, Expr, Field, Number, Param, leaves

Kernel = Callable[[Sequence[Tensor], Mapping[str, Tensor]], list[Tensor]]
FUNCTIONS = ("sin", "cos", "exp", "tanh")


def field_names(dim: int) -> tuple[str, ...]:
    """The fields of a system of ``dim`` equations: ``u_0``, ``u_1``, ..."""
    return tuple(f"u_{i}" for i in range(dim))


def compiled(rhs: Sequence[Expr]) -> Callable[[Tensor, Mapping[str, Tensor]], Tensor]:
    """The function ``(u, params) -> du/dt`` of right-hand sides.

    ``u`` and du/dt have shape ``(..., D)`` for D right-hand sides; each parameter is a tensor ``(...)`` or a scalar
    tensor. It runs on any device, in any dtype, and can be differentiated.

    Raises
    ------
    ValueError : where a right-hand side names other fields than ``u_0`` to ``u_(D-1)``, a coordinate or a derivative;
        and, from the function, where the last dimension of ``u`` is not D or a parameter is missing
    """
    f, dim = kernel(rhs), len(rhs)

    def evaluate(u: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        if u.shape[-1] != dim:
            raise ValueError(f"u must have shape (..., {dim}) for {dim} right-hand sides, got {tuple(u.shape)}")
        return torch.stack(f(u.unbind(-1), params), -1)

    return evaluate


def kernel(rhs: Sequence[Expr]) -> Kernel:
    """As :func:`compiled`, from the D components of u, each ``(...)``, to the D components of du/dt."""
    check(rhs)
    writer = _Writer(field_names(len(rhs)))
    results = [writer.component(e) for e in rhs]
    names = sorted(set().union(*(leaves(e, Param) for e in rhs)))
    lines = ["def run(u, p):", f"    {', '.join(writer.fields)}, = u"]
    lines += [f"    p{i} = p[{name!r}]" for i, name in enumerate(names)]
    text = "\n".join([*lines, *writer.lines, f"    return [{', '.join(results)}]"])
    for i, name in enumerate(names):
        text = text.replace(f"<{name}>", f"p{i}")
    scope: dict = {"torch": torch, "inf": math.inf, "nan": math.nan}
    exec(text, scope)
    return _complete(scope["run"], names)


def _complete(run: Kernel, names: list[str]) -> Kernel:
    def evaluate(u: Sequence[Tensor], params: Mapping[str, Tensor]) -> list[Tensor]:
        if missing := [name for name in names if name not in params]:
            raise ValueError(f"parameters {missing} have no values; given are {sorted(params)}")
        return run(u, params)

    return evaluate if names else run


def check(rhs: Sequence[Expr]) -> None:
    """Raise ``ValueError`` unless these are right-hand sides of ordinary equations in ``u_0``, ``u_1``, ..."""
    fields = field_names(len(rhs))
    if not rhs:
        raise ValueError("there are no right-hand sides; give one expression for each field u_0, u_1, ...")
    for i, e in enumerate(rhs):
        if unknown := leaves(e, Field) - set(fields):
            raise ValueError(
                f"the right-hand side of u_{i} names unknown fields {sorted(unknown)}; {len(rhs)} right-hand sides "
                f"have the fields {', '.join(fields)}"
            )
        if strange := leaves(e, Coord) | (_operators(e) - {"add", "mul", "pow", *FUNCTIONS}):
            raise ValueError(
                f"the right-hand side of u_{i} has {sorted(strange)}; ordinary equations have no coordinates and no "
                "derivatives (let a field with the tendency 1 stand for the time)"
            )


def _operators(e: Expr) -> set[str]:
    return {e.op}.union(*(_operators(a) for a in e.args)) if isinstance(e, Apply) else set()


class _Writer:
    """Lines of Python that compute expressions; a value is the text of a name or of a number."""

    def __init__(self, fields: tuple[str, ...]):
        self.fields, self.lines = fields, []
        self.known: dict[Expr, str] = {}

    def component(self, e: Expr) -> str:
        value = self.value(e)
        return value if leaves(e) else self.line(f"torch.zeros_like(u_0) + {value}")

    def line(self, text: str) -> str:
        self.lines.append(f"    v{len(self.lines)} = {text}")
        return f"v{len(self.lines) - 1}"

    def value(self, e: Expr) -> str:
        if isinstance(e, Apply) and _constant(e):
            return f"({_number(e)!r})"
        if not isinstance(e, Apply):
            return f"({e.value!r})" if isinstance(e, Number) else e.name if isinstance(e, Field) else f"<{e.name}>"
        if e not in self.known:
            self.known[e] = getattr(self, f"_{e.op}")(*e.args) if e.op in ("add", "mul", "pow") else self._call(e)
        return self.known[e]

    def _call(self, e: Expr) -> str:
        return self.line(f"torch.{e.op}({self.value(e.args[0])})")

    def _mul(self, *args: Expr) -> str:
        out = self.value(args[0])
        for e in args[1:]:
            out = self._product(out, self.value(e))
        return out

    def _product(self, a: str, b: str) -> str:
        return self.line(f"-{b}" if a == "(-1.0)" else f"{a} * {b}")

    def _pow(self, base: Expr, exponent: Expr) -> str:
        b, power = self.value(base), getattr(exponent, "value", None)
        if power in (2, 3):
            return self.line(" * ".join([b] * int(power)))
        return self.line(f"{b}.reciprocal()" if power == -1 else f"{b} ** {self.value(exponent)}")

    def _add(self, *args: Expr) -> str:
        """Numbers last, and a first summand that is no product, so that the rest can be fused multiply-adds."""
        terms = sorted(args, key=lambda e: (_constant(e), isinstance(e, Apply) and e.op == "mul"))
        out = self.value(terms[0])
        for e in terms[1:]:
            out = self.line(self._plus(out, e))
        return out

    def _plus(self, out: str, e: Expr) -> str:
        if not (isinstance(e, Apply) and e.op == "mul") or e in self.known or not leaves(e):
            return f"{out} + {self.value(e)}"
        scale = math.prod(_number(a) for a in e.args if _constant(a))
        factors = tuple(a for a in e.args if not _constant(a))
        if len(factors) == 1:
            return f"torch.add({out}, {self.value(factors[0])}, alpha={scale!r})"
        head = self.value(factors[0] if len(factors) == 2 else Apply("mul", factors[:-1]))
        return f"torch.addcmul({out}, {head}, {self.value(factors[-1])}, value={scale!r})"


def _constant(e: Expr) -> bool:
    return not leaves(e) and not leaves(e, Param)


def _number(e: Expr) -> float:
    """The value of an expression of numbers alone, nan where it has none."""
    if isinstance(e, Number):
        return e.value
    args = [_number(a) for a in e.args]
    try:
        if e.op in FUNCTIONS:
            return getattr(math, e.op)(args[0])
        value = sum(args) if e.op == "add" else math.prod(args) if e.op == "mul" else args[0] ** args[1]
        return math.nan if isinstance(value, complex) else float(value)
    except (ArithmeticError, ValueError):
        return math.nan
