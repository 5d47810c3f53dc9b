"""States of a one-dimensional field and its rate of change from noisy frames on periodic points."""

from __future__ import annotations

import torch
from torch import Tensor

FRAMES = 4
"""Frames whose spectra are averaged."""


def noise_level(u: Tensor) -> Tensor:
    """Standard deviation ``(B, 1, 1)`` of white noise on frames ``u (B, n, points)``, from their shortest waves.

    The upper third of the modes of the :data:`FRAMES` frames that have least there: a field may have shocks later, or
    have been rough at first, but not at all times. Raises ``ValueError`` for fewer frames or 16 points.
    """
    if u.ndim != 3 or u.shape[1] < FRAMES or u.shape[2] < 16:
        raise ValueError(f"give windows (B, n, points), n >= {FRAMES} and points >= 16, got {tuple(u.shape)}")
    power = torch.fft.rfft(u, norm="forward").abs().square()[..., u.shape[2] // 3 : u.shape[2] // 2]
    least = power.mean(-1).unfold(1, FRAMES, 1).mean(-1).amin(1)
    return (least * u.shape[2]).sqrt()[:, None, None]


def wiener(u: Tensor, frames: int = 8) -> Tensor:
    """Frames ``(B, n, points)`` with each mode times P / (P + N), P and N the powers of the field and of its noise.

    Wiener (1949). P is that of the ``frames`` last frames, so that steep fronts keep their short waves.
    """
    modes = torch.fft.rfft(u, norm="forward")
    noise = noise_level(u)[:, 0].square() / u.shape[2]
    total = modes[:, -frames:].abs().square().mean(1)
    # without the factor, half of the modes of nothing but noise would keep a part of it
    weight = (1 - 1.5 * noise / total.clamp(min=1e-30)).clamp(min=0)
    return torch.fft.irfft(modes * weight[:, None], n=u.shape[2], norm="forward")


def rate(t: Tensor, u: Tensor, at: int, frames: int = 16) -> Tensor:
    """du/dt ``(B, points)`` at the first (``at = 0``) or last (-1) frame, of a cubic through the frames next to it."""
    near = slice(0, frames) if at == 0 else slice(-frames, None)
    times = (t - t[at]).to(u)[near]
    powers = torch.stack([times**k for k in range(4)], 1)
    return torch.einsum("t,btp->bp", torch.linalg.pinv(powers)[1], u[:, near])


def last_state(t: Tensor, u: Tensor, fields: int) -> Tensor:
    """All fields ``(B, fields, points)`` at the last of noisy frames ``u (B, n, points)`` of u_0; u_1 is its rate."""
    clean = wiener(u)
    states = [clean[:, -1], rate(t, clean, -1)]
    return torch.stack([*states, *[torch.zeros_like(states[0])] * (fields - 2)][:fields], 1)
