r"""Quasi-geostrophic flow in layers on a doubly periodic beta plane.

.. math::
    \partial_t q_i + J(\psi_i, q_i) + U_i \partial_x q_i + V_i \partial_y q_i
        + Q_{y,i} \partial_x \psi_i - Q_{x,i} \partial_y \psi_i
        = -\delta_{in} (r \nabla^2 \psi_n + J(\psi_n, \eta) + U_n \eta_x + V_n \eta_y)
        + \text{relaxation, sponge, dissipation},

    q_i = \nabla^2 \psi_i + (S \psi)_i, \qquad
    Q_{y,i} = \beta - U_{i,yy} - (S U)_i, \qquad Q_{x,i} = (S V)_i .

All fields are anomalies from the mean flow. Vallis (2017), chapter 5; the two-layer form and its numbers are pyqg's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sciml.equation import qg_fast
from sciml.equation.base import Equation, Term, apply, given, matrix, repeat
from sciml.equation.expression import Expr, Field, J, Param, dx, dy, lap, mean_x
from sciml.equation.filter import exponential_filter
from sciml.equation.loops import tracked
from sciml.grid import Grid

RESERVED = (
    "advection KEflux APEflux APEgenspec KEfrictionspec filter forcing residual KEspec Ensspec APEspec EKE APEgen"
)
"""Names of terms and diagnostics that have a meaning of their own in the energy budget."""

Profile = float | np.ndarray | Tensor


@dataclass(frozen=True, kw_only=True)
class QuasiGeostrophic(Equation):
    """What layered models share; use :class:`LayeredQG` or :class:`TwoLayerQG`.

    Parameters are in SI units, or any consistent set.

    Parameters
    ----------
    beta : planetary PV gradient [m-1 s-1]
    rek : linear bottom drag, on the lowest layer [s-1]
    f0 : Coriolis parameter, used for layers and sea-surface height [s-1]
    nu, nu_order : (hyper)viscosity of order p, ``-(-1)^p nu lap^p q`` [m^2p s-1]
    nu_axes : the anisotropic form ``-nu_axes (k^2p + l^2p) q`` of the same order p (MEDIDA's is p = 4)
    filterfac : strength of pyqg's exponential filter, 0 for none; pyqg uses 23.6
    topography : PV of the bottom topography ``f0 h / H_n`` on the grid, ``(ny, nx)`` [s-1]
    relax, relax_jet, psi_R : thermal relaxation of the upper interface, ``+-(relax (psi_1 - psi_2) - relax_jet psi_R)``
        in layers 1 and 2 [s-1 L-2, L the unit of length]; psi_R ``(ny, nx)`` or ``(ny, 1)`` [m2 s-1]
    nondimensional : whether files and formulas are to state no units
    sponge : rate ``s(y)`` that damps the non-zonal part of q, ``(ny,)`` or a number [s-1]
    """

    beta: float = 0.0
    rek: float = 0.0
    f0: float = 1e-4
    nu: float = 0.0
    nu_axes: float = 0.0
    nu_order: int = 4
    filterfac: float = 0.0
    topography: Profile | None = None
    nondimensional: bool = False
    relax: float = 0.0
    relax_jet: float = 0.0
    psi_R: Profile | None = None
    sponge: Profile | None = None

    def __post_init__(self):
        if not isinstance(self.grid, Grid):
            raise ValueError(f"grid must be a Grid, such as Grid(64, Lx=1e6), got {self.grid!r}")
        for name in ("rek", "nu", "nu_axes", "filterfac"):
            value = getattr(self, name)
            if isinstance(value, str) or (isinstance(value, int | float) and value < 0):
                raise ValueError(f"{name} takes energy out and must be a number from 0, got {value!r}")

    # -- stated by the two classes below -----------------------------------------------------------------------------
    @property
    def layers(self) -> tuple[float, ...]:
        """Thickness of every layer, from the top [m]."""
        raise NotImplementedError

    @property
    def S(self) -> Tensor:
        """Stretching operator, ``(n, n)`` float64, in m-2: ``q = lap psi + S psi``."""
        raise NotImplementedError

    @property
    def mean_flow(self) -> tuple[tuple[Profile, ...], tuple[float, ...]]:
        """Mean flow ``U`` (numbers or profiles in y) and ``V`` (numbers), layer by layer."""
        raise NotImplementedError

    # -- names -------------------------------------------------------------------------------------------------------
    @property
    def n(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def prognostic(self) -> tuple[str, ...]:
        return tuple(f"q{i + 1}" for i in range(self.n))

    @property
    def reserved(self):
        return super().reserved | {*RESERVED.split(), "EKEdiss"}

    @property
    def units(self):
        if self.nondimensional:
            return {}
        out = {"beta": "m-1 s-1", "rek": "s-1", "nu": f"m{2 * self.nu_order} s-1", "relax": "m-2 s-1"}
        out |= {"nu_axes": out["nu"], "relax_jet": "m-2 s-1", "eta": "s-1", "psi_R": "m2 s-1", "sponge": "s-1"}
        for i in range(1, self.n + 1):
            out |= {f"U{i}": "m s-1", f"V{i}": "m s-1", f"Qy{i}": "m-1 s-1", f"Qx{i}": "m-1 s-1"}
            out |= {f"q{i}": "s-1", f"psi{i}": "m2 s-1"}
        return out

    # -- inversion ---------------------------------------------------------------------------------------------------
    @cached_property
    def fraction(self) -> Tensor:
        """Thickness fractions ``H_i / sum H``, float64."""
        H = matrix([list(self.layers)], self.grid)[0]
        return H / H.sum()

    @cached_property
    def stretch(self) -> Tensor:
        """``S - (k^2 + l^2) I``, shape ``(n, n, *modes)``: q from psi."""
        eye = torch.eye(self.n, dtype=torch.float64, device=self.grid.device)
        return self.S[:, :, None, None] - eye[:, :, None, None] * self.grid.K2

    @cached_property
    def invert(self) -> Tensor:
        """psi from q, shape ``(n, n, *modes)``; of the domain mean only the baroclinic part, the barotropic is 0."""
        A = self.stretch.movedim((0, 1), (-2, -1)).clone()
        h = self.fraction
        project = torch.eye(self.n, dtype=h.dtype, device=h.device) - h  # subtracts the thickness-weighted mean
        scale = self.S.abs().max().clamp(min=1e-300)
        A[0, 0] = self.S - scale * h
        inverse = torch.linalg.inv(A).clone()
        inverse[0, 0] = inverse[0, 0].clone() @ project
        return inverse.movedim((-2, -1), (0, 1))

    @property
    def diagnostic(self):
        return {f"psi{i + 1}": row for i, row in enumerate(self.invert)}

    @cached_property
    def _invert(self) -> Tensor:
        return self.grid.real(self.invert)

    def psi(self, z: Tensor) -> Tensor:
        """Coefficients of the streamfunction of a state."""
        return apply(self._invert, z)

    def pv(self, psi: Tensor) -> Tensor:
        """State ``z`` of a streamfunction given on the grid ``(..., n, ny, nx)``."""
        return apply(self.grid.real(self.stretch), self.init(psi))

    def velocity(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``u`` and ``v`` (anomalies) of every layer on the grid [m s-1]."""
        psi = self.psi(z)
        return self.grid.ifft(-self.grid.complex(self.grid.il) * psi), self.grid.ifft(
            self.grid.complex(self.grid.ik) * psi
        )

    def energy(self, z: Tensor) -> Tensor:
        """Energy per unit mass, ``-1/2 sum_i (H_i/H) <psi_i q_i>`` [m2 s-2]."""
        return self.energy_spectrum(z, z).sum((-2, -1)) / 2

    def energy_spectrum(self, z: Tensor, dz: Tensor) -> Tensor:
        """``-sum_i (H_i/H) Re(psi_i* dz_i)`` per stored wavevector: the rate of change of energy if dz is dz/dt."""
        h = self.grid.real(self.fraction)[:, None, None]
        return -(h * (self.psi(z).conj() * dz).real).sum(-3) * self.grid.real(self.grid.weight)

    def cfl(self, z: Tensor, dt: float) -> float:
        u, v = self.velocity(z)
        U, V = self.mean_flow
        U = torch.stack([self._profile(a) for a in U])
        V = torch.tensor(V, dtype=u.dtype, device=u.device)[:, None, None]
        return float(((u + U).abs() / self.grid.dx + (v + V).abs() / self.grid.dy).amax() * dt)

    def _profile(self, a: Profile) -> Tensor:
        """A number, a profile ``(ny,)`` or a map as a tensor that broadcasts against ``(ny, nx)``."""
        field: Tensor = self.grid.real(a)
        field = field[:, None] if field.ndim == 1 else field
        fits = field.ndim <= 2 and all(
            m in (1, n) for m, n in zip(field.shape[::-1], self.grid.shape[::-1], strict=False)
        )
        if not fits:
            raise ValueError(f"a profile or map of shape {tuple(field.shape)} does not fit the grid {self.grid.shape}")
        return field.expand(self.grid.shape)

    # -- terms -------------------------------------------------------------------------------------------------------
    @cached_property
    def _gradients(self) -> tuple[list, list]:
        """``Qy`` and ``Qx`` of every layer; numbers, or profiles in y where U is one."""
        U, V = self.mean_flow
        profiles = torch.stack([self.grid.fft(self._profile(u)) for u in U])
        curvature = profiles * self.grid.real(-(self.grid.l**2))
        SU = torch.einsum("ij,j...->i...", self.grid.complex(self.S), profiles)
        Qy = self.grid.ifft(-curvature - SU)[..., :1]
        S = self.S.unbind() if tracked(self.S) else self.S.tolist()
        Qx = [sum(s * v for s, v in zip(row, V, strict=True)) for row in S]
        varying = any(np.ndim(u) for u in U)
        if any(np.ndim(v) for v in V):
            raise ValueError("the mean flow V must be a number for each layer; only U may be a profile, in y")
        if any(np.ndim(u) > 1 and np.shape(u)[-1] != 1 for u in U):
            raise ValueError("a profile of U must have shape (ny,) or (ny, 1): it may vary in y only")
        constant = [self.beta - sum(s * u for s, u in zip(row, U, strict=True)) for row in S] if not varying else []
        return (constant or [q + self.beta for q in Qy]), Qx

    @cached_property
    def params(self):
        U, V = self.mean_flow
        Qy, Qx = self._gradients
        out = {}
        for i in range(self.n):
            values = {f"U{i + 1}": U[i], f"V{i + 1}": V[i], f"Qy{i + 1}": Qy[i], f"Qx{i + 1}": Qx[i]}
            out |= {name: v for name, v in values.items() if not np.ndim(v)}
        names = ("beta", "rek", "nu", "nu_axes", "relax", "relax_jet")
        return out | {name: getattr(self, name) for name in names}

    @cached_property
    def fixed(self):
        profiles = {f"U{i + 1}": u for i, u in enumerate(self.mean_flow[0]) if np.ndim(u)}
        profiles |= {f"Qy{i + 1}": q for i, q in enumerate(self._gradients[0]) if np.ndim(q)}
        profiles |= {"eta": self.topography, "psi_R": self.psi_R, "sponge": self.sponge}
        return {name: self.grid.fft(self._profile(a)) for name, a in profiles.items() if a is not None}

    def _symbol(self, name: str) -> Expr:
        return Field(name) if name in self.fixed else Param(name)

    @property
    def own_terms(self) -> Iterable[Term]:
        for i in range(1, self.n + 1):
            name, q, psi = f"q{i}", Field(f"q{i}"), Field(f"psi{i}")
            U, V, Qy, Qx = (self._symbol(f"{s}{i}") for s in ("U", "V", "Qy", "Qx"))
            yield Term(name, "advection", -J(psi, q))
            yield Term(name, "mean_advection", -U * dx(q) - V * dy(q))
            yield Term(name, "pv_gradient", -Qy * dx(psi) + Qx * dy(psi))
            yield from self._dissipation(name, q)
        yield from self._bottom()
        yield from self._relaxation()

    def _dissipation(self, name: str, q: Expr) -> Iterable[Term]:
        p, sign = self.nu_order, (-1) ** (self.nu_order + 1)
        if p < 1 or p != int(p):
            raise ValueError(f"nu_order must be a positive whole number, got {p}")
        if given(self.nu):
            yield Term(name, "viscosity", sign * Param("nu") * repeat(lap, p, q))
        if given(self.nu_axes):
            yield Term(name, "viscosity", sign * Param("nu_axes") * (repeat(dx, 2 * p, q) + repeat(dy, 2 * p, q)))
        if self.sponge is not None:
            yield Term(name, "sponge", -self._symbol("sponge") * (q - mean_x(q)))

    def _bottom(self) -> Iterable[Term]:
        name, psi = f"q{self.n}", Field(f"psi{self.n}")
        if given(self.rek):
            yield Term(name, "drag", -Param("rek") * lap(psi))
        if self.topography is not None:
            eta, U, V = Field("eta"), self._symbol(f"U{self.n}"), self._symbol(f"V{self.n}")
            yield Term(name, "topography", -J(psi, eta) - U * dx(eta) - V * dy(eta))

    def _relaxation(self) -> Iterable[Term]:
        if not (given(self.relax) or given(self.relax_jet)):
            return
        if self.n < 2 or (self.psi_R is None and given(self.relax_jet)):
            raise ValueError("thermal relaxation needs two layers, and relax_jet a field psi_R")
        flux = Param("relax") * (Field("psi1") - Field("psi2"))
        if given(self.relax_jet):
            flux = flux - Param("relax_jet") * Field("psi_R")
        yield Term("q1", "relaxation", flux)
        yield Term("q2", "relaxation", -flux)

    # -- stepping ----------------------------------------------------------------------------------------------------
    @cached_property
    def filter(self) -> Tensor | None:
        return exponential_filter(self.grid, self.filterfac)

    @cached_property
    def _bottom_pv(self) -> Tensor | None:
        """PV of topography ``(n, *modes)`` where no mean flow crosses it: the advection carries it along."""
        if self.topography is None or any(given(flow[-1]) for flow in self.mean_flow):
            return None
        eta = self.fixed["eta"].reshape(1, *self.grid.modes)
        return torch.cat([torch.zeros_like(eta).expand(self.n - 1, -1, -1), eta])

    @cached_property
    def _slow_terms(self) -> tuple[Term, ...]:
        own = {(name, "advection") for name in self.prognostic}
        own |= set() if self._bottom_pv is None else {(self.prognostic[-1], "topography")}
        return tuple(t for t in self._split[1] if (t.field, t.name) not in own)

    @cached_property
    def _advection(self) -> qg_fast.Advection:
        return qg_fast.advection(self.grid, self._invert, self.grid.real(self.S), self._bottom_pv)

    def tendency(self, z: Tensor, t: float = 0.0) -> Tensor:
        return self._rest(self._advection(z, self._linear), z, t)

    def nonlinear(self, z: Tensor, t: float = 0.0) -> Tensor:
        return self._rest(self._advection(z), z, t)

    def _rest(self, dz: Tensor, z: Tensor, t: float) -> Tensor:
        if self._slow_terms:
            dz = dz + self.evaluate(z, self._slow_terms, t)
        for f in self.tendencies:
            dz = dz + f(self, z, t)
        return dz
