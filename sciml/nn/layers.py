"""Layers that several networks share: periodic convolutions on grids of any size, changes of resolution."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def in_bfloat16(device: str | torch.device, wanted: bool = True) -> torch.autocast:
    """Within the block convolutions and matrix products are in bfloat16, if it is ``wanted`` and the device has it."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=wanted and has_bfloat16(kind))


@cache
def has_bfloat16(kind: str) -> bool:
    """Whether devices of a kind compute with bfloat16: processors without AVX-512 or AMX (or their like on ARM) take
    twenty times as long with it as in single precision."""
    return kind != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PeriodicConv(nn.Conv2d):
    """Convolution ``(..., c, y, x)`` of odd width that wraps around in both directions."""

    def __init__(self, inputs: int, outputs: int, width: int = 3, **options):
        super().__init__(inputs, outputs, width, **options)
        self.around = width // 2

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(wrapped(input, self.around))


def wrapped(x: Tensor, n: int) -> Tensor:
    """``n`` more points on every side, from the other end."""
    return x if n == 0 else Wrapped.apply(x, n)  # type: ignore[no-any-return]


class Wrapped(torch.autograd.Function):
    """:func:`wrapped` with its adjoint in place: slices would each be given a gradient of the whole's size."""

    @staticmethod
    def forward(ctx, x: Tensor, n: int) -> Tensor:
        ctx.n = n
        x = torch.cat([x[..., -n:], x, x[..., :n]], -1)
        return torch.cat([x[..., -n:, :], x, x[..., :n, :]], -2)

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        n, (g,) = ctx.n, grad_outputs
        inner = g[..., n:-n, :].clone()
        inner[..., -n:, :] += g[..., :n, :]
        inner[..., :n, :] += g[..., -n:, :]
        out = inner[..., n:-n].clone()
        out[..., -n:] += inner[..., :n]
        out[..., :n] += inner[..., -n:]
        return out, None


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each point (Ba et al. 2016)."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(-3, -1)).movedim(-1, -3)


class Down(nn.Module):
    """Half the resolution (rounded up): 2 x 2 convolution of stride 2, normalisation, SiLU, 3 x 3 convolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.coarsen = nn.Conv2d(inputs, outputs, 2, stride=2)
        self.norm, self.mix = ChannelNorm(outputs), PeriodicConv(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(F.silu(self.norm(self.coarsen(evened(x)))))


class Up(nn.Module):
    """Twice the resolution, cut to ``shape (y, x)``: two 3 x 3 convolutions with normalisation and SiLU between, then
    blocks of 2 x 2 points from four channels (Shi et al. 2016)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first, self.norm = PeriodicConv(inputs, inputs), ChannelNorm(inputs)
        self.second = PeriodicConv(inputs, 4 * outputs)

    def forward(self, x: Tensor, shape: tuple[int, int]) -> Tensor:
        x = F.pixel_shuffle(self.second(F.silu(self.norm(self.first(x)))), 2)
        return x[..., : shape[0], : shape[1]]


def evened(x: Tensor) -> Tensor:
    """With the first row or column again behind the last where their number is odd."""
    if x.shape[-2] % 2:
        x = torch.cat([x, x[..., :1, :]], -2)
    return torch.cat([x, x[..., :1]], -1) if x.shape[-1] % 2 else x
