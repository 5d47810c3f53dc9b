"""U-Net (Ronneberger, Fischer & Brox 2015, MICCAI) on grids of any size, the baseline of operator learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml.nn.boundary import CONV, Boundary, Stencil, checked


@dataclass(frozen=True)
class Config:
    """All that is needed to make a network again: channels, features on each level, condition of each axis."""

    inputs: int = 1
    outputs: int = 1
    widths: tuple[int, ...] = (32, 64, 128, 256)
    boundary: Boundary = ("periodic", "periodic")

    def __post_init__(self):
        checked(self.boundary)
        if min(self.inputs, self.outputs, *self.widths) < 1 or any(w % 8 for w in self.widths):
            raise ValueError(f"channels must be positive and widths multiples of 8, got {self}")


class UNet(nn.Module):
    """``(b, inputs, [y,] x) -> (b, outputs, [y,] x)``; options as of :class:`Config`.

    Two 3-wide convolutions on each level, each with group normalisation (8 groups) and GELU; strides of 2 down, nearest
    points up, features of the way down beside those that come up.

    Examples
    --------
    >>> from sciml.nn.unet import UNet
    >>> UNet(2, 1, widths=(8, 16))(torch.zeros(3, 2, 32, 32)).shape
    torch.Size([3, 1, 32, 32])
    """

    def __init__(self, inputs: int = 1, outputs: int = 1, **options):
        super().__init__()
        self.config = c = Config(inputs, outputs, **options)

        def pair(a: int, b: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(block(a, b, c.boundary, stride), block(b, b, c.boundary))

        self.enter = pair(inputs, c.widths[0])
        self.down = nn.ModuleList(pair(a, b, 2) for a, b in pairwise(c.widths))
        self.up = nn.ModuleList(pair(a + b, a) for a, b in pairwise(c.widths))
        self.leave = CONV[len(c.boundary)](c.widths[0], outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        c, dims = self.config, len(self.config.boundary)
        if x.ndim != dims + 2 or x.shape[1] != c.inputs:
            raise ValueError(f"fields must be (batch, {c.inputs} channels, {dims} axes), got {tuple(x.shape)}")
        kept = [self.enter(x)]
        for down in self.down:
            kept.append(down(kept[-1]))
        x = kept.pop()
        for up, skip in zip(reversed(self.up), reversed(kept), strict=True):
            x = up(torch.cat([F.interpolate(x, skip.shape[2:]), skip], 1))
        return self.leave(x).to(torch.promote_types(x.dtype, torch.float32))

    def about(self) -> dict:
        """The configuration, for a file."""
        return asdict(self.config)


def block(inputs: int, outputs: int, boundary: Sequence[str], stride: int = 1) -> nn.Sequential:
    return nn.Sequential(Stencil(inputs, outputs, tuple(boundary), stride), nn.GroupNorm(8, outputs), nn.GELU())
