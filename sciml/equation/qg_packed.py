r"""``qg_fast.py`` on the CPU: FFTW's transforms (pyfftw) and compiled loops (``qg_loops.py``), some rows at a time.

Two real fields make one complex field. With :math:`w = u + i v` and :math:`F'(k, l) = F(-k, -l)`, all that a layer
needs is :math:`F = \widehat{w^2}` on dealiased grids (Basdevant's form) and :math:`F = \widehat{w q}` on aliased ones:

.. math:: -\widehat{J(\psi, \nabla^2\psi)} = a F + \overline{a F'}, \quad a = -\tfrac{i}{4} (k - i l)^2, \qquad
          -\widehat{\nabla\cdot(\mathbf{u} q)} = a F - \overline{a F'}, \quad a = -\tfrac{i}{2} (k - i l).

Of a cross product of two flows, :math:`u_1 v_2 - v_1 u_2`, only that real field goes back.
For some k at a time, velocities are made, transformed in y and written as columns of rows along x; for some y at a time
those are transformed in x, multiplied, transformed back and written as columns of rows along y; for some k again, those
are transformed and collected. So every large array is written once, scattered, and read once, in order.
Plans are FFTW's estimates: a machine gives the same bits in every run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyfftw
import torch
from torch import Tensor

from sciml.equation import qg_loops as loops
from sciml.grid import Grid

GROUP_BYTES = 2**19
"""Size of the velocities that are worked on at once at points: half of a core's second-level cache."""
GAP_BYTES = 64
"""Gap behind each row, since strides of powers of two all fall on the same few lines of the cache."""

Advance = Callable[[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray], None]
"""``(z of the velocities, z that they carry, linear operator, out)``"""


class Form(NamedTuple):
    """What goes to points beside the velocities, and what comes back."""

    carried: bool
    """there: a real field of each layer, which multiplies its velocity"""
    squares: bool
    """back: the complex product of each layer"""
    couplings: bool
    """back: the real cross product of each pair of neighbours"""


BASDEVANT, FLUX, CROSS = Form(False, True, True), Form(True, True, False), Form(False, False, True)


def advection(grid: Grid, invert: Tensor, S: Tensor, bottom: Tensor | None = None) -> Callable[..., Tensor]:
    """``(z, linear=None) -> -J(psi, q + bottom) (+ linear z)`` for states ``z (..., n, *modes)`` on the CPU."""
    A, stretching = loops.array(invert), loops.array(S)
    form = BASDEVANT if grid.dealias != 1 and bottom is None else FLUX
    n = len(stretching)
    parts = in_parts(grid, n, n, lambda members: workspace(grid, A, stretching, members, form))

    def advect(z: Tensor, linear: Tensor | None = None) -> Tensor:
        return parts(z, z if bottom is None else z + bottom, None if linear is None else loops.array(linear))

    return advect


def transport(grid: Grid, invert: Tensor) -> Callable[..., Tensor]:
    """``(z, q, linear=None) -> -div(u q) (+ linear z)`` with the velocity of psi = invert z, for states
    ``(..., n, *modes)`` on the CPU."""
    A, n = loops.array(invert), len(invert)
    parts = in_parts(grid, n, n, lambda members: workspace(grid, A, np.zeros((n, n)), members, FLUX))
    return lambda z, q, linear=None: parts(z, q, None if linear is None else loops.array(linear))


def cross(grid: Grid) -> Callable[[Tensor, Tensor], Tensor]:
    """``(a, b) -> a_x b_y - a_y b_x``, as the product at points, for fields ``(..., *modes)`` on the CPU."""
    A = np.zeros((2, 2, *grid.modes), loops.array(grid.real(grid.K2)).dtype)
    A[0, 0] = A[1, 1] = 1
    parts = in_parts(grid, 2, 1, lambda members: workspace(grid, A, np.zeros((2, 2)), members, CROSS))
    return lambda a, b: parts(torch.stack([a, b], -3), a, None)


def in_parts(grid: Grid, n: int, results: int, make: Callable[[int], Advance]) -> Callable[..., Tensor]:
    """Some members at a time, so that their velocities fit GROUP_BYTES, with workspaces of each thread's own; a member
    has ``n`` fields that move and as many ``results`` as ``q`` has."""
    at_once = max(1, GROUP_BYTES // (n * field_bytes(grid)))
    thread = threading.local()

    def advance(u: Tensor, q: Tensor, L: np.ndarray | None) -> Tensor:
        states = loops.array(q).reshape(-1, results, *grid.modes)
        carriers = states if u is q else loops.array(u).reshape(-1, n, *grid.modes)
        dz = torch.empty_like(q, memory_format=torch.contiguous_format)
        out = dz.numpy().reshape(states.shape)
        rooms = thread.__dict__.setdefault("rooms", {})
        for first in range(0, len(states), at_once):
            chunk = slice(first, first + at_once)
            members = len(states[chunk])
            if members not in rooms:
                rooms[members] = make(members)
            rooms[members](carriers[chunk], states[chunk], L, out[chunk])
        return dz

    return advance


def field_bytes(grid: Grid) -> int:
    """Size of one complex field at points."""
    ny, nx = grid.product_shape
    return nx * ny * grid.complex(0).element_size()


def workspace(grid: Grid, A: np.ndarray, S: np.ndarray, members: int, form: Form) -> Advance:
    """The advection of ``members`` states, with the arrays and plans that it uses again at every step.

    ``BASDEVANT``: of vorticity by its own velocity; ``FLUX``: of any field; ``CROSS``: of two flows by one another.
    """
    n = len(S)
    ny, nx = grid.product_shape
    layers = n * members
    reals = layers if form.carried else (n - 1) * members
    k, l = grid.ik.imag.numpy(), grid.il.imag.numpy()  # noqa: E741
    factor = (-0.5j * (k - 1j * l) if form.carried else -0.25j * (k - 1j * l) ** 2) / (nx * ny)
    below, above = (np.append(np.diagonal(S, offset) / (nx * ny), 0).astype(A.dtype) for offset in (1, -1))
    factor, k, l = factor.astype(complex_of(A)), k.ravel().astype(A.dtype), l.ravel().astype(A.dtype)  # noqa: E741

    columns = grid.modes[0]
    ks, ys = pieces(columns, layers * 2 * ny, A), pieces(ny, layers * nx, A)
    along_x = Fields(rows(A, layers, ny, nx), rows(A, reals, (ny + 1) // 2, nx))
    along_y = Fields(rows(A, layers, columns + min(columns - 1, nx - columns), ny), rows(A, reals, columns, ny))
    at_k, at_k_y = (Fields(rows(A, layers, 2 * len(ks[0]), ny), rows(A, reals, len(ks[0]), ny)) for _ in range(2))
    at_y, at_y_k = (Fields(rows(A, layers, len(ys[0]), nx), rows(A, reals, len(ys[0]) // 2 + 1, nx)) for _ in range(2))
    points = [Points(piece, nx, form, along_x, at_y, at_y_k) for piece in ys]
    spectra, order = [], np.empty(0, int)
    for piece in ks:
        spectra.append(Spectra(piece, nx, ny, form, at_k, at_k_y, along_y, len(order)))
        order = np.append(order, spectra[-1].places)
    scale = 1 / (nx * ny)
    no_linear = np.zeros((0, 0, 0, 0), factor.dtype)

    def advance(z: np.ndarray, q: np.ndarray, L: np.ndarray | None, out: np.ndarray) -> None:
        for s in spectra:
            loops.velocity(z, A, k, l, s.first, s.high, ny, s.w)
            if form.carried:
                loops.spread_rows(q, s.r, s.first, ny)
            execute(s.inverse)
            loops.turn(s.wy, along_x.w, ny, s.places)
            if form.carried:
                loops.turn_real(s.ry, along_x.r, s.first, ny, nx)
        for p in points:
            execute(p.inverse)
            if form.carried:
                loops.multiply(p.w, p.r, n)
            else:
                loops.products(p.w, p.r, n, form.squares)
            execute(p.forward)
            if form.squares:
                loops.turn_back(p.wx, along_y.w, p.first, order)
            if form.couplings:
                loops.turn_real_back(p.rx, along_y.r, p.first, ny, nx)
        for s in spectra:
            execute(s.forward)
            if not form.squares:
                loops.collect_real(s.r, scale, s.first, ny, out)
                continue
            linear = no_linear if L is None else L
            exact = form.couplings
            loops.collect(s.w, s.r, factor, exact, below, above, s.first, s.high, ny, z, linear, out)

    return advance


class Fields(NamedTuple):
    """Complex rows: ``w`` of each layer, and real fields."""

    w: np.ndarray
    r: np.ndarray

    def first(self, rows: int, real_rows: int) -> Fields:
        """The same memory with fewer rows for each field."""
        w, r = (a.ravel()[: len(a) * m * a.shape[2]] for a, m in ((self.w, rows), (self.r, real_rows)))
        return Fields(w.reshape(len(self.w), rows, -1), r.reshape(len(self.r), real_rows, self.r.shape[2]))


def pieces(size: int, width: int, A: np.ndarray) -> list[range]:
    """``range(size)`` in pieces of a multiple of 8, so that ``width`` complex numbers for each fit GROUP_BYTES."""
    step = max(8, GROUP_BYTES // (width * complex_of(A).itemsize) // 8 * 8)
    return [range(size)[first : first + step] for first in range(0, size, step)]


class Spectra:
    """Some k of all fields, y along the rows; behind the rows k of ``w`` its rows -k."""

    def __init__(
        self, ks: range, nx: int, ny: int, form: Form, spectra: Fields, values: Fields, along_y: Fields, start: int
    ):
        self.first, self.last = ks.start, ks.stop
        self.high = min(ks.stop - 1, (nx - 1) // 2)  # the highest k that has a row -k of its own
        self.places = np.array([*ks, *range(nx - self.high, nx - max(ks.start, 1) + 1)])  # of the rows, along x
        both = len(self.places)
        (self.w, self.r), (self.wy, self.ry) = (a.first(both, len(ks)) for a in (spectra, values))
        self.inverse = [plan(self.w, self.wy, ny, "BACKWARD")]
        self.forward = [plan(along_y.w[:, start : start + both], self.w, ny, "FORWARD")] if form.squares else []
        if form.couplings and self.r.size:
            self.forward.append(plan(along_y.r[:, ks.start : ks.stop], self.r, ny, "FORWARD"))
        if form.carried:
            self.inverse.append(plan(self.r, self.ry, ny, "BACKWARD"))


class Points:
    """Some y of all fields, x along the rows; of real fields, two y as one complex row."""

    def __init__(self, ys: range, nx: int, form: Form, along_x: Fields, values: Fields, spectra: Fields):
        self.first, pairs = ys.start, (len(ys) + 1) // 2
        (self.w, self.r), (self.wx, self.rx) = (a.first(len(ys), pairs) for a in (values, spectra))
        self.inverse = [plan(along_x.w[:, ys.start : ys.stop], self.w, nx, "BACKWARD")]
        self.forward = [plan(self.w, self.wx, nx, "FORWARD")] if form.squares else []
        if form.couplings and self.r.size:
            self.forward.append(plan(self.r, self.rx, nx, "FORWARD"))
        if form.carried:
            self.inverse.append(plan(along_x.r[:, ys.start // 2 : ys.start // 2 + pairs], self.r, nx, "BACKWARD"))


def complex_of(A: np.ndarray) -> np.dtype:
    return np.result_type(A.dtype, np.complex64)


def rows(A: np.ndarray, fields: int, number: int, length: int) -> np.ndarray:
    """Complex zeros of ``A``'s precision, placed in memory as FFTW likes it, with gaps between rows."""
    dtype = complex_of(A)
    return pyfftw.zeros_aligned((fields, number, length + GAP_BYTES // dtype.itemsize), dtype=dtype)


def plan(source: np.ndarray, target: np.ndarray, length: int, direction: str) -> pyfftw.FFTW:
    """An unnormalised transform along the rows, whose plan depends on shapes and strides only."""
    rows = source[..., :length], target[..., :length]
    return pyfftw.FFTW(*rows, axes=(-1,), direction=f"FFTW_{direction}", flags=("FFTW_ESTIMATE",), threads=1)


def execute(plans: list[pyfftw.FFTW]) -> None:
    for p in plans:
        p.execute()
