"""Time of a step of the two-layer model beside pyqg 0.7.2, in turns on the same cores, and beside its own transforms.

    python bench/qg_speed.py [--sizes 64 128 256 512 1024] [--repeats 21] [--threads 1]

Both codes step the eddy set-up with AB3. pyqg's scheme (aliased products, filter) is timed in both; ``exact`` is sciml
with 2/3 dealiasing. The transforms alone are the 2n inverse and 3n - 1 forward transforms (aliased: 3n and 2n) that
one evaluation of the advection cannot avoid, by the same library: FFTW's measured plans (torch on a GPU). Medians over
repeats; run it with nothing else running. --device cuda times batches there, and pyqg on a core of the same machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pyfftw
import torch
from peer import Peer

import sciml as sm

DTYPES = {"float64": torch.float64, "float32": torch.float32}


def timed(work, steps: int, device: str) -> float:
    """Seconds a step."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        work()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / steps


class Ours:
    """A model in its statistically steady scale of motion, stepped in place."""

    def __init__(self, nx: int, dtype: str, exact: bool, members: int | None = None, device: str = "cpu"):
        eq = sm.TwoLayerQG.preset("eddy", nx, dtype=DTYPES[dtype], dealias=2 / 3 if exact else 1.0, device=device)
        self.eq, self.members = eq, members or 1
        self.one = sm.ab3(eq, time_step(nx))
        self.state = self.one.init(sm.random_pv(eq, seed=0, members=members, speed=0.02))
        for _ in range(4):
            self.step()
        inputs, outputs = (2 * eq.n, 3 * eq.n - 1) if exact else (3 * eq.n, 2 * eq.n)
        alone = on_gpu if device == "cuda" else with_fftw
        self.transforms = alone(eq.grid, self.members * inputs, self.members * outputs)

    def step(self) -> None:
        self.state = self.one(self.state)


def on_gpu(grid: sm.Grid, inputs: int, outputs: int) -> Callable[[], None]:
    """Real transforms of all fields, by torch."""
    ny, nx = grid.product_shape
    spectra = torch.randn(inputs, grid.modes[0], ny, dtype=grid.cdtype, device=grid.device)
    products = torch.randn(outputs, ny, nx, dtype=grid.dtype, device=grid.device)

    def transforms() -> None:
        torch.fft.irfft(torch.fft.ifft(spectra, norm="forward").mT, n=nx, norm="forward")
        torch.fft.fft(torch.fft.rfft(products, norm="forward")[..., : grid.modes[0]].mT, norm="forward")

    return transforms


def with_fftw(grid: sm.Grid, inputs: int, outputs: int) -> Callable[[], None]:
    """Real transforms of all fields, by FFTW."""
    there, back = plans(grid)

    def transforms() -> None:
        for _ in range(inputs):
            there.execute()
        for _ in range(outputs):
            back.execute()

    return transforms


@cache
def plans(grid: sm.Grid) -> tuple[pyfftw.FFTW, pyfftw.FFTW]:
    """FFTW's measured plans of one field's transforms, from spectrum to points and back."""
    ny, nx = grid.product_shape
    points = pyfftw.zeros_aligned((ny, nx), dtype=str(grid.dtype).split(".")[1])
    spectrum = pyfftw.zeros_aligned((ny, nx // 2 + 1), dtype=str(grid.cdtype).split(".")[1])
    options = {"axes": (0, 1), "flags": ("FFTW_MEASURE", "FFTW_DESTROY_INPUT")}
    there = pyfftw.FFTW(spectrum, points, direction="FFTW_BACKWARD", **options)
    return there, pyfftw.FFTW(points, spectrum, direction="FFTW_FORWARD", **options)


def time_step(nx: int) -> float:
    return 7200.0 * min(1.0, 64 / nx)


def steps_for(nx: int, members: int = 1) -> int:
    """Enough for about a fortieth of a second: many short turns keep the machine's own pauses out of the medians."""
    return max(2, int(6e5 / (nx * nx * members)))


def measure(nx: int, repeats: int, threads: list[int], members: int | None, device: str, peer: Peer) -> list[dict]:
    """All variants at one size in turns; rows of medians in microseconds a member and step."""
    variants = {
        (precision, exact, n): Ours(nx, precision, exact, members, device)
        for precision in DTYPES
        for exact in (False, True)
        for n in threads
    }
    steps = steps_for(nx, members or 1)
    samples: dict = {}
    peer(do="build", nx=nx, dt=time_step(nx))
    for _ in range(repeats):
        seconds = peer(do="time", steps=steps_for(nx))["seconds"] / steps_for(nx)
        samples.setdefault("pyqg", []).append(seconds)
        for key, model in variants.items():
            torch.set_num_threads(key[2])
            samples.setdefault((key, "step"), []).append(timed(model.step, steps, device) / model.members)
            samples.setdefault((key, "fft"), []).append(timed(model.transforms, steps, device) / model.members)
    median = {key: 1e6 * statistics.median(values) for key, values in samples.items()}
    rows = []
    for precision, exact, n in variants:
        key = (precision, exact, n)
        step, fft = median[key, "step"], median[key, "fft"]
        row = {
            "nx": nx,
            "members": members or 1,
            "threads": n,
            "precision": precision,
            "products": "exact" if exact else "aliased",
        }
        row |= {"step": step, "transforms": fft, "step/transforms": step / fft}
        row |= {"pyqg": median["pyqg"], "pyqg/step": median["pyqg"] / step}
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--members", type=int, default=32, help="size of the ensemble that is timed at 64^2")
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=None, help="also write the rows as JSON")
    o = parser.parse_args()
    torch.set_grad_enabled(False)
    peer = Peer("pyqg")
    rows = []
    header = [
        "nx",
        "members",
        "threads",
        "precision",
        "products",
        "step",
        "transforms",
        "step/transforms",
        "pyqg",
        "pyqg/step",
    ]
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    jobs = [(nx, None if o.device == "cpu" else o.members) for nx in o.sizes] + [(64, o.members)]
    for nx, members in jobs:
        for row in measure(nx, o.repeats, o.threads, members, o.device, peer):
            cells = (f"{row[h]:.3g}" if isinstance(row.get(h), float) else str(row.get(h, "")) for h in header)
            print("| " + " | ".join(cells) + " |", flush=True)
            rows.append(row)
    peer.close()
    if o.out is not None:
        o.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
