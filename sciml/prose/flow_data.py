"""Windows of flows of varying equations: what a network sees, the days that follow, and the equation behind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciml.grid import Grid
from sciml.prose.flow_solver import FlowSolver, flow_solver, tabulated
from sciml.prose.flows import Member, Written
from sciml.prose.system import held_out

NATIVE = 32
"""Random fields are drawn on this grid, so that a seed gives the same flows at every resolution."""


@dataclass(frozen=True)
class Flows:
    """Streamfunctions of ``N`` windows.

    The frames are of psi, which altimeters and geopotential maps show, and not of q: what q is depends on the
    deformation radius, which is part of the equation to be found.

    Parameters
    ----------
    t : times of the frames, in days ``(T,)``
    frames : float32 ``(N, T, 2, n, n)``; the second layer of a flow of one layer is zero
    eta : maps of the topography ``(len(equations), n, n)``, of unit variance; every member has one, whether its
        equation has the term or not, so that the map alone gives nothing away
    equation : index of the member that each window belongs to ``(N,)``
    equations : the written flows (:mod:`sciml.prose.flows`)
    family, names : index into ``names`` of each member's family ``(len(equations),)``
    """

    t: Tensor
    frames: Tensor
    eta: Tensor
    equation: Tensor
    equations: list[Written]
    family: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.frames)

    @classmethod
    def joined(cls, parts: Sequence[Flows]) -> Flows:
        """Sets at the same times as one, whose members are counted on; families are told by name."""
        names = tuple(dict.fromkeys(name for p in parts for name in p.names))
        before = [0]
        for p in parts:
            before.append(before[-1] + len(p.equations))
        family = [torch.tensor([names.index(n) for n in p.names])[p.family] for p in parts]
        return cls(
            parts[0].t,
            torch.cat([p.frames for p in parts]),
            torch.cat([p.eta for p in parts]),
            torch.cat([p.equation + n for p, n in zip(parts, before, strict=False)]),
            [e for p in parts for e in p.equations],
            torch.cat(family),
            names,
        )

    def to(self, device: str | torch.device) -> Flows:
        """The same windows on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("t", "frames", "eta", "equation", "family")}
        return replace(self, **moved)

    def select(self, which: Tensor) -> Flows:
        """The windows of these indices (or of this mask); all equations are kept."""
        return replace(self, frames=self.frames[which], equation=self.equation[which])

    def split(self, fraction: float, seed: int = 0) -> tuple[Flows, Flows]:
        """Two sets of windows that share no equation, the second with about ``fraction`` of each family's.

        Raises ``ValueError`` for a fraction outside (0, 1), and for a family that has one equation only.
        """
        held = held_out(self.names, self.family, self.equations, fraction, seed).to(self.equation.device)[self.equation]
        return self.select(~held), self.select(held)


def generate_flows(
    members: Sequence[Member], windows: int, *, seed: int, n: int = 32, frames: int = 18, every: float = 1.0,
    spin_up: float = 6.0, speed: tuple[float, float] = (0.2, 0.6), bounds: tuple[float, float] = (0.02, 1.0),
    steps_per_day: int | None = None, chunk: int | None = None, dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Flows:  # fmt: skip
    """``windows`` windows of each member, from random eddies and ``spin_up`` days; on the CPU whatever ``device`` is.

    Raises ``ValueError`` where there are no members, windows or frames, or where no window is left.

    Parameters
    ----------
    frames, every : number of frames and the days between them; input and output windows are parts of them
    speed : bounds of the rms speed of the random eddies, drawn with an even logarithm
    bounds : windows whose rms speed leaves these bounds (have died or blown up) are left out
    chunk : flows that are stepped at once (default: 64, which stay in the cache of a CPU, and 4096 on a GPU)
    """
    if not members or windows < 1 or frames < 1 or every <= 0 or spin_up < 0:
        raise ValueError("generate_flows needs members, at least one window and one frame, and days that pass")
    generator = torch.Generator().manual_seed(seed)
    grid = Grid(n, dtype=dtype, device=str(device))
    eta = random_maps(len(members), grid, generator)
    psi = random_eddies(windows, len(members), grid, generator, speed)
    out = torch.zeros(len(members), windows, frames, 2, n, n)
    for layers in (1, 2):
        of = [i for i, m in enumerate(members) if m.layers == layers]
        size = max(1, (chunk or (64 if grid.device == "cpu" else 4096)) // windows)
        for some in (of[i : i + size] for i in range(0, len(of), size)):
            terms, values = tabulated([members[i].expressions for i in some])
            solver = flow_solver(terms, values, grid, eta[some].to(grid.device))
            z = solver.pv(grid.fft(psi[:, some, :layers].to(grid.device, dtype)))
            recorded = record(solver, z, frames, every, spin_up, steps_per_day)
            out[some, :, :, :layers] = recorded.movedim(2, 0).movedim(2, 1).float().cpu()
    return _kept(members, out, eta.float(), every, bounds)


def daily_steps(grid: Grid) -> int:
    """Steps a day that are stable for rms speeds of up to 1: psi is then good to 1e-5 over a window, as measured."""
    return max(8, grid.nx // 4)


def record(
    solver: FlowSolver, z: Tensor, frames: int, every: float, spin_up: float = 0.0, steps_per_day: int | None = None
) -> Tensor:
    """Streamfunctions on the grid every so many days after a spin-up, ``(frames, ..., B, layers, n, n)``; by default in
    :func:`daily_steps`."""
    daily = steps_per_day or daily_steps(solver.grid)
    if spin_up:
        z = solver.run(z, spin_up, math.ceil(spin_up * daily))
    out = [solver.grid.ifft(solver.psi(z))]
    for _ in range(frames - 1):
        z = solver.run(z, every, math.ceil(every * daily))
        out.append(solver.grid.ifft(solver.psi(z)))
    return torch.stack(out)


def _kept(members: Sequence[Member], out: Tensor, eta: Tensor, every: float, bounds: tuple[float, float]) -> Flows:
    rms = torch.cat([rms_speed(o) for o in out.split(64)])
    rms = torch.nan_to_num(rms, nan=math.inf)
    good = ((rms > bounds[0]) & (rms < bounds[1])).all(-1)
    if not good.any():
        raise ValueError(f"no window kept its rms speed within {bounds}; draw other members or widen the bounds")
    names = tuple(dict.fromkeys(m.family for m in members))
    return Flows(
        t=every * torch.arange(out.shape[2], dtype=torch.float32), frames=out[good], eta=eta,
        equation=torch.arange(len(members))[:, None].expand_as(good)[good],
        equations=[m.expressions for m in members], family=torch.tensor([names.index(m.family) for m in members]),
        names=names,
    )  # fmt: skip


def rms_speed(psi: Tensor) -> Tensor:
    """Root mean square speed of the faster layer of streamfunctions ``(..., layers, n, n)``."""
    grid = Grid(psi.shape[-1], dtype=psi.dtype, device=str(psi.device))
    return grid.mean_square(grid.fft(psi) * grid.real(grid.K2.sqrt())).amax(-1).sqrt()


def random_maps(count: int, grid: Grid, generator: torch.Generator, peak: float = 3.0) -> Tensor:
    """Smooth random fields of unit variance ``(count, n, n)``, float64, on the CPU."""
    native = Grid(NATIVE)
    K = native.K2.sqrt()
    fh = _white(native, (count,), generator) * K * torch.exp(-((K / peak) ** 2) / 2)
    fh = fh / native.mean_square(fh).sqrt()[..., None, None]
    return native.resample(native.ifft(fh), Grid(grid.nx))


def random_eddies(
    windows: int, members: int, grid: Grid, generator: torch.Generator, speed: tuple[float, float]
) -> Tensor:
    """Streamfunctions ``(windows, members, 2, n, n)`` of random eddies of 2 to 4.5 waves, float64, on the CPU.

    The rms speed of the upper layer is drawn within ``speed``; the lower layer is half as strong and partly aligned.
    """
    native = Grid(NATIVE)
    K, shape = native.K2.sqrt(), (windows, members, 1, 1, 1)
    peak, strength = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
    peak = 2 + 2.5 * peak
    fh = _white(native, (windows, members, 2), generator) * (K / peak) ** 3 * torch.exp(-1.5 * (K / peak) ** 2)
    rms = native.mean_square(fh * K).sqrt()[..., None, None]
    fh = fh / rms * speed[0] * (speed[1] / speed[0]) ** strength
    fh = torch.stack([fh[:, :, 0], 0.4 * fh[:, :, 0] + 0.3 * fh[:, :, 1]], 2)
    return native.resample(native.ifft(fh), Grid(grid.nx))


def _white(grid: Grid, batch: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return grid.fft(torch.randn(*batch, *grid.shape, generator=generator, dtype=torch.float64))
