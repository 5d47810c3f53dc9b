"""What cases share that read satellite files: which readers there are, and what each can be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr
from common import Refused

from sciml import readers
from sciml.foreign import once
from sciml.observations import concatenate

OWN_CHANNELS = ("ghrsst_l2p", "jason_gdr")
"""Readers that no variable can be named for"""


def read(
    files: Sequence[Path], reader: str, variable: str | None, sigma: float | None, *, quality: int = 4, every: int = 1,
    units: str | None = None,
) -> xr.Dataset:  # fmt: skip
    """All observations of the files, each once, flagged; ``units`` are those wanted of a CF file."""
    if reader in OWN_CHANNELS and variable is not None:
        raise Refused(f"--reader {reader} has channels of its own; leave --variable out, or use --reader cf")
    if reader == "cf" and (variable is None or sigma is None):
        raise Refused("--reader cf needs --variable and --sigma")
    once(files)
    named = {} if variable is None else {"variable": variable}
    how: dict[str, Callable[..., xr.Dataset]] = {
        "ghrsst_l2p": partial(readers.ghrsst_l2p, quality=quality),
        "jason_gdr": partial(readers.jason_gdr, limits=readers.JASON_LIMITS),
        "duacs_l3": partial(readers.duacs_l3, **named),
        "duacs_l4": partial(readers.duacs_l4, every=every, **named),
        "cf": partial(readers.cf, variable=variable or "", sigma=sigma or 0.0, units=units),
    }
    return concatenate([how[reader](f) for f in files])


def with_sigma(obs: xr.Dataset, sigma: float | None) -> xr.Dataset:
    """With one standard deviation of the error of all, if it is given."""
    if sigma is None:
        return obs
    return obs.assign(sigma=("obs", np.full(obs.sizes["obs"], sigma), obs["sigma"].attrs))
