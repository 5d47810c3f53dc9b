"""What every case script shares: common options, one-line errors, output folders, summaries."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
import xarray

import sciml
from sciml.files import replacing


@dataclass(frozen=True)
class Common:
    """Options of every case."""

    preset: Literal["quick", "default", "full"] = "default"
    """How long the run is: quick (seconds), default (minutes), full (the paper's scale)."""
    out: Path | None = None
    """Folder for results (default: runs/ and the case's name)."""
    seed: int = 0
    """Seed of all randomness; the same seed gives the same bits on the same machine."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""


class Refused(Exception):
    """A request that cannot be met; its text is all that the user is shown."""


def main(run: Callable[[Any], None], options: type) -> None:
    """Parse the command line into ``options``, call ``run``; bad input ends with one line and exit status 2."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    chosen = tyro.cli(options, description=sys.modules[run.__module__].__doc__)
    try:
        if not 0 <= chosen.seed < 2**31:
            raise Refused(f"--seed must be a whole number from 0 to 2147483647, got {chosen.seed}")
        run(chosen)
    except (Refused, ValueError, OSError, FloatingPointError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "alloc" not in str(error) and "memory" not in str(error):
            raise
        print("error: there is not enough memory for this; use fewer points or members", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        further = ", go on with --resume" if hasattr(chosen, "resume") else ""
        print(f"interrupted; what was written is kept{further}", file=sys.stderr)
        sys.exit(130)


def within(options: Any, **bounds: tuple[float, float]) -> None:
    """Refuse numbers outside their bounds, and those that are none; options that were not given pass."""
    for name, (low, high) in bounds.items():
        given = getattr(options, name)
        if given is not None and not (low <= given <= high and given < math.inf):
            allowed = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise Refused(f"--{name.replace('_', '-')} must be {allowed}, got {given}")


def device(name: str) -> str:
    """``auto`` means CUDA where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise Refused("--device cuda: no CUDA device is available here; use --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def folder(path: Path) -> Path:
    """Make the folder and prove that it can be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise Refused(f"cannot write to --out {path}: {error.strerror or error}") from None
    return path


def earlier(path: Path, products: Iterable[str]) -> list[Path]:
    """What a folder holds already of a run's products, given as patterns."""
    return sorted(found for pattern in products for found in path.glob(pattern))


def refuse_unfinished(path: Path, products: Iterable[str], options: Any) -> None:
    """A run that was interrupted is continued or given up, but not by accident; its summary is missing."""
    if options.resume and options.overwrite:
        raise Refused("--resume and --overwrite exclude each other")
    found = {p.name for p in earlier(path, products)}
    if found and "summary.json" not in found and not (options.resume or options.overwrite):
        raise Refused(f"{path} holds a run that was not finished; continue it with --resume, or start again with "
                      "--overwrite")  # fmt: skip


def make_room(path: Path, products: Iterable[str], options: Any) -> None:
    """Set an earlier run aside, in a folder within its own; with ``--overwrite`` remove it."""
    found = earlier(path, products)
    if options.overwrite:
        for p in found:
            shutil.rmtree(p) if p.is_dir() else p.unlink()
    elif found:
        aside = next(p for i in count(1) if not (p := path / f"earlier-{i}").exists())
        aside.mkdir()
        for p in found:
            p.rename(aside / p.name)
        print(f"the earlier run in {path} is kept in {aside}")


def write_summary(path: Path, options: Any, numbers: dict[str, Any], started: float) -> None:
    """``summary.json``: headline numbers, options, versions, wall time."""
    chosen = asdict(options)
    summary = {
        "results": finite(numbers),
        "options": finite({n: str(v) if isinstance(v, Path) else v for n, v in chosen.items()}),
        "versions": {
            "sciml": sciml.__version__,
            "torch": torch.__version__,
            "xarray": xarray.__version__,
            "python": platform.python_version(),
        },
        "threads": torch.get_num_threads(),
        "wall_seconds": round(time.monotonic() - started, 2),
    }
    with replacing(path) as partial:
        partial.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")


def finite(numbers: Any) -> Any:
    """With null for what is not finite, which JSON cannot say."""
    if isinstance(numbers, dict):
        return {n: finite(v) for n, v in numbers.items()}
    if isinstance(numbers, list | tuple):
        return [finite(v) for v in numbers]
    return None if isinstance(numbers, float) and not math.isfinite(numbers) else numbers
