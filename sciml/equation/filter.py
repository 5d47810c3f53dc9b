"""pyqg's small-scale dissipation: a spectral filter applied after every step."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.grid import Grid


def exponential_filter(grid: Grid, strength: float) -> Tensor | None:
    """1 for ``K* <= 0.65 pi``, else ``exp(-strength (K* - 0.65 pi)^4)``, ``K* = |(k dx, l dy)|``."""
    if not 0 <= strength < torch.inf:
        raise ValueError(f"filterfac must be a number that is not negative, got {strength}")
    if strength == 0:
        return None
    wave = ((grid.k * grid.dx) ** 2 + (grid.l * grid.dy) ** 2).sqrt()
    return grid.real(torch.exp(-strength * (wave - 0.65 * torch.pi).clamp(min=0) ** 4))
