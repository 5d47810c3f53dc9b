"""The engine under every case script: options and their bounds, one-line errors, output folders, summaries.

A case is a docstring, options, and ``run(options, folder) -> results``; ``main(run, Options)`` does the rest.
"""

from __future__ import annotations

import io
import json
import math
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass, fields
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import torch
import tyro
import xarray

import sciml
from sciml.files import replacing
from sciml.train import share


class Refused(Exception):
    """A request that cannot be met; its text is all that the user is shown."""


# -- options ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Range:
    """Bounds of an option, in its annotation: ``members: Annotated[int, Range(2)] = 40``; numbers are finite."""

    low: float
    high: float = math.inf
    open: bool = False
    """whether ``low`` itself is left out"""

    def admits(self, x: float) -> bool:
        return (self.low < x or (self.low == x and not self.open)) and x <= self.high and math.isfinite(x)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'above' if self.open else 'at least'} {self.low:g}"
        return f"above {self.low:g} and at most {self.high:g}" if self.open else f"from {self.low:g} to {self.high:g}"


Count = Annotated[int, Range(1)]
Positive = Annotated[float, Range(0, open=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class Common:
    """Options of every case."""

    preset: Literal["quick", "default", "full"] = "default"
    """How long the run is: quick (seconds), default (minutes), full (the paper's scale)."""
    out: Path | None = None
    """Folder for results (default: runs/ and the case's name)."""
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    """Seed of all randomness; the same seed gives the same bits on the same machine."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    overwrite: bool = False
    """When the run has ended, remove an earlier one in its folder, which otherwise is kept in earlier-1 inside."""

    @property
    def name(self) -> str:
        """Of the default folder, in runs/: that of the script."""
        return Path(str(sys.modules[type(self).__module__].__file__)).stem


def ranges(hint: Any) -> list[Range]:
    """In an annotation."""
    own = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Range)]
    return own + [r for part in get_args(hint) for r in ranges(part)]


def check(options: Any) -> None:
    """Refuse numbers outside their bounds, and those that are none; options that were not given pass. Options that
    exclude each other."""
    if getattr(options, "resume", False) and options.overwrite:
        raise Refused("--resume and --overwrite exclude each other")
    for name, hint in get_type_hints(type(options), include_extras=True).items():
        given = getattr(options, name)
        for x in given if isinstance(given, tuple) else (given,):
            if bad := [] if x is None else [r for r in ranges(hint) if not r.admits(x)]:
                raise Refused(f"--{name.replace('_', '-')} must be {bad[0]}, got {x}")


def goes_with(options: Any, given: bool, switch: str, *names: str) -> None:
    """Refuse options that nothing reads unless ``switch`` is given."""
    usual = {f.name: f.default for f in fields(options)}
    if unread := [n for n in names if not given and getattr(options, n) != usual[n]]:
        raise Refused(f"--{unread[0].replace('_', '-')} goes with {switch}")


def asked(options: Any, preset: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a preset, replaced by the options of the same name that were given."""
    return {n: v if (given := getattr(options, n, None)) is None else given for n, v in preset.items()}


# -- a run -----------------------------------------------------------------------------------------------------------
def main(run: Callable[[Any, Path], dict[str, Any]], options: type) -> None:
    """Parse the command line into ``options``, check them, call ``run``, write what it returns as ``summary.json``.

    Bad input ends with one line and exit status 2, and leaves no empty folder.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if share()[0] > 0:  # of several processes that torchrun started, the first one speaks
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    chosen, started = parsed(options, sys.modules[run.__module__].__doc__), time.monotonic()
    try:
        check(chosen)
        with output(chosen.out or Path("runs") / chosen.name) as out:
            write_summary(out / "summary.json", chosen, run(chosen, out), started)
        settle(chosen.overwrite, done=True)
        print(f"results in {out}")
    except (Refused, ValueError, OSError, FloatingPointError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except BrokenProcessPool:
        print("error: a process ended at once, for want of memory perhaps; use fewer --workers", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "alloc" not in str(error) and "memory" not in str(error):
            raise
        print("error: there is not enough memory for this; use fewer points, members or samples, or a smaller batch",
              file=sys.stderr)  # fmt: skip
        sys.exit(2)
    except KeyboardInterrupt:
        further = ", go on with --resume" if can_resume(chosen) else ""
        print(f"interrupted; what was written is kept{further}", file=sys.stderr)
        sys.exit(130)
    finally:
        settle(overwrite=False, done=False)


def parsed(options: type, about: str | None) -> Any:
    """The command line; what is wrong with it in one line, as any other error."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(options, description=about)
    except SystemExit as ended:
        if ended.code:
            lines = [line.strip(" │╭╮╰╯─-") for line in said.getvalue().splitlines()]
            print(f"error: {shortened(' '.join(filter(None, lines[1:])))}", file=sys.stderr)
        raise


def shortened(text: str) -> str:
    """What a user needs of tyro's explanations."""
    if word := re.search(r"[Ee]rror parsing (--[\w-]+):.*?(?:from|got) \['([^']*)'\]", text):
        return f"{word[1]} does not take {word[2]!r}; see --help"
    return re.sub(r"\s*For full helptext.*$", "", text)


@contextmanager
def output(path: Path) -> Iterator[Path]:
    """A folder to write to; one that was made for a run that left nothing in it is removed again."""
    made = not path.exists()
    try:
        yield folder(path)
    finally:
        if made and path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def device(name: str) -> str:
    """``auto`` means CUDA where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise Refused("--device cuda: no CUDA device is available here; use --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def folder(path: Path, option: str = "--out") -> Path:
    """Make the folder that an option names, and prove that it can be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise Refused(f"cannot write to {option} {path}: {error.strerror or error}") from None
    return path


def earlier(path: Path, products: Iterable[str]) -> list[Path]:
    """What a folder holds already of a run's products, given as patterns."""
    return sorted({found for pattern in products for found in path.glob(pattern)})


def can_resume(options: Any) -> bool:
    """Whether a run with these options can be continued."""
    return hasattr(options, "resume") and getattr(options, "train", True)


def read_by(options: Any) -> set[Path]:
    """Files that options name."""
    given = [v for n, value in vars(options).items() for v in (value if isinstance(value, tuple) else (value,))
             if isinstance(v, Path) or n == "file"]  # fmt: skip
    return {Path(v).resolve() for v in given}


SET_ASIDE: list[tuple[Path, Path]] = []
"""Folders of earlier runs that were set aside, and where they lay, until the new run has ended"""


def make_room(path: Path, products: Iterable[str], options: Any) -> None:
    """Set an earlier run aside, in a folder within its own; ``--resume`` leaves it.

    A case calls this when its options are checked and nothing is written. A run that can be continued is not given up
    by accident: without a summary it was interrupted, and is refused unless an option says what to do. When the new run
    has ended, :func:`settle` says where the earlier one is, removes it with ``--overwrite``, or puts it back.
    """
    if getattr(options, "resume", False):
        return
    found = earlier(path, products) if share()[0] == 0 else []  # the others may see what the first one writes already
    if both := [p for p in found if p.resolve() in read_by(options)]:
        raise Refused(f"{both[0]} would be read and written by this run; choose another --out")
    if found and share()[1] > 1:
        raise Refused(f"{path} holds an earlier run; give several processes a folder without one, or --resume")
    if found and can_resume(options) and not (path / "summary.json").exists() and not options.overwrite:
        raise Refused(f"{path} holds a run that was not finished; continue it with --resume, or start again with "
                      "--overwrite")  # fmt: skip
    if found:
        aside = next(p for i in count(1) if not (p := path / f"earlier-{i}").exists())
        SET_ASIDE.append((aside, path))
        for p in found:
            move(p, aside / p.relative_to(path))


def move(p: Path, to: Path) -> None:
    """With the folders that it needs, and without those that it leaves empty."""
    to.parent.mkdir(parents=True, exist_ok=True)
    p.rename(to)
    while not any((p := p.parent).iterdir()):
        p.rmdir()


def settle(overwrite: bool, done: bool) -> None:
    """Remove or name the runs that were set aside; put back those in whose place nothing was written."""
    while SET_ASIDE:
        aside, path = SET_ASIDE.pop()
        held = [p.relative_to(aside) for p in sorted(aside.rglob("*")) if not p.is_dir()]
        if done and overwrite:
            shutil.rmtree(aside)
        elif not done and not any((path / p).exists() for p in held):
            for p in held:
                move(aside / p, path / p)
        else:
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
