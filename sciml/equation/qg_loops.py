"""The pointwise work of ``qg_fast.py`` in compiled loops (numba), a few fields at a time so that they stay in cache.

Layouts: a spectrum is ``(k, l)``, padded to ``(k, ny)`` for the transform in y; every array has a group of fields
first, ordered layer by layer. The transforms are torch's (MKL).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from numba import njit
from torch import Tensor

from sciml.grid import Grid

GROUP_BYTES = 2**18
"""Size of the fields that are transformed in one call: a quarter of a core's second-level cache."""

compiled = njit(cache=True, nogil=True, fastmath={"contract", "nsz", "arcp"}, error_model="numpy")


def advection(grid: Grid, invert: Tensor, S: Tensor) -> Callable[..., Tensor]:
    """``(z, linear=None) -> -J(psi, q) (+ linear z)`` for states ``z (..., n, *modes)`` on the CPU."""
    columns, rows = grid.modes
    nx = grid.product_shape[1]
    n = S.shape[0]
    exact = grid.dealias != 1
    A = array(invert)
    k, l = (grid.real(a.imag).flatten().numpy() for a in (grid.ik, grid.il))  # noqa: E741
    below, above = (np.append(torch.diagonal(S, o).numpy(), 0).astype(A.dtype) for o in (1, -1))
    add = collect if exact else collect_flux
    at_once = max(1, group_size(grid) // (2 * n))  # members
    thread = threading.local()

    def some_members(state: np.ndarray, L: np.ndarray | None, out: np.ndarray) -> None:
        members = len(state)
        rooms = thread.__dict__.setdefault("rooms", {})
        if members not in rooms:
            rooms[members] = Room(grid, n, members, exact)
        room = rooms[members]
        fields = []
        for layer, spectra_array, groups in room.inverse:
            velocity_spectra(state, A, k, l, layer, room.inputs, spectra_array)
            for spectra, half, half_array in groups:
                turn(torch.fft.ifft(spectra, norm="forward").numpy(), half_array)
                fields.append(torch.fft.irfft(half, n=nx, norm="forward").numpy())
        for first, product, product_array in room.forward:
            multiply(fields, n, members, first, exact, product_array)
            spectra = torch.fft.rfft(product, norm="forward")[..., :columns].mT
            add(torch.fft.fft(spectra, norm="forward").numpy(), k, l, below, above, first, out)
        if L is not None:
            apply_linear(L, state, out)

    def advect(z: Tensor, linear: Tensor | None = None) -> Tensor:
        states = array(z).reshape(-1, n, columns, rows)
        dz = torch.zeros_like(z, memory_format=torch.contiguous_format)
        results = dz.numpy().reshape(states.shape)
        L = None if linear is None else array(linear)
        for first in range(0, len(states), at_once):
            chunk = slice(first, first + at_once)
            some_members(states[chunk], L, results[chunk])
        return dz

    return advect


def group_size(grid: Grid) -> int:
    """How many fields are transformed in one call."""
    ny, nx = grid.product_shape
    return max(1, GROUP_BYTES // (ny * nx * grid.real(0.0).element_size()))


class Room:
    """Arrays that one thread uses again at every step, and how they are cut into groups that fit the cache.

    ``inverse``: (first layer, spectra of some layers, [(spectra, half-complex, the same as array) of each group]);
    ``forward``: (number of the first product, products of a group at points, the same as array). Layers and products
    are numbered on from member to member.
    """

    def __init__(self, grid: Grid, n: int, members: int, exact: bool):
        ny, nx = grid.product_shape
        self.inputs = 2 if exact else 3  # fields a layer
        total = members * (3 * n - 1 if exact else 2 * n)
        group = group_size(grid) if members == 1 else members * self.inputs * n
        layers = n * members if group >= self.inputs * n else 1  # whose spectra are made at once
        spectra = torch.zeros(self.inputs * layers, grid.modes[0], ny, dtype=grid.cdtype)
        half = torch.zeros(min(group, len(spectra)), ny, nx // 2 + 1, dtype=grid.cdtype)
        groups = [(part, half[: len(part)], half[: len(part)].numpy()) for part in spectra.split(len(half))]
        self.inverse = [(layer, spectra.numpy(), groups) for layer in range(0, n * members, layers)]
        product = torch.empty(total if members > 1 else min(group, total), ny, nx, dtype=grid.dtype)
        firsts = range(0, total, len(product))
        parts = [product[: total - first] for first in firsts]
        self.forward = [(first, part, part.numpy()) for first, part in zip(firsts, parts, strict=True)]


def array(t: Tensor) -> np.ndarray:
    """The contiguous numbers of a tensor."""
    if t.requires_grad or t.is_conj() or not t.is_contiguous():
        t = t.detach().resolve_conj().contiguous()
    return t.numpy()


def multiply(groups: list[np.ndarray], n: int, members: int, first: int, exact: bool, out: np.ndarray) -> None:
    """Products at points from number ``first`` on: uv, v^2 - u^2, J(psi_i, psi_i+1) of each layer, or uq and vq."""
    if len(groups) == 1 and len(out) == members * (3 * n - 1 if exact else 2 * n):
        multiply_all(groups[0], n, members, exact, out)
        return
    f = [field for group in groups for field in group]
    for number, product in enumerate(out, first):
        i, kind = divmod(number, 3 if exact else 2)
        if not exact:
            times(f[3 * i + kind], f[3 * i + 2], product)
        elif kind == 0:
            times(f[2 * i], f[2 * i + 1], product)
        elif kind == 1:
            difference_of_squares(f[2 * i + 1], f[2 * i], product)
        else:
            determinant(f[2 * i], f[2 * i + 1], f[2 * i + 2], f[2 * i + 3], product)


@compiled
def times(a, b, out):
    a, b, out = a.ravel(), b.ravel(), out.ravel()
    for p in range(out.size):
        out[p] = a[p] * b[p]


@compiled
def difference_of_squares(a, b, out):
    a, b, out = a.ravel(), b.ravel(), out.ravel()
    for p in range(out.size):
        out[p] = (a[p] - b[p]) * (a[p] + b[p])


@compiled
def determinant(a, b, c, d, out):
    a, b, c, d, out = a.ravel(), b.ravel(), c.ravel(), d.ravel(), out.ravel()
    for p in range(out.size):
        out[p] = a[p] * d[p] - b[p] * c[p]


@compiled
def multiply_all(f, n, members, exact, out):
    """All products of all layers of all members, where they fit one group."""
    for m in range(members):
        for i in range(n):
            if exact:
                p, g = m * (3 * n - 1) + 3 * i, 2 * (m * n + i)
                times(f[g], f[g + 1], out[p])
                difference_of_squares(f[g + 1], f[g], out[p + 1])
                if i + 1 < n:
                    determinant(f[g], f[g + 1], f[g + 2], f[g + 3], out[p + 2])
            else:
                p, g = 2 * (m * n + i), 3 * (m * n + i)
                times(f[g], f[g + 2], out[p])
                times(f[g + 1], f[g + 2], out[p + 1])


@compiled
def velocity_spectra(z, A, k, l, layer, inputs, out):  # noqa: E741
    """Padded coefficients of u and v (and of q where ``inputs`` is 3) of the layers from ``layer`` on."""
    _, n, columns, rows = z.shape
    up = (rows + 1) // 2  # rows l >= 0; the others go to the end, behind a gap of zeros
    down = out.shape[2] - rows + up
    psi = np.empty(rows, z.dtype)
    for f in range(0, out.shape[0], inputs):
        m, i = divmod(layer + f // inputs, n)
        for c in range(columns):
            row, state = A[i, 0, c], z[m, 0, c]
            for r in range(rows):
                psi[r] = row[r] * state[r]
            for j in range(1, n):
                row, state = A[i, j, c], z[m, j, c]
                for r in range(rows):
                    psi[r] += row[r] * state[r]
            differentiate(psi[:up], k[c], l[:up], out[f, c, :up], out[f + 1, c, :up])
            differentiate(psi[up:], k[c], l[up:], out[f, c, down:], out[f + 1, c, down:])
            if inputs == 3:
                out[f + 2, c, :up] = z[m, i, c, :up]
                out[f + 2, c, down:] = z[m, i, c, up:]


@compiled
def differentiate(psi, k, l, u, v):  # noqa: E741
    """u = -i l psi, v = i k psi."""
    for r in range(psi.size):
        u[r] = complex(l[r] * psi[r].imag, -l[r] * psi[r].real)
        v[r] = complex(-k * psi[r].imag, k * psi[r].real)


@compiled
def turn(f, out):
    """(field, k, y) into (field, y, k); columns of ``out`` beyond the kept k are left alone (zero)."""
    fields, columns, ny = f.shape
    for i in range(fields):
        for first in range(0, ny, 32):
            last = min(first + 32, ny)
            for c in range(columns):
                for y in range(first, last):
                    out[i, y, c] = f[i, c, y]


@compiled
def collect(f, k, l, below, above, first, dz):  # noqa: E741
    """Add (k^2 - l^2) uv + k l (v^2 - u^2) -+ S J for the products from number ``first`` on."""
    _, n, columns, rows = dz.shape
    up = (rows + 1) // 2
    down = f.shape[2] - rows + up
    for p in range(f.shape[0]):
        m, number = divmod(first + p, 3 * n - 1)
        i, kind = divmod(number, 3)
        for c in range(columns):
            for part in range(2):
                source = f[p, c, :up] if part == 0 else f[p, c, down:]
                target = dz[m, i, c, :up] if part == 0 else dz[m, i, c, up:]
                wave = l[:up] if part == 0 else l[up:]
                if kind == 0:
                    for r in range(source.size):
                        target[r] += (k[c] * k[c] - wave[r] * wave[r]) * source[r]
                elif kind == 1:
                    for r in range(source.size):
                        target[r] += (k[c] * wave[r]) * source[r]
                else:
                    other = dz[m, i + 1, c, :up] if part == 0 else dz[m, i + 1, c, up:]
                    for r in range(source.size):
                        target[r] -= below[i] * source[r]
                        other[r] += above[i] * source[r]


@compiled
def collect_flux(f, k, l, below, above, first, dz):  # noqa: E741
    """Add -i k (uq) - i l (vq) for the products from number ``first`` on."""
    _, n, columns, rows = dz.shape
    up = (rows + 1) // 2
    down = f.shape[2] - rows + up
    for p in range(f.shape[0]):
        m, number = divmod(first + p, 2 * n)
        i, kind = divmod(number, 2)
        for c in range(columns):
            for part in range(2):
                source = f[p, c, :up] if part == 0 else f[p, c, down:]
                target = dz[m, i, c, :up] if part == 0 else dz[m, i, c, up:]
                wave = l[:up] if part == 0 else l[up:]
                for r in range(source.size):
                    w = k[c] if kind == 0 else wave[r]
                    target[r] += complex(w * source[r].imag, -w * source[r].real)


@compiled
def apply_linear(L, z, out):
    """out += L z."""
    members, n, columns, rows = z.shape
    for m in range(members):
        for i in range(n):
            for c in range(columns):
                target = out[m, i, c]
                for j in range(n):
                    row, state = L[i, j, c], z[m, j, c]
                    for r in range(rows):
                        target[r] += row[r] * state[r]


def add_up(z: Tensor, fs: Sequence[Tensor], weights: Sequence[float], factor: Tensor | None) -> Tensor:
    """``factor (z + sum_i weights_i fs_i)`` for up to four ``fs``; ``factor`` has the shape of the last axes of z."""
    out = torch.empty_like(z, memory_format=torch.contiguous_format)
    a, b, c, d = (array(f) for f in (*fs, *[fs[0]] * (4 - len(fs))))
    w = small_array(tuple(weights), z.dtype)
    mask = w[:0] if factor is None else array(factor)
    summed(array(z), a, b, c, d, out.numpy(), w, mask)
    return out


@cache
def small_array(values: tuple[float, ...], dtype: torch.dtype) -> np.ndarray:
    """The values as reals of the precision of the complex ``dtype``."""
    return np.array(values, np.float32 if dtype == torch.complex64 else np.float64)


@compiled
def summed(z, a, b, c, d, out, w, factor):
    z, a, b, c, d, out, factor = z.ravel(), a.ravel(), b.ravel(), c.ravel(), d.ravel(), out.ravel(), factor.ravel()
    if w.size == 1:
        for s in range(z.size):
            out[s] = z[s] + w[0] * a[s]
    elif w.size == 2:
        for s in range(z.size):
            out[s] = z[s] + w[0] * a[s] + w[1] * b[s]
    elif w.size == 3:
        for s in range(z.size):
            out[s] = z[s] + w[0] * a[s] + w[1] * b[s] + w[2] * c[s]
    else:
        for s in range(z.size):
            out[s] = z[s] + w[0] * a[s] + w[1] * b[s] + w[2] * c[s] + w[3] * d[s]
    period = factor.size
    if period:
        for first in range(0, z.size, period):
            part = out[first : first + period]
            for p in range(period):
                part[p] *= factor[p]
