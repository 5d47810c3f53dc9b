"""FuXi-DA's network: an increment to a background from gridded observations (Xu et al. 2025, npj Clim. Atmos. Sci. 8,
156, doi 10.1038/s41612-025-01039-3), rebuilt from its description.

Three branches hold features of the background, of the observations, and of both as a condition, at several resolutions.
At each one a fusion module, a U-Net of two levels on all three, makes an increment of the background's features, a
correction of the observations' and the condition of the next resolution. A decoder takes the background's features up.

Beyond the paper: a state that is carried from cycle to cycle, periodic convolutions on grids of any size, a second
output that is the logarithm of the analysis error's standard deviation, and observations that come with mask, count,
age and error. Without observations (``observations=0``) it is the paper's CORR network.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml.nn.layers import ChannelNorm, Down, PeriodicConv, Up


class Increment(NamedTuple):
    """What the network makes of a background."""

    mean: Tensor
    """increment ``(batch, outputs, y, x)``"""
    log_sigma: Tensor
    """logarithm of the standard deviation of the analysis error, of the same shape"""
    memory: Tensor
    """``(batch, memory, y / 2, x / 2)``, for the next cycle"""


@dataclass(frozen=True)
class Config:
    """Numbers of channels; all that is needed to make a network again.

    Parameters
    ----------
    background : channels of the background
    observations : planes of gridded observations; 0 for the network that sees none
    outputs : fields of the increment
    widths : features of each branch at each resolution, from half that of the grid
    memory : channels of the state carried from cycle to cycle
    first : whether the last ``outputs`` channels of the background are an increment to start from
    """

    background: int
    observations: int
    outputs: int
    widths: tuple[int, ...] = (48, 64, 96)
    memory: int = 16
    first: bool = False

    def __post_init__(self):
        if min(self.background, self.outputs, *self.widths) < 1 or min(self.observations, self.memory) < 0:
            raise ValueError(f"numbers of channels must be positive, got {self}")


class Fusion(nn.Module):
    """A U-Net of two levels on the features of the three branches; its outputs start at zero."""

    def __init__(self, inputs: int, width: int, parts: int):
        super().__init__()
        self.enter, self.norm = PeriodicConv(inputs, width, 1), ChannelNorm(width)
        self.down, self.up = Down(width, width), Up(width, width)
        self.leave = PeriodicConv(2 * width, parts * width, 1)
        nn.init.zeros_(self.leave.weight)
        self.parts = parts

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        fine = F.silu(self.norm(self.enter(torch.cat(features, 1))))
        coarse = self.up(F.silu(self.down(fine)), fine.shape[-2:])
        return self.leave(torch.cat([fine, coarse], 1)).chunk(self.parts, 1)


class FuXiDANet(nn.Module):
    """The network; see the head of this file.

    ``forward(background (b, background, y, x), observations (b, observations, y, x), memory)`` with ``memory`` as the
    last call gave it, or None. All inputs should be of order 1.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config, widths = config, config.widths
        self.sees = config.observations > 0
        self.background = branch(config.background, widths)
        if self.sees:
            self.observations = branch(config.observations, widths)
        self.remember = PeriodicConv(config.memory, widths[0], 1) if config.memory else None
        self.condition = Down(config.background + config.observations, widths[0])
        self.next = nn.ModuleList(Down(a, b) for a, b in pairwise(widths))
        branches = 3 if self.sees else 2
        self.fusions = nn.ModuleList(Fusion(branches * w, w, branches) for w in widths)
        self.up = nn.ModuleList(Up(b, a) for a, b in pairwise(widths))
        self.join = nn.ModuleList(PeriodicConv(2 * a, a) for a in widths[:-1])
        self.leave = Up(widths[0], widths[0] // 2)
        self.out = PeriodicConv(widths[0] // 2, 2 * config.outputs)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]
        self.part = nn.Parameter(torch.zeros(config.outputs, 1, 1)) if config.first else None
        self.keep = PeriodicConv(widths[0], config.memory, 1) if config.memory else None
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, background: Tensor, observations: Tensor | None = None, memory: Tensor | None = None
    ) -> Increment:
        shape, size = background.shape[-2:], tuple(-(-n // 2) for n in background.shape[-2:])
        if background.shape[-3] != self.config.background:
            raise ValueError(
                f"the network takes {self.config.background} background channels, got {background.shape[-3]}"
            )
        seen = observations.shape[-3] if observations is not None else 0
        if seen != self.config.observations:
            raise ValueError(f"the network takes {self.config.observations} planes of observations, got {seen}")
        if memory is None:
            memory = background.new_zeros(len(background), self.config.memory, *size)
        b = background
        o = observations
        c = self.condition(background if o is None else torch.cat([background, o], 1))
        if self.remember is not None:
            c = c + self.remember(memory)
        kept = []
        for i, fuse in enumerate(self.fusions):
            b = self.background[i](b)
            if self.sees:
                o = self.observations[i](o)
                db, do, dc = fuse(b, o, c)
                o = o + do
            else:
                db, dc = fuse(b, c)
            b, c = b + db, c + dc
            kept.append(b)
            c = self.next[i](c) if i < len(self.next) else c
        b = b + c
        for up, join, skip in zip(reversed(self.up), reversed(self.join), kept[-2::-1], strict=True):
            b = F.silu(join(torch.cat([up(b, skip.shape[-2:]), skip], 1)))
        mean, log_sigma = self.out(F.silu(self.leave(b, (shape[0], shape[1])))).float().chunk(2, 1)
        if self.part is not None:
            mean = mean + self.part * background[:, -self.config.outputs :]
        new = memory if self.keep is None else torch.tanh(self.keep(b)).float()
        return Increment(mean, log_sigma, new)


def branch(inputs: int, widths: tuple[int, ...]) -> nn.ModuleList:
    """Down blocks from one resolution to the next."""
    return nn.ModuleList(Down(a, b) for a, b in zip((inputs, *widths[:-1]), widths, strict=True))
