"""The pointwise work of ``qg_fast.py`` in compiled loops (numba), a few fields at a time so that they stay in cache.

Layouts: a spectrum is ``(k, l)``, padded to ``(k, ny)`` for the transform in y; every array has a group of fields
first, ordered layer by layer. The transforms are torch's (MKL).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numba import njit
from torch import Tensor

from sciml.grid import Grid

GROUP_BYTES = 2**18
"""Size of the fields that are transformed in one call: a quarter of a core's second-level cache."""

compiled = njit(cache=True, fastmath={"contract", "nsz", "arcp"}, error_model="numpy")


def advection(grid: Grid, invert: Tensor, S: Tensor) -> Callable[..., Tensor]:
    """``(z, linear=None) -> -J(psi, q) (+ linear z)`` for states ``z (..., n, *modes)`` on the CPU."""
    ny, nx = grid.product_shape
    columns, rows = grid.modes
    n = S.shape[0]
    exact = grid.dealias != 1
    inputs, products = (2, 3) if exact else (3, 2)  # fields a layer
    A = invert.contiguous().numpy()
    k, l = (grid.real(a.imag).flatten().numpy() for a in (grid.ik, grid.il))  # noqa: E741
    below, above = (np.append(torch.diagonal(S, o).numpy(), 0).astype(A.dtype) for o in (1, -1))
    group = max(1, GROUP_BYTES // (ny * nx * S.element_size()))
    at_once = n if group >= inputs * n else 1  # layers
    thread = threading.local()

    def buffers() -> tuple[Tensor, Tensor, Tensor]:
        if not hasattr(thread, "buffers"):
            size = min(group, inputs * at_once)
            thread.buffers = (
                torch.zeros(inputs * at_once, columns, ny, dtype=grid.cdtype),
                torch.zeros(size, ny, nx // 2 + 1, dtype=grid.cdtype),
                torch.empty(min(group, products * n - exact), ny, nx, dtype=grid.dtype),
            )
        return thread.buffers

    def to_points(z: np.ndarray) -> list[np.ndarray]:
        spectra, half, _ = buffers()
        fields = []
        for layer in range(0, n, at_once):
            velocity_spectra(z, A, k, l, layer, inputs, spectra.numpy())
            for part in spectra.split(len(half)):
                turn(torch.fft.ifft(part, norm="forward").numpy(), half.numpy())
                points = torch.fft.irfft(half[: len(part)], n=nx, norm="forward")
                fields += list(points.view(len(part), -1).numpy())
        return fields

    def advect(z: Tensor, linear: Tensor | None = None) -> Tensor:
        z = z.detach().resolve_conj().contiguous()
        dz = torch.zeros_like(z) if linear is None else torch.empty_like(z)
        states, results = (a.view(-1, n, columns, rows).numpy() for a in (z, dz))
        room = buffers()[2]
        for state, out in zip(states, results, strict=True):
            if linear is not None:
                apply_linear(linear.numpy(), state, out)
            fields = to_points(state)
            for first in range(0, products * n - exact, len(room)):
                part = room[: products * n - exact - first]
                for p, row in enumerate(part.view(len(part), -1).numpy(), first):
                    multiply(fields, p, exact, row)
                spectra = torch.fft.rfft(part, norm="forward")[..., :columns].mT
                spectra = torch.fft.fft(spectra, norm="forward").numpy()
                (collect if exact else collect_flux)(spectra, k, l, below, above, first, out)
        return dz

    return advect


def multiply(f: list[np.ndarray], product: int, exact: bool, out: np.ndarray) -> None:
    """Product number ``product`` at points: uv, v^2 - u^2, J(psi_i, psi_i+1) of each layer, or uq, vq of each layer."""
    i, kind = divmod(product, 3 if exact else 2)
    if not exact:
        times(f[3 * i + kind], f[3 * i + 2], out)
    elif kind == 0:
        times(f[2 * i], f[2 * i + 1], out)
    elif kind == 1:
        difference_of_squares(f[2 * i + 1], f[2 * i], out)
    else:
        determinant(f[2 * i], f[2 * i + 1], f[2 * i + 2], f[2 * i + 3], out)


@compiled
def times(a, b, out):
    for p in range(out.size):
        out[p] = a[p] * b[p]


@compiled
def difference_of_squares(a, b, out):
    for p in range(out.size):
        out[p] = (a[p] - b[p]) * (a[p] + b[p])


@compiled
def determinant(a, b, c, d, out):
    for p in range(out.size):
        out[p] = a[p] * d[p] - b[p] * c[p]


@compiled
def velocity_spectra(z, A, k, l, layer, inputs, out):  # noqa: E741
    """Padded coefficients of u and v (and of q where ``inputs`` is 3) of the layers from ``layer`` on."""
    n, columns, rows = z.shape
    up = (rows + 1) // 2  # rows l >= 0; the others go to the end, behind a gap of zeros
    down = out.shape[2] - rows + up
    psi = np.empty(rows, z.dtype)
    for f in range(0, out.shape[0], inputs):
        i = layer + f // inputs
        for c in range(columns):
            row, state = A[i, 0, c], z[0, c]
            for r in range(rows):
                psi[r] = row[r] * state[r]
            for j in range(1, n):
                row, state = A[i, j, c], z[j, c]
                for r in range(rows):
                    psi[r] += row[r] * state[r]
            differentiate(psi[:up], k[c], l[:up], out[f, c, :up], out[f + 1, c, :up])
            differentiate(psi[up:], k[c], l[up:], out[f, c, down:], out[f + 1, c, down:])
            if inputs == 3:
                out[f + 2, c, :up] = z[i, c, :up]
                out[f + 2, c, down:] = z[i, c, up:]


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
    _, columns, rows = dz.shape
    up = (rows + 1) // 2
    down = f.shape[2] - rows + up
    for p in range(f.shape[0]):
        i, kind = divmod(first + p, 3)
        for c in range(columns):
            for part in range(2):
                source = f[p, c, :up] if part == 0 else f[p, c, down:]
                target = dz[i, c, :up] if part == 0 else dz[i, c, up:]
                wave = l[:up] if part == 0 else l[up:]
                if kind == 0:
                    for r in range(source.size):
                        target[r] += (k[c] * k[c] - wave[r] * wave[r]) * source[r]
                elif kind == 1:
                    for r in range(source.size):
                        target[r] += (k[c] * wave[r]) * source[r]
                else:
                    other = dz[i + 1, c, :up] if part == 0 else dz[i + 1, c, up:]
                    for r in range(source.size):
                        target[r] -= below[i] * source[r]
                        other[r] += above[i] * source[r]


@compiled
def collect_flux(f, k, l, below, above, first, dz):  # noqa: E741
    """Add -i k (uq) - i l (vq) for the products from number ``first`` on."""
    _, columns, rows = dz.shape
    up = (rows + 1) // 2
    down = f.shape[2] - rows + up
    for p in range(f.shape[0]):
        i, kind = divmod(first + p, 2)
        for c in range(columns):
            for part in range(2):
                source = f[p, c, :up] if part == 0 else f[p, c, down:]
                target = dz[i, c, :up] if part == 0 else dz[i, c, up:]
                wave = l[:up] if part == 0 else l[up:]
                for r in range(source.size):
                    m = k[c] if kind == 0 else wave[r]
                    target[r] += complex(m * source[r].imag, -m * source[r].real)


@compiled
def apply_linear(L, z, out):
    """out = L z."""
    n, columns, rows = z.shape
    for i in range(n):
        for c in range(columns):
            target = out[i, c]
            row, state = L[i, 0, c], z[0, c]
            for r in range(rows):
                target[r] = row[r] * state[r]
            for j in range(1, n):
                row, state = L[i, j, c], z[j, c]
                for r in range(rows):
                    target[r] += row[r] * state[r]


def add_up(z: Tensor, fs: Sequence[Tensor], weights: Sequence[float], factor: Tensor | None) -> Tensor:
    """``factor (z + sum_i weights_i fs_i)`` for up to four ``fs``; ``factor`` has the shape of the last axes of z."""
    z, *fs = (a.detach().resolve_conj().contiguous() for a in (z, *fs))
    out = torch.empty_like(z)
    real = out.real.dtype
    flat = torch.empty(0, dtype=real) if factor is None else factor.flatten()
    a, b, c, d = [*fs, *[fs[0]] * (4 - len(fs))]
    w = np.zeros(4, str(real).removeprefix("torch."))
    w[: len(fs)] = weights
    z_, a, b, c, d, out_ = (x.view(-1).numpy() for x in (z, a, b, c, d, out))
    summed(z_, a, b, c, d, out_, w, len(fs), flat.numpy())
    return out


@compiled
def summed(z, a, b, c, d, out, w, count, factor):
    if count == 1:
        for s in range(z.size):
            out[s] = z[s] + w[0] * a[s]
    elif count == 2:
        for s in range(z.size):
            out[s] = z[s] + w[0] * a[s] + w[1] * b[s]
    elif count == 3:
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
