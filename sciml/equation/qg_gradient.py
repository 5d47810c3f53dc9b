r"""Derivatives of the advection in compiled code, to any order; on dealiased grids, where they are exact.

:math:`f(z) = N(Az, z)` with :math:`N(\psi, q) = -J(\psi, q)` is quadratic; its derivatives are made of two products:

.. math:: T(z, u) = N(Az, u) + N(Au, z), \qquad T^*(z, g) = A^T N(z, g) - N(Az, g),

the tangent and its adjoint by :math:`\langle g, N(\psi, u)\rangle = -\langle u, N(\psi, g)\rangle =
\langle \psi, N(u, g)\rangle`. T is symmetric: T's derivatives by both arguments, and those of T*, are T and T* again.
Over topography :math:`f(z) = N(Az, z + b)`, and b is added to z in the products of the first argument with the second
one, N(Au, z + b) and N(z + b, g), where f itself is differentiated, not in T's derivatives by z (``over=False``).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sciml.equation import qg_packed
from sciml.equation.base import apply
from sciml.grid import Grid


def differentiable(
    grid: Grid, invert: Tensor, advection: Callable[[Tensor], Tensor], bottom: Tensor | None = None
) -> Callable[[Tensor], Tensor]:
    """``z -> N(Az, z + bottom)`` with derivatives; ``advection`` is the same function without."""
    N, weight, transposed = qg_packed.jacobian(grid), grid.real(grid.weight), invert.transpose(0, 1)

    def tangent_of(z: Tensor, u: Tensor, over: bool) -> Tensor:
        return N(apply(invert, torch.stack([z, u])), torch.stack([u, carried(z, over)])).sum(0)

    def adjoint_of(z: Tensor, g: Tensor, over: bool) -> Tensor:
        """The real inner product of stored coefficients counts k > 0 once, the one of fields twice."""
        g = g / weight
        of_u, of_psi = N(torch.stack([apply(invert, z), carried(z, over)]), torch.stack([g, g]))
        return weight * (apply(transposed, of_psi) - of_u)

    def carried(z: Tensor, over: bool) -> Tensor:
        return z if bottom is None or not over else z + bottom

    class Advection(torch.autograd.Function):
        @staticmethod
        def forward(z: Tensor) -> Tensor:
            return advection(z)

        @staticmethod
        def setup_context(ctx, inputs, output) -> None:
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx, *grads: Tensor) -> Tensor:
            return adjoint(ctx.saved_tensors[0], grads[0], True)

        @staticmethod
        def jvp(ctx, *tangents: Tensor) -> Tensor:
            return tangent(ctx.saved_tensors[0], tangents[0], True)

        @staticmethod
        def vmap(info, in_dims, z: Tensor) -> tuple[Tensor, int]:
            return advect(z.movedim(in_dims[0], 0)), 0

    class Tangent(torch.autograd.Function):
        @staticmethod
        def forward(z: Tensor, u: Tensor, over: bool) -> Tensor:
            return tangent_of(z, u, over)

        @staticmethod
        def setup_context(ctx, inputs, output) -> None:
            ctx.save_for_backward(*inputs[:2])
            ctx.save_for_forward(*inputs[:2])
            ctx.over = inputs[2]

        @staticmethod
        def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
            z, u = ctx.saved_tensors
            of_z, of_u, _ = ctx.needs_input_grad
            first = adjoint(u, grads[0], False) if of_z else None
            return first, adjoint(z, grads[0], ctx.over) if of_u else None, None

        @staticmethod
        def jvp(ctx, *tangents: Tensor) -> Tensor:
            z, u = ctx.saved_tensors
            return tangent(tangents[0], u, False) + tangent(z, tangents[1], ctx.over)

        @staticmethod
        def vmap(info, in_dims, z: Tensor, u: Tensor, over: bool) -> tuple[Tensor, int]:
            return tangent(*in_front(info, in_dims, z, u), over), 0

    class Adjoint(torch.autograd.Function):
        @staticmethod
        def forward(z: Tensor, g: Tensor, over: bool) -> Tensor:
            return adjoint_of(z, g, over)

        setup_context = Tangent.setup_context

        @staticmethod
        def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
            z, g = ctx.saved_tensors
            of_z, of_g, _ = ctx.needs_input_grad
            first = adjoint(grads[0], g, False) if of_z else None
            return first, tangent(z, grads[0], ctx.over) if of_g else None, None

        @staticmethod
        def jvp(ctx, *tangents: Tensor) -> Tensor:
            z, g = ctx.saved_tensors
            return adjoint(tangents[0], g, False) + adjoint(z, tangents[1], ctx.over)

        @staticmethod
        def vmap(info, in_dims, z: Tensor, g: Tensor, over: bool) -> tuple[Tensor, int]:
            return adjoint(*in_front(info, in_dims, z, g), over), 0

    def advect(z: Tensor) -> Tensor:
        return Advection.apply(z)  # type: ignore[return-value]

    def tangent(z: Tensor, u: Tensor, over: bool) -> Tensor:
        return Tangent.apply(z, u, over)  # type: ignore[return-value]

    def adjoint(z: Tensor, g: Tensor, over: bool) -> Tensor:
        return Adjoint.apply(z, g, over)  # type: ignore[return-value]

    return advect


def in_front(info, in_dims: tuple[int | None, ...], z: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors with the dimension that ``vmap`` takes away in front."""
    size = info.batch_size
    moved = [t.expand(size, *t.shape) if d is None else t.movedim(d, 0) for t, d in zip((z, u), in_dims, strict=False)]
    return moved[0], moved[1]
