r"""Derivatives of the advection in compiled code, to any order.

:math:`f(z) = N(Az, z) + Lz` with :math:`N(\psi, q) = -\nabla\cdot(\mathbf{u} q)` is quadratic; its derivatives are made
of transports and of cross products :math:`C(\psi, g) = \psi_x g_y - \psi_y g_x` at points:

.. math:: T(z, u) = N(Az, u) + N(Au, z) + Lu, \qquad
          T^*(z, g) = -A^T N(g, z) + C(Az, g) + L^H g,

the tangent and its adjoint by :math:`\langle g, N(\psi, u)\rangle = \langle C(\psi, g), u\rangle =
-\langle \psi, N(g, u)\rangle`, which holds for products that alias, too. N's part of T is symmetric: T's derivatives by
both arguments, and those of T*, are T and T* again. Over topography :math:`f(z) = N(Az, z + b) + Lz`: b and L count
where f itself is differentiated, not in derivatives of T by z (``over=False``).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sciml.equation import qg_packed
from sciml.equation.base import apply
from sciml.equation.loops import about
from sciml.grid import Grid


def differentiable(
    grid: Grid, invert: Tensor, advection: Callable[..., Tensor], bottom: Tensor | None = None
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """``(z, linear) -> N(Az, z + bottom) + linear z`` with derivatives by z; ``advection`` is the same function
    without."""
    one = torch.diag_embed(invert.new_ones(*grid.modes, len(invert))).movedim((-2, -1), (0, 1)).contiguous()
    carry, carry_by, cross = qg_packed.transport(grid, invert), qg_packed.transport(grid, one), qg_packed.cross(grid)
    weight, transposed = grid.real(grid.weight), invert.transpose(0, 1).contiguous()

    def tangent_of(z: Tensor, u: Tensor, L: Tensor | None, over: bool) -> Tensor:
        return carry(z, u).add_(carry(u, carried(z, over), L if over else None))

    def adjoint_of(z: Tensor, g: Tensor, L: Tensor | None, over: bool) -> Tensor:
        """The real inner product of stored coefficients counts k > 0 once, the one of fields twice."""
        field = g / weight
        of_u, of_psi = cross(apply(invert, z), field), carry_by(field, carried(z, over))
        out = weight * (of_u - apply(transposed, of_psi))
        return out if L is None or not over else out + apply(L.transpose(0, 1).conj(), g)

    def carried(z: Tensor, over: bool) -> Tensor:
        return z if bottom is None or not over else z + bottom

    class Advection(torch.autograd.Function):
        @staticmethod
        def forward(z: Tensor, L: Tensor | None) -> Tensor:
            return advection(z, L)

        @staticmethod
        def setup_context(ctx, inputs, output) -> None:
            z, ctx.linear = inputs
            ctx.save_for_backward(z)
            ctx.save_for_forward(z)

        @staticmethod
        def backward(ctx, *grads: Tensor) -> tuple[Tensor, None]:
            return adjoint(about(ctx.saved_tensors[0]), grads[0], ctx.linear, True), None

        @staticmethod
        def jvp(ctx, *tangents: Tensor) -> Tensor:
            return tangent(ctx.saved_tensors[0], tangents[0], ctx.linear, True)

        @staticmethod
        def vmap(info, in_dims, z: Tensor, L: Tensor | None) -> tuple[Tensor, int]:
            return advect(z.movedim(in_dims[0], 0), L), 0

    class Tangent(torch.autograd.Function):
        @staticmethod
        def forward(z: Tensor, u: Tensor, L: Tensor | None, over: bool) -> Tensor:
            return tangent_of(z, u, L, over)

        @staticmethod
        def setup_context(ctx, inputs, output) -> None:
            ctx.save_for_backward(*inputs[:2])
            ctx.save_for_forward(*inputs[:2])
            ctx.rest = inputs[2:]

        @staticmethod
        def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
            z, u = ctx.saved_tensors
            of_z, of_u, *_ = ctx.needs_input_grad
            first = adjoint(u, grads[0], None, False) if of_z else None
            return first, adjoint(z, grads[0], *ctx.rest) if of_u else None, None, None

        @staticmethod
        def jvp(ctx, *tangents: Tensor) -> Tensor:
            z, u = ctx.saved_tensors
            return tangent(tangents[0], u, None, False) + tangent(z, tangents[1], *ctx.rest)

        @staticmethod
        def vmap(info, in_dims, z: Tensor, u: Tensor, L: Tensor | None, over: bool) -> tuple[Tensor, int]:
            return tangent(*in_front(info, in_dims, z, u), L, over), 0

    class Adjoint(torch.autograd.Function):
        @staticmethod
        def forward(z: Tensor, g: Tensor, L: Tensor | None, over: bool) -> Tensor:
            return adjoint_of(z, g, L, over)

        setup_context = Tangent.setup_context

        @staticmethod
        def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
            z, g = ctx.saved_tensors
            of_z, of_g, *_ = ctx.needs_input_grad
            first = adjoint(grads[0], g, None, False) if of_z else None
            return first, tangent(z, grads[0], *ctx.rest) if of_g else None, None, None

        @staticmethod
        def jvp(ctx, *tangents: Tensor) -> Tensor:
            z, g = ctx.saved_tensors
            return adjoint(tangents[0], g, None, False) + adjoint(z, tangents[1], *ctx.rest)

        @staticmethod
        def vmap(info, in_dims, z: Tensor, g: Tensor, L: Tensor | None, over: bool) -> tuple[Tensor, int]:
            return adjoint(*in_front(info, in_dims, z, g), L, over), 0

    def advect(z: Tensor, L: Tensor | None = None) -> Tensor:
        return Advection.apply(z, L)  # type: ignore[return-value]

    def tangent(z: Tensor, u: Tensor, L: Tensor | None, over: bool) -> Tensor:
        return Tangent.apply(z, u, L, over)  # type: ignore[return-value]

    def adjoint(z: Tensor, g: Tensor, L: Tensor | None, over: bool) -> Tensor:
        return Adjoint.apply(z, g, L, over)  # type: ignore[return-value]

    return advect


def in_front(info, in_dims: tuple[int | None, ...], z: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors with the dimension that ``vmap`` takes away in front."""
    size = info.batch_size
    moved = [t.expand(size, *t.shape) if d is None else t.movedim(d, 0) for t, d in zip((z, u), in_dims, strict=False)]
    return moved[0], moved[1]
