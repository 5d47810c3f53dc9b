"""Files that only whole ones replace, refusals of damaged ones, and tensors with a header (restarts, weights)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``: it takes its place if the block ends well, and vanishes if it does not.

    Raises ``FileNotFoundError`` where the folder is not there.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: there is no folder {path.parent}; make it first")
    partial = path.with_name(f".partial.{os.getpid()}.{path.name}")  # several processes may write the same
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """What readers raise on damaged files, as a ``ValueError`` that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{path} is missing, or part of it") from None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise ValueError(f"{path} is damaged, or not a file of this package ({error}); make it again") from None


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header as safetensors; an existing file is replaced only by a complete one."""
    from safetensors.torch import save_file

    pairs = {n: torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for n, t in tensors.items()}
    flat = {n: t.detach().cpu().contiguous().clone() for n, t in pairs.items()}  # the format has no complex numbers
    header = {**header, "names": list(tensors), "complex": [n for n, t in tensors.items() if t.is_complex()]}
    header["digest"] = digest(flat)
    with replacing(path) as partial:
        save_file(flat, partial, {"header": json.dumps(header)})


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Of names, kinds, shapes and bits: two files of one digest hold the same numbers."""
    found = hashlib.blake2b(digest_size=16)
    for name, t in tensors.items():
        found.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
        found.update(t.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def load_tensors(path: Path, finite: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_tensors` wrote; raises ``ValueError`` for a damaged or truncated file, one bit of it
    included, and, where they must be ``finite``, for numbers that are not."""
    from safetensors import SafetensorError, safe_open

    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder, not a file")
    with refusing(path):
        try:
            with safe_open(path, "pt") as file:
                header = json.loads(file.metadata()["header"])
                tensors = {n: file.get_tensor(n).clone() for n in header["names"]}  # the file sorts by name
        except SafetensorError as error:
            raise ValueError(error) from None
        if header.get("digest", own := digest(tensors)) != own:
            raise ValueError("its numbers are not those that were written")
        if finite and (bad := [n for n, t in tensors.items() if not bool(torch.isfinite(t).all())]):
            raise ValueError(f"numbers of {bad[0]} are not finite")
        return tensors | {n: torch.view_as_complex(tensors[n]) for n in header["complex"]}, header
