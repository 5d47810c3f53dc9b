"""How data become tokens and queries: trajectories of points, of lines (1-D fields), and of maps.

Every view divides what is seen by its root mean square, whose logarithm it tells beside, and has

- ``see(t, u, tokens, context) -> data tokens, whether each may be seen, scale``,
- ``ask(times, u, context) -> queries``, and ``answers(u) -> answers``, which ``values`` turns back into u.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

ABSENT = -3.0
"""Logarithm of the scale that stands for channels a system does not have."""
SMALLEST = 1e-3


class Samples(NamedTuple):
    """A batch: data tokens, whether each may be seen, queries, answers, and the scale of the network's values."""

    data: Tensor
    seen: Tensor
    queries: Tensor
    answers: Tensor
    scale: Tensor


class View(Protocol):
    """What the corpus and the model ask of a view."""

    @property
    def points(self) -> int: ...
    @property
    def span(self) -> float: ...
    @property
    def dt(self) -> float:
        """Between the times of trainings, which are evenly spaced from 0 to ``span``."""
        ...

    @property
    def steps(self) -> int:
        """How many parts of the window can be hidden one by one."""
        ...

    @property
    def features(self) -> int: ...
    @property
    def queries(self) -> int: ...
    @property
    def outputs(self) -> int: ...
    def see(
        self, t: Tensor, u: Tensor, tokens: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]: ...
    def ask(self, times: Tensor, u: Tensor, context: Tensor | None = None) -> Tensor: ...
    def answers(self, u: Tensor) -> Tensor: ...
    def values(self, answers: Tensor) -> Tensor: ...


def expect(u: Tensor, t: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse windows of another shape."""
    if tuple(u.shape[1:]) != shape or t.shape != shape[:1]:
        raise ValueError(f"windows have shape (n, {', '.join(map(str, shape))}) at {shape[0]} times, got "
                         f"{tuple(u.shape)} at {len(t)} times")  # fmt: skip


def last_seen(n: int, batch: int, tokens: Tensor | None, device: torch.device) -> Tensor:
    """Whether each of n tokens in the order of time may be seen, ``(batch, n)``: the last ``tokens`` of them."""
    order = torch.arange(n, device=device).expand(batch, n)
    return order >= (0 if tokens is None else (n - tokens)[:, None])


def waves_of(times: Tensor, span: float, waves: int) -> Tensor:
    """Times as numbers ``(..., 1 + 2 waves)``: themselves, and periods from twice the span to a fortieth of that."""
    periods = torch.logspace(0, -1.6, waves, device=times.device) * 2 * span
    phase = 2 * torch.pi * times[..., None] / periods
    return torch.cat([times[..., None] / span, phase.sin(), phase.cos()], -1)


@dataclass(frozen=True)
class Windows:
    """Trajectories ``(T, channels)``: ``points`` to see, in tokens of ``group``; a query is a time."""

    channels: int
    points: int = 64
    group: int = 4
    waves: int = 16
    span: float = 6.0

    @property
    def dt(self) -> float:
        return self.span / (3 * self.points - 1)

    @property
    def steps(self) -> int:
        return self.points // self.group

    @property
    def features(self) -> int:
        """The values and times of a token's points, and the logarithms of the scales."""
        return self.group * (self.channels + 1) + self.channels

    @property
    def queries(self) -> int:
        return 1 + 2 * self.waves

    @property
    def outputs(self) -> int:
        return self.channels

    def see(self, t, u, tokens=None, context=None):
        """Channels that a system does not have are zero; scales are ``(n, 1, channels)``."""
        expect(u, t, (self.points, self.channels))
        seen = last_seen(self.points // self.group, len(u), tokens, u.device)
        shown = seen.repeat_interleave(self.group, 1)[..., None]
        there = (u != 0).any(1, keepdim=True)
        scale = ((u * shown).square().sum(1, keepdim=True) / shown.sum(1, keepdim=True)).sqrt().clamp(min=SMALLEST)
        size = torch.where(there, scale.log10(), ABSENT)
        points = torch.cat([u / scale, (t / self.span).expand(len(u), -1)[..., None]], -1) * shown
        grouped = points.unflatten(1, (-1, self.group)).flatten(2)
        return torch.cat([grouped, size.expand(-1, grouped.shape[1], -1)], -1), seen, torch.where(there, scale, 1.0)

    def ask(self, times, u, context=None):
        return waves_of(times, self.span, self.waves).expand(len(u), -1, -1)

    def answers(self, u):
        return u

    def values(self, answers):
        return answers


@dataclass(frozen=True)
class Lines:
    """Fields ``(T, cells)``: every ``step``-th of ``points`` times is a token; a query is a time and the last line."""

    cells: int = 128
    points: int = 32
    step: int = 2
    waves: int = 16
    span: float = 2.0

    @property
    def dt(self) -> float:
        return self.span / (2 * self.points - 1)

    @property
    def steps(self) -> int:
        return self.points // self.step

    @property
    def features(self) -> int:
        return self.cells + 2

    @property
    def queries(self) -> int:
        return 1 + 2 * self.waves + self.cells

    @property
    def outputs(self) -> int:
        return self.cells

    def see(self, t, u, tokens=None, context=None):
        """Scales are ``(n, 1, 1)``."""
        expect(u, t, (self.points, self.cells))
        t, u = t[self.step - 1 :: self.step], u[:, self.step - 1 :: self.step]
        seen = last_seen(len(t), len(u), tokens, u.device)
        shown = seen[..., None]
        scale = ((u * shown).square().mean(-1, keepdim=True).sum(1, keepdim=True) / shown.sum(1, keepdim=True)).sqrt()
        scale = scale.clamp(min=SMALLEST)
        size = scale.log10().expand(-1, len(t), -1)
        return torch.cat([u / scale * shown, (t / self.span).expand(len(u), -1)[..., None], size], -1), seen, scale

    def ask(self, times, u, context=None):
        last = u[:, self.points - 1 : self.points]
        last = last / last.square().mean(-1, keepdim=True).sqrt().clamp(min=SMALLEST)
        waves = waves_of(times, self.span, self.waves).expand(len(u), -1, -1)
        return torch.cat([waves, last.expand(-1, len(times), -1)], -1)

    def answers(self, u):
        return u

    def values(self, answers):
        return answers


@dataclass(frozen=True)
class Maps:
    """Maps ``(T, channels, n, n)`` on a periodic box beside a fixed one ``(n, n)``: a token is a patch at all times, a
    query a time and a patch with what surrounds it in the last map and in the fixed one."""

    n: int = 32
    channels: int = 2
    patch: int = 4
    points: int = 8
    waves: int = 8
    span: float = 17.0

    @property
    def dt(self) -> float:
        return 1.0

    @property
    def steps(self) -> int:
        return self.points

    @property
    def features(self) -> int:
        return (self.points * self.channels + 1) * self.patch**2 + 1 + 4

    @property
    def queries(self) -> int:
        return 1 + 2 * self.waves + (self.channels + 1) * (2 * self.patch) ** 2 + 4

    @property
    def outputs(self) -> int:
        return self.channels * self.patch**2

    def see(self, t, u, tokens=None, context=None):
        """Scales are ``(n, 1, 1)``; ``tokens`` is the number of the last maps that may be seen."""
        expect(u, t, (self.points, self.channels, self.n, self.n))
        shown = last_seen(self.points, len(u), tokens, u.device)[..., None, None, None]
        scale = ((u * shown).square().mean((2, 3, 4)).sum(1) / shown.flatten(1).sum(1)).sqrt().clamp(min=SMALLEST)
        scaled = u * shown / scale[:, None, None, None, None]
        patches = self.patches(torch.cat([scaled.flatten(1, 2), self.fixed(u, context)], 1))
        size = scale.log10()[:, None, None].expand(-1, patches.shape[1], -1)
        where = self.places(u).expand(len(u), -1, -1)
        seen = torch.ones(patches.shape[:2], dtype=torch.bool, device=u.device)
        return torch.cat([patches, size, where], -1), seen, scale[:, None, None]

    def fixed(self, u: Tensor, context: Tensor | None) -> Tensor:
        return u.new_zeros(len(u), 1, self.n, self.n) if context is None else context[:, None]

    def patches(self, maps: Tensor) -> Tensor:
        """``(b, c, n, n) -> (b, patches, c * patch^2)``."""
        tiles = maps.unfold(2, self.patch, self.patch).unfold(3, self.patch, self.patch)
        return tiles.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)

    def places(self, like: Tensor) -> Tensor:
        side = torch.arange(0, self.n, self.patch, device=like.device, dtype=like.dtype) * (2 * torch.pi / self.n)
        y, x = torch.meshgrid(side, side, indexing="ij")
        return torch.stack([x.sin(), x.cos(), y.sin(), y.cos()], -1).flatten(0, 1)[None]

    def ask(self, times, u, context=None):
        """``(b, times * patches, queries)``, patches within times."""
        last = u[:, self.points - 1]
        last = last / last.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=SMALLEST)
        maps = torch.nn.functional.pad(torch.cat([last, self.fixed(u, context)], 1), [self.patch // 2] * 4, "circular")
        wide = maps.unfold(2, 2 * self.patch, self.patch).unfold(3, 2 * self.patch, self.patch)
        around = wide.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        own = torch.cat([around, self.places(u).expand(len(u), -1, -1)], -1)
        waves = waves_of(times, self.span, self.waves)
        both = [waves[None, :, None].expand(len(u), -1, own.shape[1], -1), own[:, None].expand(-1, len(times), -1, -1)]
        return torch.cat(both, -1).flatten(1, 2)

    def answers(self, u):
        """``(b, T, c, n, n) -> (b, T * patches, c * patch^2)``."""
        return self.patches(u.flatten(0, 1)).unflatten(0, u.shape[:2]).flatten(1, 2)

    def values(self, answers):
        m = self.n // self.patch
        tiles = answers.unflatten(1, (-1, m, m)).unflatten(4, (self.channels, self.patch, self.patch))
        return tiles.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)
