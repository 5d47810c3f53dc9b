r"""``qg_fast.py`` on the CPU: FFTW's transforms (pyfftw) and compiled loops (``qg_loops.py``), some columns at a time.

Two real fields make one complex field. With :math:`w = u + i v` and :math:`F'(k, l) = F(-k, -l)`, all that a layer
needs is :math:`F = \widehat{w^2}` on dealiased grids (Basdevant's form) and :math:`F = \widehat{w q}` on aliased ones:

.. math:: -\widehat{J(\psi, \nabla^2\psi)} = a F + \overline{a F'}, \quad a = -\tfrac{i}{4} (k - i l)^2, \qquad
          -\widehat{\nabla\cdot(\mathbf{u} q)} = a F - \overline{a F'}, \quad a = -\tfrac{i}{2} (k - i l).

Points are stored ``(x, y)``. A complex field's spectrum has the rows ``k = 0 .. K, -K .. -1``, a real field's the rows
``k = 0 .. K``, each with ``ny`` coefficients. Plans are FFTW's estimates: a machine gives the same bits in every run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pyfftw
import torch
from torch import Tensor

from sciml.equation import qg_loops as loops
from sciml.grid import Grid

GROUP_BYTES = 2**19
"""Size of the velocities that are worked on at once at points: half of a core's second-level cache."""
PAD = 4
"""Points added to each row, since strides of powers of two all fall on the same few lines of the cache."""

Advance = Callable[[np.ndarray, np.ndarray | None, np.ndarray], None]


def advection(grid: Grid, invert: Tensor, S: Tensor) -> Callable[..., Tensor]:
    """``(z, linear=None) -> -J(psi, q) (+ linear z)`` for states ``z (..., n, *modes)`` on the CPU."""
    n = S.shape[0]
    A, stretching = loops.array(invert), loops.array(S)
    at_once = max(1, GROUP_BYTES // (n * field_bytes(grid)))  # members
    thread = threading.local()

    def advect(z: Tensor, linear: Tensor | None = None) -> Tensor:
        states = loops.array(z).reshape(-1, n, *grid.modes)
        dz = torch.empty_like(z, memory_format=torch.contiguous_format)
        results = dz.numpy().reshape(states.shape)
        L = None if linear is None else loops.array(linear)
        rooms = thread.__dict__.setdefault("rooms", {})
        for first in range(0, len(states), at_once):
            chunk = slice(first, first + at_once)
            members = len(states[chunk])
            if members not in rooms:
                rooms[members] = workspace(grid, A, stretching, members)
            rooms[members](states[chunk], L, results[chunk])
        return dz

    return advect


def field_bytes(grid: Grid) -> int:
    """Size of one complex field at points."""
    ny, nx = grid.product_shape
    return nx * ny * grid.complex(0).element_size()


def workspace(grid: Grid, A: np.ndarray, S: np.ndarray, members: int) -> Advance:
    """The advection of ``members`` states, with the arrays and plans that it uses again at every step."""
    n, exact = len(S), grid.dealias != 1
    ny, nx = grid.product_shape
    layers = n * members
    reals = (n - 1) * members if exact else layers  # couplings of neighbours on the way back, or q on the way there
    k, l = grid.ik.imag.numpy(), grid.il.imag.numpy()  # noqa: E741
    factor = (-0.25j * (k - 1j * l) ** 2 if exact else -0.5j * (k - 1j * l)) / (nx * ny)
    below, above = (np.append(np.diagonal(S, offset) / (nx * ny), 0).astype(A.dtype) for offset in (1, -1))
    factor, k, l = factor.astype(complex_of(A)), k.ravel().astype(A.dtype), l.ravel().astype(A.dtype)  # noqa: E741

    columns = grid.modes[0]
    rows = columns + min(columns - 1, nx - columns)
    w, r = zeros(A, layers, rows, ny), zeros(A, reals, columns, ny)  # spectra in x and y
    wx, rx = np.zeros_like(w), np.zeros_like(r)  # spectra in x, values along y
    there, back = [plan(w, wx, "BACKWARD")], [plan(wx, w, "FORWARD")]
    if exact and reals:
        back.append(plan(rx, r, "FORWARD"))
    elif reals:
        there.append(plan(r, rx, "BACKWARD"))

    width = min(ny, max(8, ny * GROUP_BYTES // (layers * field_bytes(grid)) // 2 * 2))
    blocks = [Block(A, layers, reals, exact, nx, first, min(width, ny - first)) for first in range(0, ny, width)]
    multiply = loops.square if exact else loops.multiply

    def advance(z: np.ndarray, L: np.ndarray | None, out: np.ndarray) -> None:
        loops.velocity(z, A, k, l, w)
        if not exact:
            r[:] = z.reshape(r.shape)
        execute(there)
        for block in blocks:
            loops.turn(wx, block.wh, block.first, columns, nx)
            if not exact:
                loops.turn_real(rx, block.rh, block.first, block.width, nx)
            block.inverse.execute()
            multiply(block.w, block.r, n)
            block.forward.execute()
            loops.turn_back(block.wh, wx, block.first, columns, nx)
            if exact:
                loops.turn_real_back(block.rh, rx, block.first, block.width, nx)
        execute(back)
        loops.collect(w, r, factor, exact, below, above, out)
        if L is not None:
            loops.apply_linear(L, z, out)

    return advance


class Block:
    """Some values of y, with x along the rows: ``w`` of each layer, then real fields, the two halves of each as one."""

    def __init__(self, A: np.ndarray, layers: int, reals: int, exact: bool, nx: int, first: int, width: int):
        self.first, self.width = first, width
        half, complex_rows = (width + 1) // 2, layers * width

        def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            both = zeros(A, complex_rows + reals * half, nx + PAD)
            w, r = both[:complex_rows], both[complex_rows:]
            return both[:, :nx], w.reshape(layers, width, nx + PAD), r.reshape(reals, half, nx + PAD)

        spectra, self.wh, self.rh = rows()
        points, self.w, self.r = rows()
        there, back = (complex_rows, None) if exact else (None, complex_rows)
        self.inverse = plan(spectra[:there], points[:there], "BACKWARD")
        self.forward = plan(points[:back], spectra[:back], "FORWARD")


def complex_of(A: np.ndarray) -> np.dtype:
    return np.result_type(A.dtype, np.complex64)


def zeros(A: np.ndarray, *shape: int) -> np.ndarray:
    """Complex zeros of ``A``'s precision, placed in memory as FFTW likes it."""
    return pyfftw.zeros_aligned(shape, dtype=complex_of(A))


def plan(source: np.ndarray, target: np.ndarray, direction: str) -> pyfftw.FFTW:
    """An unnormalised transform along the last axis, whose plan depends on shapes and strides only."""
    return pyfftw.FFTW(source, target, axes=(-1,), direction=f"FFTW_{direction}", flags=("FFTW_ESTIMATE",), threads=1)


def execute(plans: list[pyfftw.FFTW]) -> None:
    for p in plans:
        p.execute()
