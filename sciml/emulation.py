"""How emulators of a quasi-geostrophic flow are scored: forecasts from many starts, and the climate of a long run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sciml import score
from sciml.equation.base import apply
from sciml.equation.qg import QuasiGeostrophic
from sciml.grid import Grid
from sciml.rollout import BlowUp, rollout
from sciml.spectra import isotropic, kinetic_energy
from sciml.step import State, Step


@dataclass(frozen=True)
class LinearInverse:
    """``z(t + dt) = G z(t)`` with ``G = <z(t + dt) z(t)*> <z(t) z(t)*>^-1`` of the layers of each wavevector.

    The best linear forecast of a flow whose statistics are the same everywhere (Penland & Sardeshmukh 1995, J. Climate
    8, 1999, with waves for their EOFs). A step; :meth:`of` estimates G.
    """

    equation: QuasiGeostrophic
    operator: Tensor
    dt: float

    @classmethod
    def of(cls, eq: QuasiGeostrophic, runs: Tensor, every: int, dt: float) -> LinearInverse:
        """From fields ``(runs, times, n, ny, nx)``, states ``dt`` = ``every`` records apart."""
        ahead, now = 0.0, 0.0
        for run in runs:
            z = eq.init(run.to(eq.grid.dtype))
            a, b = z[every:], z[:-every]
            ahead = ahead + torch.einsum("ti...,tj...->ij...", a, b.conj())
            now = now + torch.einsum("ti...,tj...->ij...", b, b.conj())
        first, last = (m.movedim((0, 1), (-2, -1)) for m in (ahead, now))  # type: ignore[union-attr]
        eye = torch.eye(last.shape[-1], dtype=last.dtype)
        size = last.diagonal(dim1=-2, dim2=-1).real.mean(-1)[..., None, None]
        floor = 1e-12 * size + torch.finfo(eq.grid.dtype).tiny
        operator = first @ torch.linalg.inv(last + floor * eye)
        return cls(eq, operator.movedim((-2, -1), (0, 1)), dt)

    def init(self, fields: Tensor, time: float = 0.0, seed: int = 0) -> State:
        return State(self.equation.init(fields.to(self.equation.grid.dtype)), float(time))

    def __call__(self, state: State) -> State:
        return State(apply(self.operator, state.z), state.time + self.dt)

    def read(self, state: State) -> Tensor:
        return self.equation.read(state.z)


@dataclass(frozen=True)
class Seen:
    """A step of a model on a finer grid, of which only the waves are seen that ``grid`` has."""

    step: Step
    grid: Grid

    @property
    def dt(self) -> float:
        """Time step [s]."""
        return self.step.dt

    def init(self, fields: Tensor, time: float = 0.0, seed: int = 0) -> State:
        """From fields on ``grid``; smaller scales start from zero."""
        finer = self.step.equation.grid
        return self.step.init(self.grid.resample(fields.to(finer.dtype), finer), time, seed)

    def __call__(self, state: State) -> State:
        return self.step(state)

    def read(self, state: State) -> Tensor:
        """Fields on ``grid``."""
        return self.step.equation.grid.resample(self.step.read(state), self.grid)


class Skill(NamedTuple):
    """Of forecasts: lead times in s, and means over their starts ``(leads, n)``."""

    lead: np.ndarray
    correlation: np.ndarray
    nrmse: np.ndarray

    def days_to(self, level: float, layer: int) -> float:
        """Lead in days at which the correlation falls below ``level``; infinite where it does not."""
        return crossing(self.lead / 86400, self.correlation[:, layer], level)


def crossing(times: Sequence[float] | np.ndarray, values: np.ndarray, level: float) -> float:
    """Where ``values`` first fall below ``level``, by linear interpolation; infinite where they do not.

    Values that are not numbers count as below.
    """
    below = np.flatnonzero(~(values >= level))
    if not len(below):
        return np.inf
    i = int(below[0])
    if i == 0 or not np.isfinite(values[i]):
        return float(times[max(i - 1, 0)])
    part = (values[i - 1] - level) / (values[i - 1] - values[i])
    return float(times[i - 1] + part * (times[i] - times[i - 1]))


def skill(step, truth: Tensor, every: int = 1) -> Skill:
    """Of forecasts by ``every`` steps at a time of each ``truth (starts, leads + 1, n, ny, nx)``."""
    steps = every * (truth.shape[1] - 1)
    fields = forecast(step, truth[:, 0], steps, every)
    found, true = fields.movedim(0, 1).double(), truth.double()
    lead = every * step.dt * np.arange(truth.shape[1])
    return Skill(lead, score.correlation(found, true).mean(0), score.nrmse(found, true).mean(0))


def persistence(truth: Tensor, dt: float) -> Skill:
    """Of forecasts that nothing changes, of ``truth`` as for :func:`skill`, ``dt`` apart."""
    true, lead = truth.double(), dt * np.arange(truth.shape[1])
    start = true[:, :1].expand_as(true)
    return Skill(lead, score.correlation(start, true).mean(0), score.nrmse(start, true).mean(0))


def forecast(step, start: Tensor, steps: int, every: int) -> Tensor:
    """Fields ``(leads + 1, starts, n, ny, nx)``; not a number after a blow-up."""
    kept, state = [step.read(step.init(start))], step.init(start)
    for _ in range(steps // every):
        try:
            state = rollout(step, every, every)(state).state
            kept.append(step.read(state))
        except BlowUp:
            kept += [torch.full_like(kept[0], torch.nan)] * (steps // every + 1 - len(kept))
            break
    return torch.stack(kept)


class Climate(NamedTuple):
    """Of a run: wavenumbers, time means by layer of the spectrum of eddy kinetic energy ``(n, k)``, of that energy and
    of the enstrophy ``(n,)``, the latter two over time ``(times, n)``, and maps of the variance ``(n, ny, nx)``."""

    k: np.ndarray
    spectrum: np.ndarray
    energy: np.ndarray
    enstrophy: np.ndarray
    energies: np.ndarray
    enstrophies: np.ndarray
    variance: np.ndarray


def climate(eq: QuasiGeostrophic, q: Tensor) -> Climate:
    """Of fields ``q (times, n, ny, nx)``."""
    z = eq.init(q.to(eq.grid.dtype))
    density = kinetic_energy(eq, eq.psi(z))
    k, spectra = isotropic(eq.grid, density.mean(0))
    energies = density.sum((-2, -1))
    enstrophies = 0.5 * q.double().square().mean((-2, -1))
    return Climate(
        k.numpy(), spectra.numpy(), energies.mean(0).numpy(), enstrophies.mean(0).numpy(), energies.numpy(),
        enstrophies.numpy(), q.double().var(0).numpy(),
    )  # fmt: skip


def worst_ratio(found: Climate, true: Climate, part: float = 2 / 3) -> np.ndarray:
    """Largest relative error of the spectrum of each layer, up to ``part`` of the largest wavenumber along an axis."""
    n = int(part * (found.variance.shape[-1] // 2))
    shown = slice(1, n + 1)
    return np.abs(found.spectrum[:, shown] / true.spectrum[:, shown] - 1).max(-1)
