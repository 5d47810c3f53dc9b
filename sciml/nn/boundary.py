"""What lies beyond the edges of a grid, by the boundary condition of each axis, and convolutions that know it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml.nn.layers import wrapped

Boundary = tuple[str, ...]
"""Condition of each axis, the last one (x) last: a name in :data:`CONDITIONS`."""


def around(x: Tensor) -> Tensor:
    """The last axis goes round: the point beyond an end is that at the other one."""
    return torch.cat([x[..., -1:], x, x[..., :1]], -1)


def mirrored(x: Tensor) -> Tensor:
    """Even about the first and the last point of the last axis, whose normal derivatives are zero."""
    near = min(1, x.shape[-1] - 1)
    return torch.cat([x[..., near : near + 1], x, x[..., -1 - near : x.shape[-1] - near]], -1)


def nothing(x: Tensor) -> Tensor:
    """Zeros beyond both ends of the last axis."""
    return F.pad(x, (1, 1))


CONDITIONS: dict[str, Callable[[Tensor], Tensor]] = {"periodic": around, "dirichlet": nothing, "neumann": mirrored}
"""On axes with walls the first and the last point of the grid lie on these."""


def checked(boundary: Sequence[str]) -> Boundary:
    """Conditions of one or two axes."""
    if len(boundary) not in (1, 2) or any(b not in CONDITIONS for b in boundary):
        raise ValueError(f"boundary must name one or two of {', '.join(CONDITIONS)}, got {tuple(boundary)}")
    return tuple(boundary)


def padding(boundary: Boundary, inner: int, outer: int) -> tuple[int, ...]:
    """Of a convolution that is given :func:`extended` fields: ``outer`` on axes whose zeros it must add itself."""
    return tuple(outer if b == "dirichlet" else inner for b in boundary)


def extended(x: Tensor, boundary: Boundary) -> Tensor:
    """One more point at both ends of all axes but Dirichlet's, where convolutions add zeros themselves."""
    if boundary == ("periodic", "periodic"):
        return wrapped(x, 1)
    for axis, b in zip((-1, -2), reversed(boundary), strict=False):
        if b != "dirichlet":
            x = CONDITIONS[b](x.transpose(axis, -1)).transpose(axis, -1)
    return x


def inside(x: Tensor, boundary: Boundary) -> Tensor:
    """``x`` with zeros on the first and the last point of Dirichlet axes, where there are more than two."""
    for axis, b in zip((-1, -2), reversed(boundary), strict=False):
        n = x.shape[axis]
        if b == "dirichlet" and n > 2:
            x = F.pad(x.narrow(axis, 1, n - 2), (1, 1) if axis == -1 else (0, 0, 1, 1))
    return x


def resized(x: Tensor, shape: Sequence[int], boundary: Boundary) -> Tensor:
    """Fields ``(b, channels, y, x)`` on a grid of another ``shape`` of the same box: the waves that both grids have
    along periodic axes, cubic interpolation between walls (points that both have keep their values)."""
    for axis, n, condition in zip((-2, -1), shape, boundary, strict=True):
        if x.shape[axis] == n:
            continue
        if condition == "periodic":
            x = waves(x.transpose(axis, -1), n).transpose(axis, -1)
        else:
            size = (n, x.shape[-1]) if axis == -2 else (x.shape[-2], n)
            x = F.interpolate(x, size, mode="bicubic", align_corners=True)
    return x


def waves(x: Tensor, n: int) -> Tensor:
    """The last axis, periodic, with n points: waves that both grids have, without the one of two points a wave."""
    kept = (min(x.shape[-1], n) - 1) // 2 + 1
    z = torch.fft.rfft(x.double(), norm="forward")[..., :kept]
    return torch.fft.irfft(z, n, norm="forward").to(x.dtype)


def halved(shape: Sequence[int], boundary: Boundary) -> list[int]:
    """``shape``, or one point more along axes where every other point would not make a grid of the same box: walls
    need odd numbers, rings even ones."""
    return [n + (n % 2 == (b == "periodic")) for n, b in zip(shape, boundary, strict=True)]


def stretched(x: Tensor, shape: Sequence[int], boundary: Boundary) -> Tensor:
    """Fields ``(b, channels, [y,] x)`` on a grid of the same box with at most one point more or less along each axis,
    by linear interpolation."""
    for axis, n, b in zip((-1, -2), reversed(shape), reversed(boundary), strict=False):
        if x.shape[axis] == n:
            continue
        x, walls = x.transpose(axis, -1), b != "periodic"
        place = torch.arange(n, dtype=x.dtype, device=x.device) / (n - walls)
        if n > x.shape[-1]:
            end = x[..., -1:] if walls else x[..., :1]
            left, right, place = torch.cat([x[..., :1], x], -1), torch.cat([x, end], -1), 1 - place
        else:
            left, right = x[..., :-1], x[..., 1:]
        x = torch.lerp(left, right, place).transpose(axis, -1)
    return x


CONV = {1: nn.Conv1d, 2: nn.Conv2d}


class Stencil(nn.Module):
    """Convolution of width 3, ``(b, inputs, ...) -> (b, outputs, ...)``; of stride 2 to every other point."""

    def __init__(self, inputs: int, outputs: int, boundary: Boundary, stride: int = 1, bias: bool = False):
        super().__init__()
        self.boundary = boundary
        pad = padding(boundary, 0, 1)
        self.conv = CONV[len(boundary)](inputs, outputs, 3, stride, pad, bias=bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(extended(x, self.boundary))
