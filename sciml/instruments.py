"""Where and when instruments measure, and what goes wrong when they do: orbits, swaths, clouds, errors.

A *geometry* is a function ``(start, end) -> (time, x, y)`` of the samples taken in that interval (seconds, metres), the
same for overlapping intervals. All boxes are periodic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciml.grid import Grid
from sciml.initial import random_field
from sciml.observations import check, concatenate, observations
from sciml.observe import Channel, Operator

Geometry = Callable[[float, float], tuple[np.ndarray, np.ndarray, np.ndarray]]
GROUND_SPEED = 5800.0
"""m s-1, of an altimeter's ground track"""


def points(x: Sequence[float], y: Sequence[float], every: float, phase: float = 0.0) -> Geometry:
    """Fixed places, all measured at ``phase + i every``."""
    places = np.asarray(x, dtype=float), np.asarray(y, dtype=float)

    def samples(start: float, end: float):
        times = epochs(start, end, every, phase)
        return np.repeat(times, len(places[0])), np.tile(places[0], len(times)), np.tile(places[1], len(times))

    return samples


def track(grid: Grid, every: float, spacing: float, repeat: int = 17, skip: int = 5, tilt: float = 20.0,
          phase: float = 0.0, x0: float = 0.0) -> Geometry:  # fmt: skip
    """Nadir track of an inclined orbit: the box is crossed from south to north, then from north to south, and so on.

    Parameters
    ----------
    every : time between two crossings, s
    spacing : distance between samples along the track, m
    repeat, skip : crossings begin at ``repeat`` places, each ``skip / repeat`` of the box further east than the last;
        where ``repeat`` is odd the one after so many goes the other way, and the track repeats after twice as many
    tilt : angle of the track from the meridian, degrees
    phase, x0 : time [s] and place [m] of the first crossing
    """
    return swath(grid, every, spacing, np.zeros(1), repeat, skip, tilt, phase, x0)


def swath(grid: Grid, every: float, spacing: float, across, repeat: int = 17, skip: int = 5, tilt: float = 20.0,
          phase: float = 0.0, x0: float = 0.0) -> Geometry:  # fmt: skip
    """As :func:`track`, at the distances ``across`` [m] from the nadir (see :func:`both_sides`)."""
    if math.gcd(repeat, skip) != 1:
        raise ValueError(f"repeat and skip must have no common divisor, got {repeat} and {skip}")
    angle, offsets = math.radians(tilt), np.asarray(across, dtype=float)
    along = np.arange(0.0, grid.Ly / math.cos(angle), spacing)
    duration = along[-1] / GROUND_SPEED

    def samples(start: float, end: float):
        parts = []
        for when in epochs(start - duration, end, every, phase):
            number = round((when - phase) / every)
            side = 1.0 if number % 2 == 0 else -1.0
            s, c = np.meshgrid(along, offsets, indexing="ij")
            x = x0 + number * skip / repeat * grid.Lx + s * math.sin(angle) + c * math.cos(angle)
            y = side * (s * math.cos(angle) - c * math.sin(angle))
            parts.append((when + s / GROUND_SPEED, grid.x0 + x % grid.Lx, grid.y0 + y % grid.Ly))
        return within(parts, start, end)

    return samples


def both_sides(gap: float, width: float, spacing: float) -> np.ndarray:
    """Distances across a swath of total ``width`` with a ``gap`` about the nadir [m]."""
    right = np.arange(gap / 2, width / 2 + spacing / 1e6, spacing)
    return np.concatenate([-right[::-1], right])


def scan(grid: Grid, every: float, spacing: float, phase: float = 0.0) -> Geometry:
    """An imager that sees the whole box at once, at places ``spacing`` apart [m]."""
    n = [max(1, round(length / spacing)) for length in (grid.Lx, grid.Ly)]
    x, y = (
        o + length * (np.arange(m) + 0.5) / m for o, length, m in ((grid.x0, grid.Lx, n[0]), (grid.y0, grid.Ly, n[1]))
    )
    X, Y = np.meshgrid(x, y)
    return points(X.ravel().tolist(), Y.ravel().tolist(), every, phase)


def epochs(start: float, end: float, every: float, phase: float) -> np.ndarray:
    """``phase + i every`` in ``(start, end]``."""
    if not every > 0:
        raise ValueError(f"the time between measurements must be positive, got {every}")
    first, last = math.floor((start - phase) / every) + 1, math.floor((end - phase) / every)
    return phase + every * np.arange(first, last + 1)


def within(parts, start: float, end: float):
    """All samples with times in ``(start, end]``, sorted by time."""
    if not parts:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    time, x, y = (np.concatenate([np.ravel(p[i]) for p in parts]) for i in range(3))
    order = np.argsort(time, kind="stable")
    order = order[(time[order] > start) & (time[order] <= end)]
    return time[order], x[order], y[order]


@dataclass(frozen=True)
class Clouds:
    """A mask that covers ``fraction`` of the box with patches of ``size`` [m] and moves at ``velocity`` [m s-1]."""

    fraction: float
    size: float
    velocity: tuple[float, float] = (5.0, 1.0)
    renewed: float = 5 * 86400.0
    """seconds after which the patches are new ones"""

    def clear(self, grid: Grid, seed: int, time: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether each place is free of clouds."""
        out = np.ones(len(time), dtype=bool)
        number = np.floor(time / self.renewed).astype(int)
        for n in np.unique(number):
            cover = (
                random_field(grid, lambda K: torch.exp(-((K * self.size) ** 2) / 8), seed * 100_003 + int(n))
                .cpu()
                .numpy()
            )
            here = number == n
            i = np.floor((x[here] - self.velocity[0] * time[here] - grid.x0) / grid.dx).astype(int) % grid.nx
            j = np.floor((y[here] - self.velocity[1] * time[here] - grid.y0) / grid.dy).astype(int) % grid.ny
            out[here] = cover[j, i] >= np.quantile(cover, self.fraction)
        return out


@dataclass(frozen=True)
class Instrument:
    """A platform with its channels, which all measure at the same places.

    The error of a channel is the sum of an uncorrelated part (``sigma`` of the channel), a part correlated in time over
    ``correlation_time`` seconds (``correlated`` times ``sigma``), and a bias that drifts as a cosine of amplitude
    ``drift`` times ``sigma`` and period ``drift_period``. The stated sigma holds all parts.

    Examples
    --------
    >>> from sciml.instruments import track
    >>> from sciml.observe import ssh
    >>> grid = sm.Grid(32, Lx=1e6)
    >>> height = sm.Channel("ssh", ssh(f0=1e-4), sigma=0.02)
    >>> altimeter = sm.Instrument("altimeter", track(grid, every=86400.0, spacing=15e3), (height,), drift=0.5)
    >>> time, x, y = altimeter.geometry(0.0, 5 * 86400.0)
    >>> len(time), round(altimeter.factor(), 3)  # a drift adds to the error that is stated
    (355, 1.061)
    """

    platform: str
    geometry: Geometry
    channels: tuple[Channel, ...]
    correlated: float = 0.0
    correlation_time: float = 3600.0
    drift: float = 0.0
    drift_period: float = 60 * 86400.0
    clouds: Clouds | None = None

    def factor(self) -> float:
        """Standard deviation of the whole error over that of its uncorrelated part."""
        return math.sqrt(1 + self.correlated**2 + self.drift**2 / 2)


def simulate(
    operator: Operator, instruments: Sequence[Instrument], states: Tensor, start: float, dt: float, seed: int
) -> xr.Dataset:
    """Noisy observations of a trajectory ``(steps + 1, n, *modes)`` whose first state is at ``start``, each ``dt``.

    The same seed gives the same observations. Clouds remove what they cover. Raises ``ValueError`` for states that are
    no coefficients on the operator's grid or not finite.

    Examples
    --------
    >>> from sciml.instruments import points
    >>> from sciml.observe import ssh
    >>> eq = sm.preset("eddy", nx=16)
    >>> step = sm.ab3(eq, 7200.0)
    >>> states = sm.rollout(step, 24, every=1, save=lambda state: state.z)(sm.random_pv(eq, seed=0)).fields
    >>> height = sm.Channel("ssh", ssh(f0=1e-4), sigma=0.02)
    >>> H = sm.Operator(eq.grid, lambda z: eq.grid.ifft(eq.psi(z)), (height,))
    >>> mooring = sm.Instrument("mooring", points([5e5], [5e5], every=3600.0), (height,))
    >>> sm.simulate(H, [mooring], states, start=0.0, dt=step.dt, seed=0).sizes["obs"]
    48
    """
    modes = operator.grid.modes
    if not isinstance(states, Tensor) or not states.is_complex() or states.ndim != 4 or states.shape[-2:] != modes:
        raise ValueError(
            f"states must be coefficients (steps + 1, n, {modes[0]}, {modes[1]}) of every step, such as the fields of "
            "rollout(step, n, save=lambda state: state.z)"
        )
    if not bool(torch.isfinite(torch.view_as_real(states)).all()):
        raise ValueError("states are not finite")
    end = start + dt * (states.shape[0] - 1)
    rng = np.random.default_rng(seed)
    parts = []
    for number, one in enumerate(instruments):
        time, x, y = one.geometry(start, end)
        clear = (
            np.ones(len(time), bool)
            if one.clouds is None
            else one.clouds.clear(operator.grid, seed + number, time, x, y)
        )
        for channel in one.channels:
            noise = rng.standard_normal(len(time)) + errors_in_common(one, rng, time)
            obs = observations(
                np.zeros(len(time)), channel.sigma * one.factor(), time, x, y, channels=[channel.name],
                platforms=[one.platform], units=[channel.units],
            )  # fmt: skip
            obs = obs.assign(value=("obs", channel.sigma * noise, obs["value"].attrs))
            parts.append(obs.isel(obs=np.flatnonzero(clear)))
    out = concatenate(parts)
    exact = operator(states, operator.samples(out, start, dt, states.shape[0] - 1), out.sizes["obs"])
    out = out.assign(value=("obs", out["value"].values + exact.double().cpu().numpy(), out["value"].attrs))
    return check(out, start, end)


def errors_in_common(one: Instrument, rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    """The correlated part and the drift of an instrument's error, in units of sigma, at sorted times."""
    phase = rng.uniform(0, 2 * np.pi)
    drift = one.drift * np.cos(2 * np.pi * time / one.drift_period + phase)
    moments, where = np.unique(time, return_inverse=True)
    if one.correlated == 0 or not len(moments):
        return drift
    memory = np.exp(-np.diff(moments) / one.correlation_time)
    red = rng.standard_normal(len(moments))
    for i, m in enumerate(memory, 1):
        red[i] = m * red[i - 1] + math.sqrt(1 - m**2) * red[i]
    return drift + one.correlated * red[where]
