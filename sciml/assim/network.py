"""A network as an analysis: FuXi-DA cycled like every other method.

The background trajectory is compared with all observations of the window at their own times; innovations are gathered
in cells of the grid, by frame and channel, with mask, count, age and error, and the network makes an increment of the
fields at the end of the window from them (Xu et al. 2025, npj Clim. Atmos. Sci. 8, 156; inputs and cycling are ours).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sciml.assim.base import Analysed, Space, forecast, innovations, restarted
from sciml.observations import names
from sciml.observe import Window
from sciml.step import State, Step

PLANES = ("value", "mask", "count", "age", "sigma")
"""What is known of each cell of a frame and channel."""
LARGE = 30.0
"""Innovations count as no larger than this, in units of their errors."""


class Memory(NamedTuple):
    """What the analysis carries from cycle to cycle."""

    hidden: Tensor
    """of the network"""
    sigma: Tensor
    """standard deviation of the error of the last analysis, ``(lev, y, x)``, in the unit of the fields"""


class Cells(NamedTuple):
    """Where the observations of a window fall, and all planes but that of the values; cells are numbered in the order
    ``(frame, channel, y, x)``."""

    index: Tensor
    """cell of each observation"""
    share: Tensor
    """weight of each observation in the mean of its cell"""
    fixed: Tensor
    """``(4, frame * channel * y * x)``: mask, count, age, sigma"""


@dataclass(frozen=True)
class Inputs:
    """How a network is shown backgrounds and observations.

    Parameters
    ----------
    space : states as fields ``(..., lev, y, x)``, to which increments are added, and back
    std : climatological standard deviation of these fields, by level
    see : state to planes ``(..., c, y, x)`` of order 1, shown at the start and at the end of the window
    channels, sigma : names of the channels in the order of the planes, and the errors that count as usual
    frames : parts of the window
    """

    space: Space
    std: Tensor
    see: Callable[[Tensor], Tensor]
    channels: tuple[str, ...]
    sigma: tuple[float, ...]
    frames: int = 5

    @property
    def planes(self) -> int:
        """Number of planes of observations."""
        return len(PLANES) * self.frames * len(self.channels)

    def cells(self, window: Window, keep: np.ndarray | None = None, noisier: float = 1.0) -> Cells:
        """Cells of the observations of a window, which depend on no state; only those that ``keep`` selects count, with
        errors ``noisier`` times as large as stated."""
        grid, obs = self.space.grid, window.obs
        known = names(obs, "channel")
        if strange := {known[int(c)] for c in np.unique(obs["channel"])} - set(self.channels):
            raise ValueError(
                f"the network knows the channels {', '.join(self.channels)}, not {', '.join(sorted(strange))}"
            )
        number = np.array([self.channels.index(n) if n in self.channels else -1 for n in known], int)
        channel = number[obs["channel"].values.astype(int)]
        length = window.steps * window.dt
        part = (obs["time"].values - window.start) / length
        frame = np.clip(np.ceil(part * self.frames).astype(int) - 1, 0, self.frames - 1)
        row = np.rint((obs["y"].values - grid.y0) / grid.dy).astype(int) % grid.ny
        column = np.rint((obs["x"].values - grid.x0) / grid.dx).astype(int) % grid.nx
        size = self.frames * len(self.channels) * grid.ny * grid.nx
        index = ((frame * len(self.channels) + channel) * grid.ny + row) * grid.nx + column
        used = np.ones(len(index)) if keep is None else keep.astype(float)
        usual = np.array(self.sigma)[channel]
        weight = used * (usual / (noisier * obs["sigma"].values)) ** 2
        total, count = (np.bincount(index, w, minlength=size) for w in (weight, used))
        share = weight / np.maximum(total, 1e-12)[index]
        mask = count > 0
        age = np.bincount(index, share * (1 - part), minlength=size)
        sigma = np.where(mask, -0.5 * np.log(np.where(mask, total, 1.0)), 0.0)
        fixed = np.stack([mask, np.log1p(count), age, sigma]).astype(np.float32)
        device = grid.device
        return Cells(
            torch.as_tensor(index, device=device), grid.real(share).float(), torch.as_tensor(fixed, device=device)
        )

    def observations(self, cells: Cells, departures: Tensor) -> Tensor:
        """Planes ``(planes, y, x)`` of departures ``(observations)`` in units of their errors."""
        grid = self.space.grid
        value = cells.share * (departures.float() / 3).clamp(-LARGE / 3, LARGE / 3)
        values = value.new_zeros(cells.fixed.shape[1]).index_add(0, cells.index, value)
        return torch.cat([values[None], cells.fixed]).reshape(-1, *grid.shape)

    def background(self, states: Tensor) -> Tensor:
        """Planes ``(..., c, y, x)`` of a trajectory: its end and its start."""
        return torch.cat([self.see(states[-1]), self.see(states[0])], -3).float()


@dataclass(frozen=True)
class NetworkAnalysis:
    """Background plus the network's increment; see :class:`Inputs`.

    With ``observed=False`` the network is shown no observations (the paper's CORR).
    """

    net: nn.Module
    inputs: Inputs
    observed: bool = True

    def __call__(self, background: State, window: Window, step: Step, memory: Memory | None = None) -> Analysed:
        states, end, equivalents = forecast(step, background, window)
        with torch.no_grad():
            cells = self.inputs.cells(window)
            z, new = self.increment(states[:, None], [cells], [innovations(window, equivalents)], memory)
        kept = Memory(new.hidden, new.sigma[0])
        return Analysed(restarted(end, z[0]), end, equivalents, kept)

    def increment(
        self, states: Tensor, cells: Sequence[Cells], departures: Sequence[Tensor], memory: Memory | None
    ) -> tuple[Tensor, Memory]:
        """Analyses ``(batch, n, *modes)`` of trajectories ``(steps + 1, batch, n, *modes)``, each with the cells and
        the departures, in units of their errors, of its own window."""
        inputs, space = self.inputs, self.inputs.space
        pairs = zip(cells, departures, strict=True)
        seen = torch.stack([inputs.observations(c, d) for c, d in pairs]) if self.observed else None
        out = self.net(inputs.background(states), seen, None if memory is None else memory.hidden)
        scale = inputs.std.to(out.mean.dtype)[:, None, None]
        z = states[-1] + space.write((scale * out.mean).to(inputs.std.dtype))
        return z, Memory(out.memory, scale * out.log_sigma.clamp(-8, 3).exp())
