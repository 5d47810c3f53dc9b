"""What an expression means: on a grid (spectral), at points (pointwise), and as Fourier multipliers (linear terms)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sciml.equation.expression import Apply, Coord, Expr, Field, Number, Param, expand
from sciml.grid import Grid

FACTORS = 16
"""Whole powers up to this are products of fields, truncated after each; higher ones are taken at the points."""
POINTWISE = {"sin": torch.sin, "cos": torch.cos, "exp": torch.exp, "tanh": torch.tanh}


class NotLinear(ValueError):
    """The expression is not a linear operator with constant coefficients on the fields."""


# -- spectral --------------------------------------------------------------------------------------------------------
class Spectral:
    """Reads expressions as coefficients on a :class:`~sciml.grid.Grid`, remembering common parts.

    Derivatives are exact on the kept modes; products are formed at the points of ``grid.product_shape`` two factors
    at a time and truncated after each, so that with dealiasing every product of two fields is exact. ``J(a, b)`` is
    read in flux form, ``-d_x(a_y b) + d_y(a_x b)``.

    Parameters
    ----------
    fields : coefficients ``(..., *grid.modes)`` by name
    params : numbers (or 0-d tensors, to differentiate with respect to them) by name
    """

    def __init__(self, grid: Grid, fields: Mapping[str, Tensor], params: Mapping[str, float] = {}, t: float = 0.0):
        self.grid, self.fields, self.params, self.t = grid, fields, params, t
        self._seen: dict[Expr, tuple[str, Any]] = {}
        self._points: dict[Expr, Any] = {}
        self._ik, self._il = grid.complex(grid.ik), grid.complex(grid.il)
        self._laplacian = grid.real(-grid.K2)

    def __call__(self, e: Expr) -> Tensor:
        """Coefficients of ``e``."""
        return self._spectrum(e)

    def at_points(self, e: Expr):
        """Values of ``e`` at the product points (a number where it is constant)."""
        if e not in self._points:
            kind, value = self._read(e)
            self._points[e] = self.grid.ifft(value, self.grid.product_shape) if kind == "spectrum" else value
        return self._points[e]

    def _spectrum(self, e: Expr) -> Tensor:
        kind, value = self._read(e)
        if kind == "spectrum":
            return value
        if kind == "points":
            return self.grid.fft(value.expand(*value.shape[:-2], *self.grid.product_shape))
        mean = torch.as_tensor(value, dtype=self.grid.cdtype, device=self.grid.device)
        mean = mean[..., 0, 0] if mean.ndim > 1 else mean  # one for each of a batch, (b, 1, 1)
        out = torch.zeros(*mean.shape, *self.grid.modes, dtype=self.grid.cdtype, device=self.grid.device)
        out[..., 0, 0] = mean
        return out

    def _read(self, e: Expr) -> tuple[str, Any]:
        if e not in self._seen:
            self._seen[e] = self._evaluate(e)
        return self._seen[e]

    def _evaluate(self, e: Expr) -> tuple[str, Any]:
        if isinstance(e, Number):
            return "constant", e.value
        if isinstance(e, Param):
            return "constant", _lookup(self.params, e.name, "parameter")
        if isinstance(e, Field):
            return "spectrum", _lookup(self.fields, e.name, "field")
        if isinstance(e, Coord):
            return self._coordinate(e.name)
        return getattr(self, f"_{e.op}", self._function)(e)

    def _coordinate(self, name: str) -> tuple[str, Any]:
        if name == "t":
            return "constant", self.t
        x, y = self.grid.axes(self.grid.product_shape)
        return "points", x if name == "x" else y

    def _linear(self, e: Apply, multiplier: Tensor) -> tuple[str, Any]:
        return "spectrum", self._spectrum(e.args[0]) * multiplier

    def _dx(self, e: Apply):
        return self._linear(e, self._ik)

    def _dy(self, e: Apply):
        return self._linear(e, self._il)

    def _lap(self, e: Apply):
        return self._linear(e, self._laplacian)

    def _mean_x(self, e: Apply):
        return self._linear(e, self.grid.real(self.grid.k == 0))

    def _J(self, e: Apply):
        a, b = e.args
        b_points = self.at_points(b)
        flux_x = self.grid.fft(self.at_points(Apply("dy", (a,))) * b_points)
        flux_y = self.grid.fft(self.at_points(Apply("dx", (a,))) * b_points)
        return "spectrum", self._il * flux_y - self._ik * flux_x

    def _add(self, e: Apply):
        kinds = {self._read(a)[0] for a in e.args}
        if kinds == {"constant"} or kinds == {"points"}:
            return kinds.pop(), sum(self._read(a)[1] for a in e.args)  # type: ignore[arg-type]
        if "spectrum" in kinds:
            return "spectrum", sum(self._spectrum(a) for a in e.args)
        return "points", sum(self.at_points(a) for a in e.args)

    def _mul(self, e: Apply):
        scale, rest = 1.0, []
        for a in e.args:
            kind, value = self._read(a)
            if kind == "constant":
                scale = scale * value
            else:
                rest.append(a)
        if len(rest) < 2:
            return ("constant", scale) if not rest else (self._read(rest[0])[0], self._read(rest[0])[1] * scale)
        fixed = [a for a in rest if self._read(a)[0] == "points"]
        fields = [a for a in rest if self._read(a)[0] == "spectrum"]
        value: Any = math.prod((self.at_points(a) for a in fixed), start=scale)
        for i, a in enumerate(fields):
            value = value * self.at_points(a)
            if (i > 0 or fixed) and i < len(fields) - 1:
                value = self.grid.ifft(self.grid.fft(value), self.grid.product_shape)
        return ("spectrum", self.grid.fft(value)) if fields else ("points", value)

    def _pow(self, e: Apply):
        base, exponent = e.args
        n = self._read(exponent)[1]
        if self._read(base)[0] == "spectrum" and isinstance(n, float) and n == int(n) and 1 < n <= FACTORS:
            factors = Apply("mul", (base,) * int(n))
            return self._mul(factors)
        return self._pointwise(e, lambda a, b: a**b)

    def _function(self, e: Expr):
        return self._pointwise(e, lambda a: POINTWISE[e.op](torch.as_tensor(a, dtype=self.grid.dtype)))

    def _pointwise(self, e: Expr, f: Callable):
        kinds = {self._read(a)[0] for a in e.args}
        value = f(*(self.at_points(a) for a in e.args))
        if kinds == {"constant"}:
            return "constant", value
        return ("spectrum", self.grid.fft(value)) if "spectrum" in kinds else ("points", value)


# -- pointwise -------------------------------------------------------------------------------------------------------
def pointwise(
    e: Expr,
    derivative: Callable[[str, int, int], Tensor],
    params: Mapping[str, float] = {},
    coords: Mapping[str, Tensor] = {},
) -> Any:
    """The value of ``e`` at points, from the derivatives of its fields there.

    Raises ``ValueError`` for ``mean_x``, which no derivative at a point determines.

    Parameters
    ----------
    derivative : ``(name, m, n) -> d^(m+n) name / dx^m dy^n`` at the points, for example of a neural field
    coords : ``x``, ``y`` (tensors) and ``t`` where the expression uses them
    """
    return evaluated(expand(e), derivative, params, coords)


def evaluated(e: Expr, derivative, params, coords):
    """:func:`pointwise` of an expression that is expanded already."""
    if isinstance(e, Number):
        return e.value
    if isinstance(e, Param):
        return _lookup(params, e.name, "parameter")
    if isinstance(e, Coord):
        return _lookup(coords, e.name, "coordinate")
    m = n = 0
    inner = e
    while isinstance(inner, Apply) and inner.op in ("dx", "dy"):
        m, n, inner = m + (inner.op == "dx"), n + (inner.op == "dy"), inner.args[0]
    if isinstance(inner, Field):
        return derivative(inner.name, m, n)
    if not isinstance(e, Apply) or inner is not e or e.op == "mean_x":
        raise ValueError(f"{e} is a mean over x: it has no pointwise reading")
    args = [evaluated(a, derivative, params, coords) for a in e.args]
    if e.op == "add":
        return sum(args)
    if e.op == "mul":
        return math.prod(args)
    if e.op == "pow":
        return args[0] ** args[1]
    return POINTWISE[e.op](args[0] if isinstance(args[0], Tensor) else torch.tensor(args[0], dtype=torch.float64))


# -- linear terms ----------------------------------------------------------------------------------------------------
def multipliers(e: Expr, grid: Grid, params: Mapping[str, float] = {}) -> dict[str, Tensor]:
    """The linear expression ``e`` as one Fourier multiplier (float64 or complex128) per field.

    Raises :class:`NotLinear` where ``e`` is a product of fields, varies in space, or has a constant part.
    """
    value = _symbol(e, grid, params)
    if not isinstance(value, dict):
        raise NotLinear(f"{e} is a constant")
    return value


def _symbol(e: Expr, grid: Grid, params) -> Any:
    if isinstance(e, Number):
        return e.value
    if isinstance(e, Param):
        return _lookup(params, e.name, "parameter")
    if isinstance(e, Field):
        return {e.name: torch.ones_like(grid.K2)}
    if isinstance(e, Coord) or e.op not in ("add", "mul", "dx", "dy", "lap", "mean_x", "pow"):
        raise NotLinear(f"{e} is not a linear operator with constant coefficients")
    args = [_symbol(a, grid, params) for a in e.args]
    forms = [a for a in args if isinstance(a, dict)]
    numbers = [a for a in args if not isinstance(a, dict)]
    if e.op == "add" and forms and not numbers:
        return {n: sum(f[n] for f in forms if n in f) for n in {n for f in forms for n in f}}
    if e.op == "mul" and len(forms) == 1:
        return {n: math.prod(numbers) * v for n, v in forms[0].items()}
    if not forms:
        values = {"add": sum, "mul": math.prod, "pow": lambda ab: ab[0] ** ab[1], "mean_x": lambda a: a[0]}
        return values.get(e.op, lambda _: 0.0)(args)
    operator = {"dx": grid.ik, "dy": grid.il, "lap": -grid.K2, "mean_x": (grid.k == 0).double()}.get(e.op)
    if operator is None:
        raise NotLinear(f"{e} is not linear in its fields")
    return {n: operator * v for n, v in forms[0].items()}


def _lookup(table: Mapping, name: str, kind: str) -> Any:
    if name not in table:
        raise KeyError(f"the {kind} {name!r} is not known here; known: {', '.join(sorted(table)) or 'none'}")
    return table[name]
