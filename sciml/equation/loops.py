"""Where compiled loops (numba) may stand in for torch operations, and the one that steppers use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.autograd import forward_ad

_constant = False


@contextmanager
def constant_trajectory() -> Iterator[None]:
    """Adjoints that are recorded inside depend on what they act on, not on the state about which they are linear: half
    the work for a tangent that is found as the adjoint of an adjoint."""
    global _constant
    before, _constant = _constant, True
    try:
        yield
    finally:
        _constant = before


def about(z: Tensor) -> Tensor:
    """The state about which an adjoint is linear."""
    return z.detach() if _constant else z


@cache
def compiled() -> bool:
    """Whether the packages of the extra ``fast`` are installed."""
    return find_spec("numba") is not None and find_spec("pyfftw") is not None


def plain(*tensors: Tensor | None) -> bool:
    """Whether compiled loops may read these tensors: numbers in this machine's memory, not tracked by autograd or
    ``torch.func``, and numba and pyfftw are installed."""
    if not compiled() or forward_ad._current_level >= 0:  # type: ignore[attr-defined]
        return False
    tracking = torch.is_grad_enabled()
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # type: ignore[attr-defined]
    return not any(t is not None and (wrapped(t) or not t.is_cpu or (tracking and t.requires_grad)) for t in tensors)


def tracked(t: Tensor | None) -> bool:
    """Whether derivatives by a tensor may be asked for, now or later."""
    if t is None:
        return False
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # type: ignore[attr-defined]
    return t.requires_grad or wrapped(t) or forward_ad.unpack_dual(t).tangent is not None


def weighted_sum(z: Tensor, fs: Sequence[Tensor], weights: Sequence[float], factor: Tensor | None = None) -> Tensor:
    """``factor (z + sum_i weights_i fs_i)`` in one pass over memory, for up to four ``fs`` and a real factor."""
    if z.shape == fs[0].shape and plain(z, *fs, factor):
        from sciml.equation.qg_loops import add_up

        return add_up(z, fs, weights, factor)
    for f, weight in zip(fs, weights, strict=True):
        z = torch.add(z, f, alpha=weight)
    return z if factor is None else z * factor
