r"""Derivatives of the advection in compiled code, to any order; on dealiased grids, where they are exact.

:math:`f(z) = N(Az, z)` with :math:`N(\psi, q) = -J(\psi, q)` is quadratic; its derivatives are made of two products:

.. math:: T(z, u) = N(Az, u) + N(Au, z), \qquad T^*(z, g) = A^T N(z, g) - N(Az, g),

the tangent and its adjoint by :math:`\langle g, N(\psi, u)\rangle = -\langle u, N(\psi, g)\rangle =
\langle \psi, N(u, g)\rangle`. T is symmetric: T's derivatives by both arguments, and those of T*, are T and T* again.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sciml.equation import qg_packed
from sciml.equation.base import apply
from sciml.grid import Grid


def differentiable(grid: Grid, invert: Tensor, advection: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``z -> N(Az, z)`` with derivatives; ``advection`` is the same function without."""
    N, weight, transposed = qg_packed.jacobian(grid), grid.real(grid.weight), invert.transpose(0, 1)

    def tangent_of(z: Tensor, u: Tensor) -> Tensor:
        both = torch.stack([z, u])
        return N(apply(invert, both), both.flip(0)).sum(0)

    def adjoint_of(z: Tensor, g: Tensor) -> Tensor:
        """The real inner product of stored coefficients counts k > 0 once, the one of fields twice."""
        g = g / weight
        of_u, of_psi = N(torch.stack([apply(invert, z), z]), torch.stack([g, g]))
        return weight * (apply(transposed, of_psi) - of_u)

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
            return adjoint(ctx.saved_tensors[0], grads[0])

        @staticmethod
        def jvp(ctx, *tangents: Tensor) -> Tensor:
            return tangent(ctx.saved_tensors[0], tangents[0])

        @staticmethod
        def vmap(info, in_dims, z: Tensor) -> tuple[Tensor, int]:
            return advect(z.movedim(in_dims[0], 0)), 0

    class Tangent(torch.autograd.Function):
        @staticmethod
        def forward(z: Tensor, u: Tensor) -> Tensor:
            return tangent_of(z, u)

        setup_context = Advection.setup_context

        @staticmethod
        def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
            z, u = ctx.saved_tensors
            of_z, of_u = ctx.needs_input_grad
            return adjoint(u, grads[0]) if of_z else None, adjoint(z, grads[0]) if of_u else None

        @staticmethod
        def jvp(ctx, *tangents: Tensor) -> Tensor:
            z, u = ctx.saved_tensors
            return tangent(tangents[0], u) + tangent(z, tangents[1])

        @staticmethod
        def vmap(info, in_dims, *inputs: Tensor) -> tuple[Tensor, int]:
            return tangent(*in_front(info, in_dims, inputs)), 0

    class Adjoint(torch.autograd.Function):
        @staticmethod
        def forward(z: Tensor, g: Tensor) -> Tensor:
            return adjoint_of(z, g)

        setup_context = Advection.setup_context

        @staticmethod
        def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
            z, g = ctx.saved_tensors
            of_z, of_g = ctx.needs_input_grad
            return adjoint(grads[0], g) if of_z else None, tangent(z, grads[0]) if of_g else None

        @staticmethod
        def jvp(ctx, *tangents: Tensor) -> Tensor:
            z, g = ctx.saved_tensors
            return adjoint(tangents[0], g) + adjoint(z, tangents[1])

        @staticmethod
        def vmap(info, in_dims, *inputs: Tensor) -> tuple[Tensor, int]:
            return adjoint(*in_front(info, in_dims, inputs)), 0

    def advect(z: Tensor) -> Tensor:
        return Advection.apply(z)  # type: ignore[return-value]

    def tangent(z: Tensor, u: Tensor) -> Tensor:
        return Tangent.apply(z, u)  # type: ignore[return-value]

    def adjoint(z: Tensor, g: Tensor) -> Tensor:
        return Adjoint.apply(z, g)  # type: ignore[return-value]

    return advect


def in_front(info, in_dims: tuple[int | None, ...], tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """All tensors with the dimension that ``vmap`` takes away in front."""
    size = info.batch_size
    moved = zip(tensors, in_dims, strict=True)
    return [t.expand(size, *t.shape) if d is None else t.movedim(d, 0) for t, d in moved]
