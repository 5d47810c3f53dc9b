"""The local ensemble transform Kalman filter (Hunt, Kostelich & Szunyogh 2007, Physica D 230, 112)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sciml.assim.base import Analysed, Space, forecast, innovations, restarted
from sciml.assim.ensemble import anomalies_and_innovation, generator_of, inflated, rotation, spread_info, symmetric
from sciml.grid import Grid
from sciml.observe import Window
from sciml.step import State, Step


class Memory(NamedTuple):
    """Random generator and present inflation of the forecast variance."""

    generator: Tensor
    inflation: float


@dataclass(frozen=True)
class LETKF:
    """Every column of the grid has weights of its own, from observations near it.

    The error variance of an observation at distance r counts as divided by the taper of Gaspari & Cohn (1999, eq. 4.10)
    of half-width ``sqrt(10/3) radius``, so that ``radius`` is the length of the equivalent Gaussian.

    Parameters
    ----------
    space : states as fields in which weights are applied
    radius : localisation length, in the grid's unit of length
    inflation : factor of the anomalies after the analysis
    rtps : relaxation to the prior spread, 0 to 1 (Whitaker & Hamill 2012)
    adaptive : rate (1 / cycles, 0 to 1) at which an inflation of the forecast variance follows innovation statistics
        (Li, Kalnay & Miyoshi 2009), between 1 and 2; 0 leaves it at 1
    every : weights are found at each ``every``-th point in x and y and interpolated (Yang et al. 2009)
    rotate : one random rotation of all local ensembles

    Examples
    --------
    >>> from sciml.testbed import twin
    >>> t = twin(n=2)
    >>> letkf = sm.LETKF(t.space, radius=150e3, inflation=1.05)
    >>> found = sm.cycle(t.step, letkf, t.windows, sm.State(t.prior), t.psi)
    >>> t.error(found.analysis) < 0.5, found.spread.shape  # the spread is that of members
    (True, torch.Size([2, 2, 16, 16]))
    """

    space: Space
    radius: float
    inflation: float = 1.0
    rtps: float = 0.0
    adaptive: float = 0.0
    every: int = 1
    rotate: bool = False
    seed: int = 0

    def __post_init__(self):
        if not 0 < self.radius < math.inf:
            raise ValueError(f"the localisation radius must be positive and finite, got {self.radius}")
        grid = self.space.grid
        if self.radius < 0.5 * grid.dx and grid.ny > 1:
            raise ValueError(f"the localisation radius {self.radius:g} is less than half a grid length of {grid.dx:g}: "
                             "is it in the grid's unit?")  # fmt: skip
        if not 0 < self.inflation < math.inf:
            raise ValueError(f"inflation must be a positive number, got {self.inflation}")
        if not 0 <= self.rtps <= 1:
            raise ValueError(f"rtps, the relaxation to the prior spread, must be between 0 and 1, got {self.rtps}")
        if not 0 <= self.adaptive <= 1:
            raise ValueError(
                f"adaptive, the rate at which inflation follows, must be between 0 and 1, got {self.adaptive}"
            )
        if self.every < 1 or any(n % self.every for n in self.space.grid.shape if n > 1):
            raise ValueError(f"every={self.every} must divide the numbers of points {self.space.grid.shape}")

    def __call__(self, background: State, window: Window, step: Step, memory: Memory | None = None) -> Analysed:
        generator = generator_of(memory and memory.generator, self.seed)
        inflation = memory.inflation if memory else 1.0
        _, end, equivalents = forecast(step, background, window)
        with torch.no_grad():
            z, seen = end.z, equivalents.mean(0)
            if len(window):
                Y, d = anomalies_and_innovation(window, equivalents)
                inflation = self.followed(inflation, Y, d)
                W = self.weights(window, math.sqrt(inflation) * Y, d)
                if self.rotate:
                    w = W.mean(-1, keepdim=True)
                    W = w + (W - w) @ rotation(len(Y), generator).to(W)
                z = self.applied(inflated(z, math.sqrt(inflation)), W)
                nearest = W.mean(-1)[self.nearest(window)]
                seen = seen + window.sigma * math.sqrt(inflation) * (nearest * Y.mT).sum(-1)
                z = inflated(z, self.inflation)
        info = spread_info(window, equivalents) | {"inflation": inflation}
        return Analysed(restarted(end, z), end, equivalents, Memory(generator.get_state(), inflation), info, seen)

    def followed(self, inflation: float, Y: Tensor, d: Tensor) -> float:
        """Inflation that makes spread and innovations agree, approached slowly."""
        if not self.adaptive:
            return inflation
        spread = float((Y**2).sum() / (len(Y) - 1))
        wanted = (float((d**2).sum()) - len(d)) / max(spread, 1e-12)
        return min(2.0, max(1.0, inflation + self.adaptive * (min(3.0, max(0.5, wanted)) - inflation)))

    def weights(self, window: Window, Y: Tensor, d: Tensor) -> Tensor:
        """``w + T`` of each analysed column, ``(columns, N, N)``."""
        near = self.taper(window)
        return symmetric(products(near, Y), near @ (Y * d).mT)

    def companions(
        self, window: Window, result: Analysed, states: Tensor, equivalents: Tensor, memory: None = None
    ) -> tuple[Tensor, None]:
        """Analyses ``(batch, n, *modes)`` of other trajectories ``(steps + 1, batch, n, *modes)`` with the gain that
        the ensemble of ``result`` gives its own mean."""
        if not len(window):
            return states[-1], None
        grow = math.sqrt((result.info or {}).get("inflation", 1.0))
        Y = grow * anomalies_and_innovation(window, result.background_equivalents)[0]
        near, grid, N = self.taper(window), self.space.grid, len(Y)
        with torch.no_grad():
            seen = torch.stack([near @ (Y * d).mT for d in innovations(window, equivalents)], -1)
            w = torch.linalg.solve(products(near, Y) + (N - 1) * torch.eye(N).to(Y), seen)
            coarse = [max(1, n // self.every) for n in grid.shape]
            fields = self.space.read(result.background.z)
            w = refined(w.reshape(*coarse, N, -1), grid)
            increment = torch.einsum("yxib,ilyx->blyx", w, grow * (fields - fields.mean(0)))
            return states[-1] + self.space.write(increment), None

    def taper(self, window: Window) -> Tensor:
        """Gaspari-Cohn factor of each observation for each analysed column, ``(columns, p)``."""
        grid = self.space.grid
        x = grid.x0 + grid.dx * np.arange(0, grid.nx, self.every)
        y = grid.y0 + grid.dy * np.arange(0, grid.ny, self.every)
        dx = periodic(window.obs["x"].values - x[:, None], grid.Lx)
        dy = periodic(window.obs["y"].values - y[:, None], grid.Ly)
        r = np.sqrt(dx[None, :, :] ** 2 + dy[:, None, :] ** 2).reshape(len(x) * len(y), -1)
        return grid.real(gaspari_cohn(r / (self.radius * math.sqrt(10 / 3))))

    def nearest(self, window: Window) -> Tensor:
        """The analysed column nearest to each observation."""
        grid, every = self.space.grid, self.every
        i = np.rint((window.obs["x"].values - grid.x0) / (grid.dx * every)).astype(int) % max(1, grid.nx // every)
        j = np.rint((window.obs["y"].values - grid.y0) / (grid.dy * every)).astype(int) % max(1, grid.ny // every)
        return torch.as_tensor(j * max(1, grid.nx // every) + i, device=grid.device)

    def applied(self, z: Tensor, W: Tensor) -> Tensor:
        """The analysed ensemble."""
        grid, N = self.space.grid, len(z)
        fields = self.space.read(z)
        coarse = [max(1, n // self.every) for n in grid.shape]
        W = refined(W.mT.reshape(*coarse, N, N), grid)
        mean = fields.mean(0)
        A = fields - mean
        new = mean + torch.einsum("yxji,ilyx->jlyx", W, A)
        if self.rtps:
            before, after = A.std(0), new.std(0).clamp(min=torch.finfo(new.dtype).tiny)
            centre = new.mean(0)
            new = centre + (new - centre) * (1 + self.rtps * (before - after) / after)
        return self.space.write(new)


def products(near: Tensor, Y: Tensor) -> Tensor:
    """``Y Y^T`` of each column ``(columns, N, N)``, its observations weighted by ``near (columns, p)``."""
    N = len(Y)
    pairs = torch.triu_indices(N, N, device=Y.device)
    C = Y.new_zeros(len(near), N, N)
    C[:, pairs[0], pairs[1]] = near @ (Y[pairs[0]] * Y[pairs[1]]).mT
    C[:, pairs[1], pairs[0]] = C[:, pairs[0], pairs[1]]
    return C


def periodic(d: np.ndarray, length: float) -> np.ndarray:
    """Shortest distance around a periodic box."""
    return d - length * np.round(d / length)


def gaspari_cohn(r: np.ndarray) -> np.ndarray:
    """The compactly supported correlation function of Gaspari & Cohn (1999), eq. 4.10; zero from r = 2 on."""
    r = np.abs(r)
    out = np.zeros_like(r)
    near, far = r <= 1, (r > 1) & (r < 2)
    a = r[near]
    out[near] = 1 - a**2 * (5 / 3 - a * (5 / 8 + a * (1 / 2 - a / 4)))
    b = r[far]
    out[far] = 4 - 5 * b + b**2 * (5 / 3 + b * (5 / 8 + b * (-1 / 2 + b / 12))) - 2 / (3 * b)
    return np.maximum(out, 0.0)


def refined(W: Tensor, grid: Grid) -> Tensor:
    """Periodic linear interpolation of ``(cy, cx, ...)`` to the grid."""
    rest = W.shape[2:]
    if W.shape[0] != grid.ny:
        W = (hat(W.shape[0], grid.ny).to(W).mT @ W.flatten(1)).reshape(grid.ny, -1, *rest)
    if W.shape[1] != grid.nx:
        W = (hat(W.shape[1], grid.nx).to(W).mT @ W.reshape(*W.shape[:2], -1)).reshape(grid.ny, grid.nx, *rest)
    return W


def hat(coarse: int, fine: int) -> Tensor:
    """Matrix ``(coarse, fine)`` of periodic linear interpolation."""
    s = np.arange(fine) * coarse / fine
    first = np.floor(s).astype(int)
    out = np.zeros((coarse, fine))
    out[first % coarse, np.arange(fine)] += 1 - (s - first)
    out[(first + 1) % coarse, np.arange(fine)] += s - first
    return torch.from_numpy(out)
