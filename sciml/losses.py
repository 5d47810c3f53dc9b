r"""Losses ``(prediction, target) -> (b,)`` of fields ``(b, channels, [y,] x)``, one number for each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def squares(x: Tensor) -> Tensor:
    """Sums of squares over all but the first axis, in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32)).square().flatten(1).sum(1)


def relative_l2(prediction: Tensor, target: Tensor) -> Tensor:
    r""":math:`\|p - t\| / \|t\|`."""
    return (squares(prediction - target) / squares(target)).sqrt()


def gradient(x: Tensor, boundary: Sequence[str], lengths: Sequence[float]) -> Tensor:
    """Derivatives along the axes of ``boundary`` (the last ones of x), in front.

    Central differences: around periodic axes of n cells, second order to the ends of the n - 1 cells between walls.
    """
    found = []
    for axis, (b, length) in enumerate(zip(boundary, lengths, strict=True), -len(boundary)):
        n = x.shape[axis]
        if b == "periodic":
            found.append((x.roll(-1, axis) - x.roll(1, axis)) * (n / length / 2))
        else:
            found.append(torch.gradient(x, spacing=length / (n - 1), dim=axis, edge_order=2)[0])
    return torch.stack(found)


def relative_h1(boundary: Sequence[str] = ("periodic", "periodic"), lengths: Sequence[float] = ()) -> Loss:
    r""":math:`\sqrt{\|e\|^2 + \|\nabla e\|^2} / \sqrt{\|t\|^2 + \|\nabla t\|^2}`, e = p - t, in a box of ``lengths``
    (default: 1)."""
    lengths = tuple(lengths) or (1.0,) * len(boundary)

    def norm(x: Tensor) -> Tensor:
        return squares(x) + squares(gradient(x, boundary, lengths).movedim(0, 1))

    return lambda prediction, target: (norm(prediction - target) / norm(target)).sqrt()


def spectral(cut: int) -> Loss:
    r"""Relative error of the waves whose number along an axis of a periodic box is at least ``cut``:
    :math:`\sum_{k \ge cut} |\hat p - \hat t|^2 / \sum_{k \ge cut} |\hat t|^2`, rooted (Chattopadhyay & Hassanzadeh
    2023, arXiv 2304.07029, use moduli); small scales count as much as large ones."""

    def small(x: Tensor) -> Tensor:
        axes = tuple(range(2, x.ndim))
        waves = torch.fft.fftn(x.to(torch.promote_types(x.dtype, torch.float32)), dim=axes)
        numbers = [torch.fft.fftfreq(x.shape[a], 1 / x.shape[a], device=x.device).abs() for a in axes]
        largest = torch.stack(torch.meshgrid(*numbers, indexing="ij")).amax(0)
        return torch.view_as_real(waves * (largest >= cut))

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        wanted = small(target)
        return (squares(small(prediction) - wanted) / squares(wanted)).sqrt()

    return loss


def seen_through(f: Callable[[Tensor], Tensor], loss: Loss) -> Loss:
    """The loss of a function of the fields, such as the streamfunction of a potential vorticity."""
    return lambda prediction, target: loss(f(prediction), f(target))


def combined(*parts: tuple[float, Loss]) -> Loss:
    """Weighted sum of losses."""
    return lambda prediction, target: torch.stack([w * loss(prediction, target) for w, loss in parts]).sum(0)
