"""Trajectories of many equations at once: vectorised integration, and the data sets that PROSE learns from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciml.equation.expression import Expr
from sciml.prose.compiled import Kernel, kernel
from sciml.prose.compiled import compiled as compiled  # beside integrate, which runs it
from sciml.prose.ordinary import SUBSTEPS
from sciml.prose.system import System, held_out

DEFAULT_SUBSTEPS = 8


def integrate(
    rhs: Sequence[Expr], params: Mapping[str, Tensor], u0: Tensor, times: Tensor, substeps: int = DEFAULT_SUBSTEPS
) -> Tensor:
    """Trajectories ``(..., T, D)`` from ``u0`` ``(..., D)`` at ``times`` ``(T,)``, float64 on the device of ``u0``.

    The classical Runge-Kutta method of fourth order with ``substeps`` equal steps in each interval of ``times``, all
    trajectories at once. ``params`` has values ``(...)`` for the parameters of ``rhs``. The result can be
    differentiated in ``u0`` and ``params``; a trajectory that blows up becomes inf or nan.

    Raises
    ------
    ValueError : as :func:`compiled` does, for times that do not increase, and for fewer than one substep
    """
    if times.ndim != 1 or len(times) == 0 or bool((times.diff() <= 0).any()):
        raise ValueError("times must be a sequence (T,) that increases")
    if substeps < 1:
        raise ValueError(f"substeps must be 1 or more, got {substeps}")
    if u0.shape[-1] != len(rhs):
        raise ValueError(f"u0 must have shape (..., {len(rhs)}) for {len(rhs)} right-hand sides, got {tuple(u0.shape)}")
    u, f = u0.double().movedim(-1, 0).contiguous(), kernel(rhs)
    params = {name: torch.as_tensor(p, device=u.device).double() for name, p in params.items()}
    states = [u]
    for interval in times.double().diff().tolist():
        for _ in range(substeps):
            u = runge_kutta(f, params, u, interval / substeps)
        states.append(u)
    return torch.stack(states).movedim(1, -1).movedim(0, -2)


def runge_kutta(f: Kernel, params: Mapping[str, Tensor], u: Tensor, h: float) -> Tensor:
    """One step of the classical method of fourth order (Kutta 1901), components first: ``(D, ...)``."""

    def slope(u: Tensor) -> Tensor:
        return torch.stack(f(u.unbind(0), params))

    k1 = slope(u)
    k2 = slope(torch.add(u, k1, alpha=h / 2))
    k3 = slope(torch.add(u, k2, alpha=h / 2))
    k4 = slope(torch.add(u, k3, alpha=h))
    return torch.add(u, torch.add(k1, k2, alpha=2).add_(k3, alpha=2).add_(k4), alpha=h / 6)


@dataclass(frozen=True)
class Trajectories:
    """Trajectories of many equations of several families, padded with zeros to one number of fields.

    ``equations`` and what belongs to them are shared by every selection; only ``u`` and ``equation`` are chosen from.
    """

    t: Tensor
    """times ``(T,)``, float32"""
    u: Tensor
    """trajectories ``(N, T, Dmax)``, float32"""
    equation: Tensor
    """index of the equation of each trajectory ``(N,)``, long"""
    equations: list[tuple[Expr, ...]]
    """right-hand sides without parameters, as integrated"""
    family: Tensor
    """index into ``names`` of each equation ``(n_equations,)``, long"""
    dims: Tensor
    """number of fields of each equation ``(n_equations,)``, long"""
    names: tuple[str, ...]
    """names of the families"""

    def __len__(self) -> int:
        return len(self.u)

    def to(self, device: torch.device | str) -> Trajectories:
        moved = {name: getattr(self, name).to(device) for name in ("t", "u", "equation", "family", "dims")}
        return replace(self, **moved)

    def select(self, indices: Tensor) -> Trajectories:
        """The trajectories of these indices, or of a mask ``(N,)``."""
        return replace(self, u=self.u[indices], equation=self.equation[indices])

    def split(self, fraction: float, seed: int = 0) -> tuple[Trajectories, Trajectories]:
        """Two sets that share no equation, the second with about ``fraction`` of each family's.

        Equal equations stay together: of a family with one parameter of three digits, draws repeat themselves (Thomas
        with its 10 % has 35 equations), so that a split by index would leave tested equations in the training set.

        Raises
        ------
        ValueError : for a fraction outside (0, 1), or a family that has one equation only
        """
        held = held_out(self.names, self.family, self.equations, fraction, seed).to(self.equation.device)[self.equation]
        return self.select(~held), self.select(held)


def generate(
    systems: Iterable[System], equations: int, conditions: int, *, seed: int, spread: float = 0.1,
    times: Tensor | None = None, device: torch.device | str = "cpu", dmax: int = 5, batch: int | None = None,
    substeps: Mapping[str, int] | int = SUBSTEPS, tries: int = 50,
) -> Trajectories:  # fmt: skip
    """Trajectories of ``equations`` equations, families in turn, from ``conditions`` initial states each.

    Parameters are drawn by ``System.sample``, initial states from ``U(-2, 2)^D``. The draws are the same on every
    device; a trajectory that is not finite or grows beyond the bound of its family starts again elsewhere.

    Parameters
    ----------
    times : ``(T,)``; 192 from 0 to 6 by default, as PROSE has them
    dmax : number of fields that trajectories are padded to
    batch : trajectories integrated at once; by default 4096 on CPUs, where they stay in cache, else 131072
    substeps : Runge-Kutta steps per interval, of all families or by name, 8 where it has none
    tries : initial states drawn before a trajectory is given up; half of those of Sprott-Linz F leave for infinity

    Raises
    ------
    ValueError : for no systems, a family of more than ``dmax`` fields, fewer equations than families, and where a
        trajectory is beyond the bound from ``tries`` initial states
    """
    systems, times = list(systems), torch.linspace(0, 6, 192, dtype=torch.float64) if times is None else times
    _check(systems, equations, conditions, dmax)
    generator, names = torch.Generator().manual_seed(seed), tuple(s.name for s in systems)
    family = torch.arange(equations) % len(systems)
    u = torch.zeros(equations, conditions, len(times), dmax, device=device)
    written: list[tuple[Expr, ...]] = [()] * equations
    for i, system in enumerate(systems):
        mine = (family == i).nonzero()[:, 0]
        params = system.sample(len(mine), generator, spread)
        for k, j in enumerate(mine.tolist()):
            written[j] = system.written({name: float(p[k]) for name, p in params.items()})
        steps = substeps if isinstance(substeps, int) else substeps.get(system.name, DEFAULT_SUBSTEPS)
        run = _Runs(system, times, steps, device, batch, tries)
        repeated = {name: p.repeat_interleave(conditions) for name, p in params.items()}
        found = run(repeated, len(mine) * conditions, generator)
        u[mine.to(device), ..., : found.shape[-1]] = found.unflatten(0, (len(mine), conditions))
    dims = torch.tensor([len(e) for e in written])
    index = torch.arange(equations).repeat_interleave(conditions)
    whole = Trajectories(times.float(), u.flatten(0, 1), index, written, family, dims, names)
    return whole.to(device)


@dataclass(frozen=True)
class _Runs:
    """Bounded trajectories of one family, in batches."""

    system: System
    times: Tensor
    substeps: int
    device: torch.device | str
    batch: int | None
    tries: int

    @torch.no_grad()
    def __call__(self, params: Mapping[str, Tensor], n: int, generator: torch.Generator) -> Tensor:
        out = torch.empty(n, len(self.times), len(self.system.rhs), device=self.device)
        left = torch.arange(n)
        for _ in range(self.tries):
            u0 = 4 * torch.rand(len(left), len(self.system.rhs), generator=generator, dtype=torch.float64) - 2
            good = [self._run(params, u0[part], left[part], out) for part in self._batches(len(left))]
            left = left[~torch.cat(good)]
            if not len(left):
                return out
        where = {name: round(float(p[left[0]]), 6) for name, p in params.items()}
        raise ValueError(
            f"{len(left)} of {n} trajectories of {self.system.name!r} are not finite or larger than "
            f"{self.system.bound:g} from {self.tries} initial states, for example with {where}; raise bound or tries, "
            "or lessen spread or the last of times"
        )

    def _batches(self, n: int) -> list[slice]:
        size = self.batch or (4096 if torch.device(self.device).type == "cpu" else 131072)
        return [slice(start, start + size) for start in range(0, n, size)]

    def _run(self, params: Mapping[str, Tensor], u0: Tensor, index: Tensor, out: Tensor) -> Tensor:
        """Integrate and store; whether each trajectory is good, on the CPU."""
        at = {name: p[index].to(self.device) for name, p in params.items()}
        u = integrate(self.system.rhs, at, u0.to(self.device), self.times, self.substeps)
        out[index.to(self.device)] = u.float()
        return (u.abs() < self.system.bound).all(-1).all(-1).cpu()  # false for nan too


def _check(systems: list[System], equations: int, conditions: int, dmax: int) -> None:
    if not systems or conditions < 1:
        raise ValueError("give at least one system and one initial condition per equation")
    if equations < len(systems):
        raise ValueError(f"{equations} equations are fewer than the {len(systems)} families; ask for one of each")
    if wide := [s.name for s in systems if len(s.rhs) > dmax]:
        raise ValueError(f"{', '.join(wide)}: more fields than dmax = {dmax}; raise dmax")


def with_noise(u: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Trajectories ``(..., T, D)`` with white Gaussian noise, ``||noise|| ~ level ||u||`` for each of them.

    The noise is of one size in all fields of a trajectory; fields that are zero throughout, as padding is, stay zero.
    """
    used = (u != 0).any(-2, keepdim=True).expand(u.shape)
    noise = torch.randn(u.shape, generator=generator, dtype=u.dtype, device=generator.device).to(u.device)
    variance = u.square().sum((-2, -1), keepdim=True) / used.sum((-2, -1), keepdim=True).clamp(min=1)
    return u + level * variance.sqrt() * noise * used
