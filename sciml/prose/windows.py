"""Trajectories as the network sees them: a noisy window in tokens of a few points, and queries at later times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

ABSENT = -3.0
"""Logarithm of the scale that stands for fields a system does not have."""


class Samples(NamedTuple):
    """A batch: data tokens, whether each may be seen, queries, and answers with their weights."""

    data: Tensor
    seen: Tensor
    queries: Tensor
    answers: Tensor
    scale: Tensor
    """what the network's values are multiplied by"""


@dataclass(frozen=True)
class Windows:
    """How a trajectory ``(T, channels)`` is split: ``points`` to see, in tokens of ``group``, the rest to predict.

    Values are divided by the root mean square of each channel in what is seen, whose logarithm is told beside them.
    """

    channels: int
    points: int = 64
    group: int = 4
    waves: int = 16
    span: float = 6.0

    @property
    def features(self) -> int:
        """Numbers in a data token: the values and times of its points, and the logarithms of the scales."""
        return self.group * (self.channels + 1) + self.channels

    @property
    def queries(self) -> int:
        """Numbers in a query: the time, and sines and cosines of it."""
        return 1 + 2 * self.waves

    def see(self, t: Tensor, u: Tensor, tokens: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Data tokens, whether each may be seen, and scales ``(batch, 1, channels)``.

        Parameters
        ----------
        t, u : times ``(points,)`` and noisy values ``(batch, points, channels)``, zero where a channel is absent
        tokens : how many of the last tokens of each window may be seen ``(batch,)``, all by default
        """
        if u.shape[-2:] != (self.points, self.channels) or t.shape != (self.points,):
            raise ValueError(
                f"a window has {self.points} times and {self.channels} channels, got values of shape {tuple(u.shape)} "
                f"and {len(t)} times"
            )
        n = self.points // self.group
        seen = torch.ones(len(u), n, dtype=torch.bool, device=u.device)
        if tokens is not None:
            seen = torch.arange(n, device=u.device) >= (n - tokens)[:, None]
        shown = seen.repeat_interleave(self.group, 1)[..., None]
        there = (u != 0).any(1, keepdim=True)
        scale = ((u * shown).square().sum(1, keepdim=True) / shown.sum(1, keepdim=True)).sqrt()
        scale = torch.where(there, scale.clamp(min=1e-3), 1.0)
        size = torch.where(there, scale.log10(), ABSENT)
        points = torch.cat([u / scale, (t / self.span).expand(len(u), -1)[..., None]], -1) * shown
        grouped = points.unflatten(1, (n, self.group)).flatten(2)
        return torch.cat([grouped, size.expand(-1, n, -1)], -1), seen, scale

    def ask(self, t: Tensor) -> Tensor:
        """Queries ``(..., queries)`` at times ``(...)``: periods from twice the span down to an eighth of a unit."""
        periods = torch.logspace(0, -1.6, self.waves, device=t.device) * 2 * self.span
        phase = 2 * torch.pi * t[..., None] / periods
        return torch.cat([t[..., None] / self.span, phase.sin(), phase.cos()], -1)
