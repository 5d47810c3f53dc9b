"""An equation: prognostic fields and a sum of named terms, from which everything else is derived."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from sciml.equation.expression import Apply, Expr, Field, Number, Param, canonical, leaves, parse
from sciml.equation.loops import plain
from sciml.equation.readings import NotLinear, Spectral, multipliers
from sciml.grid import Grid

Tendency = Callable[["Equation", Tensor, float], Tensor]
Noise = Callable[["Equation", torch.Generator, tuple[int, ...]], Tensor]


@dataclass(frozen=True)
class Term:
    """One named term of the tendency of one prognostic field.

    Examples
    --------
    >>> eq = sm.preset("eddy", nx=16, rek=1e-7)
    >>> twice = eq + sm.Term("q2", "more drag", "-1e-7*lap(psi2)")
    >>> z = eq.init(sm.random_pv(eq, seed=0))
    >>> bool(torch.allclose(twice.tendency(z), sm.preset("eddy", nx=16, rek=2e-7).tendency(z), rtol=1e-9, atol=1e-24))
    True
    """

    field: str
    name: str
    expr: Expr
    """an expression, or its text"""

    def __post_init__(self):
        if isinstance(self.expr, str):
            object.__setattr__(self, "expr", parse(self.expr))
        if not isinstance(self.expr, Expr):
            raise ValueError(f"the expression of a term is text such as 'lap(psi2)', got {self.expr!r}")


class HasTerms(Protocol):
    """Whatever can be added to an equation, such as what MEDIDA found."""

    @property
    def terms(self) -> Iterable[Term]: ...


@dataclass(frozen=True, kw_only=True)
class Equation:
    r"""Interface of all equations, :math:`\partial_t z_i = \sum_{terms} T(z)`.

    A subclass states ``prognostic``, ``own_terms``, ``params`` and, where it has them, ``units``, ``diagnostic`` and
    ``fixed``. Its state ``z`` holds the coefficients of the prognostic fields, shape ``(..., n, *grid.modes)``.

    Parameters
    ----------
    grid : where the fields live
    extra : further terms; ``equation + Term("q2", "more drag", "-1e-7*lap(psi2)")`` adds one
    tendencies : further tendencies given as functions ``(equation, z, t) -> dz/dt`` (coefficients, shape of ``z``)
    noise : white noise ``(equation, generator, batch) -> W`` added as ``sqrt(dt) W`` after every step

    Examples
    --------
    >>> eq = sm.preset("eddy", nx=16)
    >>> isinstance(eq, sm.Equation), eq.prognostic
    (True, ('q1', 'q2'))
    >>> z = eq.init(sm.random_pv(eq, seed=0))
    >>> more = eq + sm.Term("q2", "more drag", "-1e-7*lap(psi2)")
    >>> change = more.tendency(z) - eq.tendency(z)
    >>> bool((change[0] == 0).all()), bool(change[1].abs().max() > 0)
    (True, True)
    """

    grid: Grid
    extra: tuple[Term, ...] = ()
    tendencies: tuple[Tendency, ...] = ()
    noise: Noise | None = None

    # -- what a subclass states --------------------------------------------------------------------------------------
    @property
    def prognostic(self) -> tuple[str, ...]:
        """Names of the fields that are stepped."""
        raise NotImplementedError

    @property
    def own_terms(self) -> Iterable[Term]:
        raise NotImplementedError

    @property
    def params(self) -> Mapping[str, float]:
        """Values of the parameters that the terms name."""
        return {}

    @property
    def units(self) -> Mapping[str, str]:
        """Units of fields and parameters."""
        return {}

    @property
    def diagnostic(self) -> Mapping[str, Tensor]:
        """Fields that follow from the state: real multipliers ``(n, *grid.modes)``, summed over the state."""
        return {}

    @property
    def fixed(self) -> Mapping[str, Tensor]:
        """Fields that never change, as coefficients."""
        return {}

    @property
    def reserved(self) -> frozenset[str]:
        """Names that further terms may not have."""
        return frozenset({"added"})

    @property
    def filter(self) -> Tensor | None:
        """Factor that multiplies the new state after every step."""
        return None

    def cfl(self, z: Tensor, dt: float) -> float:
        """Courant number of the state, 0 where nothing is advected."""
        return 0.0

    # -- what follows ------------------------------------------------------------------------------------------------
    @cached_property
    def terms(self) -> tuple[Term, ...]:
        known = {*self.prognostic, *self.diagnostic, *self.fixed}
        extra = tuple(replace(t, expr=with_params(t.expr, set(self.params) - known)) for t in self.extra)
        terms = (*self.own_terms, *extra)
        for term in extra:
            if term.name in self.reserved:
                raise ValueError(
                    f"a further term may not be named {term.name!r}, which the model uses; choose another name"
                )
        for term in terms:
            if term.field not in self.prognostic:
                raise ValueError(f"term {term.name!r} is for {term.field!r}; prognostic fields: {self.prognostic}")
            if unknown := leaves(term.expr, Field) - known:
                raise ValueError(
                    f"term {term.name!r} names unknown fields {sorted(unknown)}; known: {sorted(known)}, and the "
                    f"parameters {sorted(self.params)}"
                )
        return terms

    @property
    def nonlinear_terms(self) -> tuple[Term, ...]:
        """Terms that are no multiplier of each wavevector: nonlinear, of varying coefficients, or constant."""
        return self._split[1]

    @cached_property
    def _split(self) -> tuple[Tensor, tuple[Term, ...]]:
        """Linear operator and the terms that are not part of it."""
        n = len(self.prognostic)
        shape = (n, n, *self.grid.modes)
        L = torch.zeros(shape, dtype=torch.complex128, device=self.grid.device)
        rest = []
        for term in self.terms:
            try:
                symbol = multipliers(term.expr, self.grid, self.params)
            except NotLinear:
                rest.append(term)
                continue
            if set(symbol) & set(self.fixed):
                rest.append(term)
                continue
            row = torch.zeros_like(L[0])
            for name, m in symbol.items():
                row = row + (m * self.diagnostic[name] if name in self.diagnostic else m * self._unit(name))
            L = L + self._unit(term.field)[:, None] * row
        return L, tuple(rest)

    def _unit(self, name: str) -> Tensor:
        n = len(self.prognostic)
        return torch.eye(n, dtype=torch.float64, device=self.grid.device)[self.prognostic.index(name)][:, None, None]

    @cached_property
    def linear(self) -> Tensor:
        """All linear terms with constant coefficients as one operator ``(n, n, *grid.modes)``, complex128."""
        return self._split[0]

    @cached_property
    def _linear(self) -> Tensor:
        return self.grid.complex(self.linear)

    def fields(self, z: Tensor) -> dict[str, Tensor]:
        """Coefficients of every field by name: prognostic, diagnostic and fixed."""
        out = {name: z[..., i, :, :] for i, name in enumerate(self.prognostic)}
        out |= {name: (self.grid.real(m) * z).sum(-3) for name, m in self.diagnostic.items()}
        return out | dict(self.fixed)

    def reader(self, z: Tensor, t: float = 0.0) -> Spectral:
        """What expressions in the fields and parameters of this equation mean for a state."""
        return Spectral(self.grid, self.fields(z), self.params, t)

    def tendency(self, z: Tensor, t: float = 0.0) -> Tensor:
        """dz/dt of all terms (noise and filter belong to the step)."""
        return apply(self._linear, z) + self.nonlinear(z, t)

    def nonlinear(self, z: Tensor, t: float = 0.0) -> Tensor:
        """dz/dt of everything that is not in :attr:`linear`."""
        return self.evaluate(z, self._split[1], t) + sum(f(self, z, t) for f in self.tendencies)

    def evaluate(self, z: Tensor, terms: Iterable[Term], t: float = 0.0) -> Tensor:
        """dz/dt of the given terms, read one by one: the reference that faster paths are tested against."""
        read = self.reader(z, t)
        rows = [torch.zeros_like(z[..., 0, :, :]) for _ in self.prognostic]
        for term in terms:
            i = self.prognostic.index(term.field)
            rows[i] = rows[i] + read(term.expr)
        return torch.stack(rows, dim=-3)

    def by_term(self, z: Tensor, t: float = 0.0) -> dict[str, Tensor]:
        """dz/dt of each term by name; tendencies given as functions are summed as ``added``."""
        names = dict.fromkeys(term.name for term in self.terms)
        out = {n: self.evaluate(z, [term for term in self.terms if term.name == n], t) for n in names}
        if self.tendencies:
            out["added"] = torch.stack([f(self, z, t) for f in self.tendencies]).sum(0)
        return out

    def init(self, fields: Tensor) -> Tensor:
        """State of fields given on the grid, shape ``(..., n, ny, nx)``."""
        if isinstance(fields, Tensor) and fields.is_complex():
            raise ValueError("fields on the grid are real numbers, and these are complex; coefficients are a State(z)")
        fields = self.grid.real(fields)
        expected = (len(self.prognostic), *self.grid.shape)
        if fields.shape[-3:] != expected:
            raise ValueError(
                f"fields must have shape (..., {', '.join(map(str, expected))}), got {tuple(fields.shape)}"
            )
        return self.grid.fft(fields)

    def read(self, z: Tensor) -> Tensor:
        """Prognostic fields on the grid."""
        return self.grid.ifft(z)

    def with_tendency(self, f: Tendency) -> Equation:
        """The equation with a further tendency ``f(equation, z, t)``."""
        return replace(self, tendencies=(*self.tendencies, f))

    def __add__(self, other: Term | Iterable[Term] | HasTerms):
        """The equation with further terms; anything with an attribute ``terms`` will do.

        Raises ``ValueError`` for what is no term, and for terms that name what the equation does not have.
        """
        more = (other,) if isinstance(other, Term) else getattr(other, "terms", other)
        more = tuple(more) if isinstance(more, Iterable) else (more,)
        if wrong := [term for term in more if not isinstance(term, Term)]:
            raise ValueError(
                f"only terms can be added, such as Term('q2', 'drag', '-1e-7*lap(psi2)'); got {wrong[0]!r}"
            )
        found = replace(self, extra=(*self.extra, *more))
        _ = found.terms  # says what is unknown
        return found

    def __str__(self) -> str:
        lines = []
        for name in self.prognostic:
            lines.append(f"d {name}/dt =")
            lines += [f"    + ({t.expr})  [{t.name}]" for t in self.terms if t.field == name and t.expr != Number(0)]
        lines += [f"{name} = {float(v):.6g} {self.units.get(name, '1')}" for name, v in self.params.items()]
        return "\n".join(lines)


def with_params(e: Expr, names: set[str]) -> Expr:
    """The expression with fields of these names turned into parameters, as text cannot tell one from the other."""
    if isinstance(e, Field) and e.name in names:
        return Param(e.name)
    return canonical(Apply(e.op, tuple(with_params(a, names) for a in e.args))) if isinstance(e, Apply) else e


def substituted(e: Expr, values: Mapping[str, float]) -> Expr:
    """The expression with numbers for all parameters that ``values`` names, in canonical order."""
    if isinstance(e, Param) and e.name in values:
        return Number(float(values[e.name]))
    if not isinstance(e, Apply):
        return e
    return canonical(Apply(e.op, tuple(substituted(a, values) for a in e.args)))


def apply(M: Tensor, z: Tensor) -> Tensor:
    """Matrix per wavevector ``(m, n, ...)`` times state ``(..., n, ...)``."""
    if M.shape[0] == 1:
        return M[0] * z
    if M.shape[1:] == z.shape[-3:] and plain(M, z):
        from sciml.equation.qg_loops import matrix_product

        return matrix_product(M, z)
    split = z.is_complex() and not M.is_complex()
    z = torch.view_as_real(z.resolve_conj()) if split else z
    wide = torch.promote_types(M.dtype, z.dtype)
    out = torch.einsum("mnkl,...nklc->...mklc" if split else "mnkl,...nkl->...mkl", M.to(wide), z.to(wide))
    return torch.view_as_complex(out) if split else out


def matrix(rows: list[list[Any]], grid: Grid) -> Tensor:
    """Numbers, or tensors without dimensions, as a float64 matrix that keeps their derivatives."""
    entries = [[torch.as_tensor(a, dtype=torch.float64, device=grid.device) for a in row] for row in rows]
    return torch.stack([torch.stack(row) for row in entries])


def courant(grid: Grid, psi: Tensor, dt: float) -> float:
    """Largest ``(|u| / dx + |v| / dy) dt`` of the flow with the streamfunction coefficients ``psi``."""
    u = grid.ifft(grid.complex(grid.il) * psi).abs() / grid.dx
    v = grid.ifft(grid.complex(grid.ik) * psi).abs() / grid.dy
    return float((u + v).amax() * dt)


def repeat(operator, times: int, e: Expr) -> Expr:
    """``operator`` applied ``times`` times."""
    for _ in range(times):
        e = operator(e)
    return e


def given(value) -> bool:
    """Whether a parameter is anything but the number zero."""
    return not isinstance(value, int | float) or value != 0
