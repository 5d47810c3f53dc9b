r"""A cheap classical increment from gridded observations: what a learned analysis may be shown to begin with.

Departures are averaged in cells of the grid, whatever their times, and optimal interpolation is solved for all cells
and a whole batch at once by a few conjugate-gradient steps, in the whitened variable ``v`` with ``B = U U^T``:

.. math:: (I + U^T H^T P H U) v = U^T H^T P \bar d

with the cells' precision P, their mean departure, and H linearised about the background (Gandin 1963; Daley 1991, 4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.assim.base import Covariance
from sciml.assim.minimise import conjugate_gradients, hessian, linearised

Quantity = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FirstGuess:
    """Increment ``(batch, lev, y, x)`` of the fields that ``read`` gives.

    Parameters
    ----------
    covariance : B of the background
    read : states to fields
    quantities, sigma : what each channel measures of fields ``(..., lev, y, x)``, ``(..., y, x)``, and its usual error
    iterations : conjugate-gradient steps
    """

    covariance: Covariance
    read: Callable[[Tensor], Tensor]
    quantities: Sequence[Quantity]
    sigma: Sequence[float]
    iterations: int = 4

    def __call__(self, z: Tensor, departure: Tensor, precision: Tensor) -> Tensor:
        """From states ``(batch, n, *modes)``, mean departures ``(batch, channel, y, x)`` in usual errors and precisions
        in their inverse squares, zero where nothing is seen."""
        fields, root = self.read(z), precision.sqrt()

        def g(v: Tensor) -> Tensor:
            changed = fields + self.read(self.covariance(v))
            return torch.stack([q(changed) / s for q, s in zip(self.quantities, self.sigma, strict=True)], 1) * root

        _, tangent, adjoint = linearised(g, fields.new_zeros(len(z), *self.covariance.shape))
        v = conjugate_gradients(hessian(tangent, adjoint), adjoint(root * departure), self.iterations, 0.0, 1)
        return self.read(self.covariance(v)).detach()
