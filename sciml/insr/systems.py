r"""Equations as a neural field sees them: pointwise, :math:`L(u)_t = R(u)`, u the outputs of a network.

u need not be what an equation steps: a flow is one streamfunction, of which vorticity, or PV, is a combination of
derivatives L. Everything comes from the equation's own terms by :func:`strong`; two-dimensional flow has a weaker form
in velocities, :func:`momentum`, in which no derivative of vorticity appears.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch

import torch
from torch import Tensor

from sciml.equation.base import Equation, given
from sciml.equation.expression import Apply, Coord, Expr, Field, Number, Param, canonical, dx, dy, expand, lap, wrap
from sciml.equation.qg import QuasiGeostrophic
from sciml.equation.readings import evaluated
from sciml.equation.vorticity import Vorticity
from sciml.grid import Grid
from sciml.nn.jets import Jet

Derivative = Callable[[str, int, int], Tensor]
Constant = Callable[[str, int, int, Tensor], Tensor]


@dataclass(frozen=True)
class System:
    """Rows of ``L(u)_t = R(u)``, expanded; ``fields`` are the network's outputs and ``order`` the highest derivative.

    ``constant`` are fields that never change: ``(name, m, n, positions) -> d^(m+n) / dx^m dy^n``. Where the residual of
    least squares holds what they project out, a gradient, it ``measures`` no error.
    """

    fields: tuple[str, ...]
    left: tuple[Expr, ...]
    right: tuple[Expr, ...]
    params: Mapping[str, float]
    constant: Constant | None = None
    measures: bool = True

    def __post_init__(self):
        for side in ("left", "right"):
            object.__setattr__(self, side, tuple(expand(e) for e in getattr(self, side)))

    @property
    def order(self) -> int:
        return max(map(depth, (*self.left, *self.right)))

    def read(self, rows: Sequence[Expr], jet: Jet, coords: Mapping[str, Tensor]) -> Tensor:
        """Values ``(rows, n)`` of expressions in the network's jet ``(K, n, outputs)``."""

        def derivative(name: str, m: int, n: int) -> Tensor:
            if name in self.fields:
                return jet.derivative(m, n)[..., self.fields.index(name)]
            if self.constant is None:
                raise ValueError(f"the field {name!r} is not one of the network's outputs {self.fields}")
            return self.constant(name, m, n, torch.stack([coords["x"], coords["y"]], -1))

        return self.read_with(rows, derivative, coords)

    def read_with(self, rows: Sequence[Expr], derivative: Derivative, coords: Mapping[str, Tensor]) -> Tensor:
        """The same from any derivatives ``(name, m, n) -> (n,)`` of the fields."""
        nothing = torch.zeros_like(coords["x"])
        return torch.stack([evaluated(e, derivative, self.params, coords) + nothing for e in rows])


def depth(e: Expr) -> int:
    """Highest derivative of an expanded expression."""
    if not isinstance(e, Apply):
        return 0
    return max(map(depth, e.args)) + (e.op in ("dx", "dy"))


def substituted(e: Expr, by: Mapping[str, Expr], absent: Container[str] = ()) -> Expr:
    """With fields replaced by expressions, and without the terms of parameters that are zero."""
    if isinstance(e, Field):
        return by.get(e.name, e)
    if isinstance(e, Param) and e.name in absent:
        return Number(0.0)
    return canonical(Apply(e.op, tuple(substituted(a, by, absent) for a in e.args))) if isinstance(e, Apply) else e


# -- what a network holds --------------------------------------------------------------------------------------------
@singledispatch
def primitives(equation: Equation) -> Mapping[str, Expr]:
    """Prognostic fields as expressions of what a network has as outputs; by default themselves."""
    return {name: Field(name) for name in equation.prognostic}


@primitives.register
def _(equation: Vorticity) -> Mapping[str, Expr]:
    return {"omega": lap(Field("psi"))}


@primitives.register
def _(equation: QuasiGeostrophic) -> Mapping[str, Expr]:
    psi, S = [Field(f"psi{i + 1}") for i in range(equation.n)], equation.S.tolist()
    return {f"q{i + 1}": wrap(sum((S[i][j] * psi[j] for j in range(equation.n)), lap(psi[i])))
            for i in range(equation.n)}  # fmt: skip


def outputs(equation: Equation) -> tuple[str, ...]:
    """Names of the network's outputs."""
    diagnostic = tuple(equation.diagnostic)
    return equation.prognostic if primitives(equation) == {n: Field(n) for n in equation.prognostic} else diagnostic


# -- forms -----------------------------------------------------------------------------------------------------------
def strong(equation: Equation, names: Container[str] | None = None) -> System:
    """All terms as they are written, or those of some names.

    Raises ``ValueError`` where the equation has tendencies given as functions, noise or a filter, which have no
    pointwise reading.
    """
    check_terms(equation)
    by, right = primitives(equation), dict.fromkeys(equation.prognostic, wrap(0.0))
    for term in (t for t in equation.terms if names is None or t.name in names):
        right[term.field] = right[term.field] + substituted(term.expr, by)
    return with_params(outputs(equation), by.values(), right.values(), equation.params, fixed_fields(equation))


def check_terms(equation: Equation) -> None:
    """Refuse what is no term."""
    if equation.tendencies or equation.noise is not None or equation.filter is not None:
        raise ValueError("a neural field reads terms: leave out tendencies given as functions, noise and filter")


def fixed_fields(equation: Equation) -> Constant | None:
    """Fields that never change and their derivatives at any points, by their Fourier series."""
    grid, fixed = equation.grid, equation.fixed
    if not fixed:
        return None

    def derivative(name: str, m: int, n: int, positions: Tensor) -> Tensor:
        if name not in fixed:
            raise ValueError(f"the field {name!r} is neither an output of the network nor a fixed field")
        return series(grid, fixed[name], m, n, positions)

    return derivative


def series(grid: Grid, coefficients: Tensor, m: int, n: int, positions: Tensor) -> Tensor:
    """``d^(m+n) / dx^m dy^n`` of a Fourier series ``(*modes)`` at positions ``(n, 2)``."""
    x, y = (positions - positions.new_tensor([grid.x0, grid.y0])).double().unbind(-1)
    spectrum = grid.weight * coefficients * grid.ik**m * grid.il**n
    along, across = torch.exp(1j * y[:, None] * grid.l), torch.exp(1j * x[:, None] * grid.k[:, 0])
    return ((across @ spectrum.to(across.dtype)) * along).sum(-1).real


def momentum(equation: Vorticity) -> System:
    r"""Velocities of the streamfunction: :math:`\partial_t (-\psi_y, \psi_x) = (\omega v, -\omega u - \beta \psi)
    + \nu \nabla^2 (u, v) - r (u, v)` up to a gradient.

    Least squares over the box project the gradient out, so that there is no pressure. The beta term has the curl
    :math:`-\beta v`. The residual is no measure of the error, as the gradient stays in it.
    """
    check_terms(equation)
    if not isinstance(equation, Vorticity):
        raise ValueError(f"the form in velocities is one of Vorticity, not of {type(equation).__name__}; use strong")
    if equation.force is not None or equation.extra:
        raise ValueError("further terms and forces are terms of vorticity; use the strong form")
    psi = Field("psi")
    u, v, omega = -dy(psi), dx(psi), lap(psi)
    right_u = omega * v + Param("nu") * lap(u) - Param("drag") * u
    right_v = -omega * u - Param("beta") * psi + Param("nu") * lap(v) - Param("drag") * v
    return replace(with_params(("psi",), (u, v), (right_u, right_v), equation.params), measures=False)


def with_params(
    fields: tuple[str, ...], left: Iterable[Expr], right: Iterable[Expr], params: Mapping[str, float],
    constant: Constant | None = None,
) -> System:  # fmt: skip
    """A system without the terms of parameters that are zero."""
    absent = {name for name, value in params.items() if not given(value)}
    return System(fields, tuple(left), tuple(wrap(substituted(e, {}, absent)) for e in right), params, constant)


def rotating_sphere(Omega: float) -> System:
    r"""Inviscid flow on a sphere that turns at the rate Omega, in the form of :func:`momentum`:
    :math:`\partial_t (u, v) = (\omega + 2 \Omega \sin\theta) (v, -u)` up to a gradient, with
    :math:`(u, v) = (-\psi_\theta, \psi_\lambda / \cos\theta)` in units of the radius."""
    psi = Field("psi")
    u, v = -dy(psi), dx(psi)
    total = lap(psi) + 2 * Omega * Apply("sin", (Coord("y"),))
    return System(("psi",), (u, v), (total * v, -total * u), {}, measures=False)
