r"""What is measured and how a model sees it: quantities, channels, and the observation operator.

A *quantity* is a differentiable function of fields ``(..., lev, y, x) -> (..., y, x)``; quantities are made by the
functions below and compose (``footprint(radiance(...), ...)``). A :class:`Channel` names a quantity. The
:class:`Operator` samples channels at the time and place of every observation: cubic Lagrange interpolation in x and y,
linear in time between the model's steps. Where and when instruments measure is in ``instruments.py``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciml.grid import Grid
from sciml.observations import check, counts, good, names, understood, units_of, within

Quantity = Callable[[Tensor], Tensor]
GRAVITY = 9.81
"""m s-2"""


# -- quantities ------------------------------------------------------------------------------------------------------
def level(lev: int = 1) -> Quantity:
    """The field itself in layer ``lev`` (1 = top)."""
    at = layer(lev)
    return lambda f: f[..., at, :, :]


def layer(lev: int) -> int:
    """Where layer ``lev`` (1 = top) stands."""
    if lev < 1:
        raise ValueError(f"layers are counted from 1 at the top, got {lev}")
    return lev - 1


def ssh(f0: float, g: float = GRAVITY) -> Quantity:
    """Sea-surface height anomaly [m] of streamfunctions [m2 s-1], ``eta = f0 psi_1 / g`` (geostrophy)."""
    if not (0 < abs(f0) < math.inf and 0 < g < math.inf):
        raise ValueError(f"sea-surface height needs f0 that is not zero and g > 0, got {f0} and {g}")
    return lambda psi: (f0 / g) * psi[..., 0, :, :]


def velocity(grid: Grid, component: str, lev: int = 1) -> Quantity:
    """``u = -d psi/dy`` or ``v = d psi/dx`` [m s-1] of layer ``lev``."""
    if component not in ("u", "v"):
        raise ValueError(f"component must be 'u' or 'v', got {component!r}")
    full, at = every_mode(grid), layer(lev)
    factor = full.complex(-full.il if component == "u" else full.ik)
    return lambda psi: full.ifft(factor * full.fft(psi[..., at, :, :]))


def speed(grid: Grid, lev: int = 1) -> Quantity:
    """Modulus of the velocity [m s-1]; its gradient is zero where the speed is."""
    u, v = velocity(grid, "u", lev), velocity(grid, "v", lev)

    def modulus(psi: Tensor) -> Tensor:
        square = u(psi) ** 2 + v(psi) ** 2
        moving = square > 0
        return torch.where(moving, torch.where(moving, square, 1.0).sqrt(), 0.0)

    return modulus


def radiance(weights: Sequence[float], scale: float, offset: float = 280.0, amplitude: float = 10.0) -> Quantity:
    r"""Brightness temperature [K] of a saturating channel that sees all layers,

    .. math:: T = T_0 + A \tanh\Big( \sum_i w_i \psi_i / s \Big),

    with ``T_0 = offset``, ``A = amplitude`` [K], ``s = scale`` [m2 s-1]: a stand-in for weighting functions.
    """
    w = tuple(float(a) for a in weights)
    if not 0 < abs(scale) < math.inf or not all(map(math.isfinite, (*w, offset, amplitude))):
        raise ValueError(
            f"a radiance needs finite weights, offset and amplitude and a scale that is not zero, got {scale}"
        )

    def temperature(psi: Tensor) -> Tensor:
        if psi.shape[-3] != len(w):
            raise ValueError(f"the channel has weights for {len(w)} layers, the fields have {psi.shape[-3]}")
        mix = torch.stack([a * psi[..., i, :, :] for i, a in enumerate(w)]).sum(0)
        return offset + amplitude * torch.tanh(mix / scale)

    return temperature


def footprint(quantity: Quantity, grid: Grid, radius: float) -> Quantity:
    """Average of a quantity with a Gaussian antenna pattern of standard deviation ``radius`` [m]."""
    if not 0 <= radius < math.inf:
        raise ValueError(f"the radius of a footprint must be finite and not negative, got {radius}")
    full = every_mode(grid)
    pattern = full.real((-0.5 * radius**2 * full.K2).exp())
    return lambda fields: full.ifft(pattern * full.fft(quantity(fields)))


def every_mode(grid: Grid) -> Grid:
    """The grid with all its modes: nonlinear quantities have more than the model's."""
    return replace(grid, dealias=1.0)


@dataclass(frozen=True)
class Channel:
    """A measured quantity and the standard deviation of its uncorrelated error, in ``units``.

    Examples
    --------
    >>> from sciml.observe import footprint, ssh
    >>> grid = sm.Grid(32, Lx=1e6)
    >>> smooth = sm.Channel("ssh", footprint(ssh(f0=1e-4), grid, radius=40e3), sigma=0.02, units="m")
    >>> smooth.quantity(torch.randn(2, 32, 32, dtype=torch.float64)).shape
    torch.Size([32, 32])
    """

    name: str
    quantity: Quantity
    sigma: float
    units: str = "m"

    def __post_init__(self):
        if not callable(self.quantity):
            raise ValueError(f"the quantity of channel {self.name!r} must be a function, such as ssh(f0)")
        if not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise ValueError(f"the error of channel {self.name!r} must be positive, got {self.sigma}")


# -- the operator ----------------------------------------------------------------------------------------------------
class Samples(NamedTuple):
    """Where one channel is sampled in a trajectory: numbers of the states it needs, numbers of the observations, points
    in those states and weights ``(rows, points)``."""

    channel: Channel
    states: Tensor
    rows: Tensor
    index: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Operator:
    """H: from states of a model to observations.

    ``fields`` turns states ``(..., n, *modes)`` into the fields ``(..., lev, y, x)`` on ``grid`` that channels measure
    (``lambda z: eq.grid.ifft(eq.psi(z))`` for quasi-geostrophic models). Operators of one grid add up.

    Examples
    --------
    >>> from sciml.observe import ssh, velocity
    >>> eq = sm.preset("eddy", nx=16)
    >>> height = sm.Channel("ssh", ssh(f0=1e-4), sigma=0.02)
    >>> current = sm.Channel("u", velocity(eq.grid, "u"), sigma=0.05, units="m s-1")
    >>> H = sm.Operator(eq.grid, lambda z: eq.grid.ifft(eq.psi(z)), (height, current))
    >>> [c.name for c in H.channels]
    ['ssh', 'u']
    """

    grid: Grid
    fields: Callable[[Tensor], Tensor]
    channels: tuple[Channel, ...]

    def __post_init__(self):
        found = [c.name for c in self.channels]
        if len(set(found)) < len(found):
            raise ValueError(f"two channels have the same name: {', '.join(found)}")

    def __add__(self, other: Operator) -> Operator:
        return replace(self, channels=self.channels + other.channels)

    def samples(self, obs: xr.Dataset, start: float, dt: float, steps: int) -> list[Samples]:
        """Prepare for the observations of a window whose states are ``steps + 1``, the first at ``start``, each ``dt``.

        Raises ``ValueError`` for channels that the operator does not know and for times outside the window.
        """
        mine = {c.name.replace(" ", "_"): c for c in self.channels}
        understood(obs)
        if "x" not in obs.variables:
            raise ValueError("the operator of a model needs observations with x and y in its box, not lon and lat")
        for name, unit in units_of(obs).items():
            if name in mine and unit not in ("1", mine[name].units):
                raise ValueError(f"channel {name} is observed in {unit}, the operator expects {mine[name].units}")
        if unknown := {names(obs, "channel")[int(c)] for c in np.unique(obs["channel"])} - mine.keys():
            raise ValueError(f"the operator has no channel {', '.join(sorted(unknown))}; it has {', '.join(mine)}")
        time = (obs["time"].values - start) / dt
        if time.size and not (time.min() >= -1e-9 and time.max() <= steps + 1e-9):
            raise ValueError("an observation lies outside the window; flag it with observations.check")
        within(self.grid, obs["x"].values, obs["y"].values)
        out = []
        for code, name in enumerate(names(obs, "channel")):
            rows = np.flatnonzero(obs["channel"].values == code)
            if rows.size:
                index, weight = stencil(self.grid, obs["x"].values[rows], obs["y"].values[rows], time[rows], steps)
                size = self.grid.nx * self.grid.ny
                needed, place = np.unique(index // size, return_inverse=True)
                index = place.reshape(index.shape) * size + index % size
                needed, rows, index = (torch.as_tensor(a, device=self.grid.device) for a in (needed, rows, index))
                out.append(Samples(mine[name], needed, rows, index, self.grid.real(weight)))
        return out

    def __call__(self, states: Tensor, samples: Sequence[Samples], count: int) -> Tensor:
        """Equivalents ``(*batch, count)`` of the observations in a trajectory ``(steps + 1, *batch, n, *modes)``."""
        batch = states.shape[1:-3]
        out = torch.zeros(*batch, count, dtype=self.grid.dtype, device=states.device)
        for channel, needed, rows, index, weight in samples:
            values = channel.quantity(self.fields(states[needed])).movedim(0, -3)
            if values.shape[-2:] != self.grid.shape:
                raise ValueError(f"channel {channel.name} gives fields of {tuple(values.shape[-2:])} points, the "
                                 f"operator's grid has {tuple(self.grid.shape)}")  # fmt: skip
            values = values.flatten(-3)
            out = out.index_copy(-1, rows, (values[..., index] * weight).sum(-1))
        return out


def stencil(grid: Grid, x, y, time, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Points ``(rows, 32)`` in a flattened trajectory ``(steps + 1, y, x)`` and their weights; the box is periodic."""
    (ix, wx), (iy, wy) = (lagrange(x, grid.x0, grid.dx, grid.nx), lagrange(y, grid.y0, grid.dy, grid.ny))
    first = np.clip(np.floor(time).astype(int), 0, max(steps - 1, 0))
    part = np.clip(time - first, 0.0, 1.0)
    it = np.stack([first, np.minimum(first + 1, steps)], -1)
    wt = np.stack([1 - part, part], -1)
    index = (it[:, :, None, None] * grid.ny + iy[:, None, :, None]) * grid.nx + ix[:, None, None, :]
    weight = wt[:, :, None, None] * wy[:, None, :, None] * wx[:, None, None, :]
    return index.reshape(len(index), -1), weight.reshape(len(weight), -1)


def lagrange(x, x0: float, dx: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The four periodic neighbours of each place and the weights of cubic interpolation between them."""
    s = (np.asarray(x, dtype=np.float64) - x0) / dx
    first = np.floor(s).astype(int)
    p = s - first
    weights = [
        -p * (p - 1) * (p - 2) / 6,
        (p + 1) * (p - 1) * (p - 2) / 2,
        -(p + 1) * p * (p - 2) / 2,
        (p + 1) * p * (p - 1) / 6,
    ]
    return (first[:, None] + np.arange(-1, 3)) % n, np.stack(weights, -1)


# -- windows ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Window:
    """The observations of one assimilation window and how a model sees them."""

    obs: xr.Dataset
    """with times after ``start`` up to ``start + steps dt``; what is flagged is left out"""
    operator: Operator
    start: float
    dt: float
    steps: int

    def __post_init__(self):
        real = self.operator.grid.real
        set_once = object.__setattr__
        set_once(self, "obs", good(self.obs, sound=True))
        set_once(self, "samples", self.operator.samples(self.obs, self.start, self.dt, self.steps))
        set_once(self, "value", real(self.obs["value"].values))
        set_once(self, "sigma", real(self.obs["sigma"].values))

    samples: list[Samples] = None  # type: ignore[assignment]
    value: Tensor = None  # type: ignore[assignment]
    sigma: Tensor = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return self.value.shape[0]

    def equivalents(self, states: Tensor) -> Tensor:
        """H of a trajectory ``(steps + 1, *batch, n, *modes)``, ``(*batch, observations)``."""
        return self.operator(states, self.samples, len(self))


def windows(obs: xr.Dataset, operator: Operator, start: float, dt: float, steps: int, n: int) -> list[Window]:
    """``n`` windows of ``steps`` model steps, one after the other; only observations that pass
    :func:`~sciml.observations.check` within the grid's box are used, and a warning says so if none does.

    Examples
    --------
    >>> from sciml.testbed import twin
    >>> t = twin(n=2)
    >>> first = t.windows[0]
    >>> len(first), first.steps, first.equivalents(t.prior[:1].expand(16, -1, -1, -1)).shape
    (1000, 15, torch.Size([1000]))
    """
    grid = operator.grid
    understood(obs)
    if np.issubdtype(obs["time"].dtype, np.datetime64):
        raise ValueError("windows need times in seconds since the start of the run, not dates; subtract the start")
    if not (dt > 0 and steps >= 1 and steps == int(steps) and n >= 1 and n == int(n)):
        raise ValueError(f"windows need dt > 0 and whole numbers steps and n from 1, got {dt}, {steps} and {n}")
    if np.any(np.diff(good(obs)["time"].values) < 0):
        raise ValueError("observations must be sorted by time; use observations.concatenate or sortby('time')")
    checked = check(obs, start, start + n * steps * dt, grid.box)
    used = good(checked)
    time = used["time"].values
    edges = start + dt * steps * np.arange(n + 1)
    cuts = np.searchsorted(time, edges, side="right")
    if not used.sizes["obs"]:
        why = f"none of {obs.sizes['obs']} can be used: {counts(checked)}" if obs.sizes["obs"] else "there are none"
        warnings.warn(f"all {n} windows are without observations, {why}", stacklevel=2)
    elif bare := int((cuts[1:] == cuts[:-1]).sum()):
        short = bare == n - 1 and 0 < float(time.max()) - start <= n * steps * dt / 3600.0
        advice = f"; are times in seconds? The last is {time.max():g}, the windows end at {edges[-1]:g}" * short
        warnings.warn(f"{bare} of {n} windows are without observations{advice}", stacklevel=2)
    elif len(used["obs"]) >= 50 and all(
        0 < np.ptp(used[axis].values) < 0.01 * length for axis, length in (("x", grid.Lx), ("y", grid.Ly))
    ):
        warnings.warn("all observations lie within a hundredth of the box: are x and y in the unit of the grid, "
                      f"whose side is {grid.Lx:g}?", stacklevel=2)  # fmt: skip
    return [Window(used.isel(obs=slice(a, b)), operator, float(t), dt, steps)
            for a, b, t in zip(cuts[:-1], cuts[1:], edges[:-1], strict=True)]  # fmt: skip
