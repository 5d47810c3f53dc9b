"""Fixtures of the tests that run cases: short finished runs, calls in this process, refusals."""

import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

from sciml.files import replacing
from tests import ROOT

FOLDER = ROOT / "cases"
CASES = sorted(p.stem for p in FOLDER.glob("*.py") if p.read_text().endswith("    main(run, Options)\n"))
SHORT = {
    "closed_loop": "--learn 7 --test 6 --members 4 --no-neural",
    "qg_two_layer": "--nx 16 --dt 14400 --spinup-days 20 --days 60",
    "qg_assimilate": "--method letkf --days 10 --members 6",
    "qg_fuxi_da": "--days 10 --methods oi --responses 1 --members 4",
    "lorenz96": "--cycles 20 --only 63",
    "altimetry_map": "--nx 24 --points 12 --days 4",
    "medida_ks": "--nx 96 --samples 8 --case 1 --sweep 1",
    "medida_qg": "--nx 16 --samples 4 --leads 1 --spin-up 0.3",
    "mgno_qg": "--train --nx 16 --fine 32 --days 40 --updates 4 --batch 4",
    "mgno_darcy": "--points 16 --samples 16 --updates 4 --batch 4",
    "insr_advection": "--width 6 --iterations 40 --end 1",
    "insr_taylor_green": "--width 6 --depth 2 --iterations 40 --end 1 --epsilon 1e-6",
    "insr_burgers": "--width 6 --iterations 20 --end 0.2 --nu 0.02",
    "insr_allen_cahn": "--width 6 --iterations 30 --end 0.4",
    "insr_qg": "--width 6 --depth 2 --iterations 20 --days 1",
    "insr_turbulence": "--width 6 --depth 2 --iterations 20 --end 0.1",
    "insr_teng": "--problem burgers --width 6 --depth 2 --iterations 20 --end 0.5",
    "insr_elastic": "--width 6 --steps 2",
    "prose_ode": "--train --families thomas --equations 8 --conditions 2 --updates 3 --batch 4 --windows 2 --beams 1",
    "prose_own": "--system sprott_b --points 80",
    "insr_sphere": "--width 4 --iterations 30 --days 0.2",
    "prose_pde": "--train --families heat advection --equations 10 --conditions 2 --updates 20 --batch 8 --lr 3e-3 "
    "--tested 1 --states 1",
    "prose_qg": "--members 2 --no-library --draws 4",
}
NEURAL = "fields.nc state.safetensors error.png fields.png summary.json"
PROMISED = {
    "closed_loop": "found.json analysis.nc climate.nc loop.png summary.json",
    "qg_two_layer": "fields.nc diagnostics.nc pv.png spectra.png budget.png energy.png summary.json",
    "qg_assimilate": "analysis.nc departures.nc maps.png error.png forecast.png error_spectra.png ranks.png "
    "summary.json",
    "qg_fuxi_da": "ASSI CORR CTRL oi costs.png forecast.png spectra.png responses.png responses.json summary.json",
    "lorenz96": "table.nc errors.png summary.json",
    "medida_ks": "discovery_1.json table.nc coefficients.png path.png error.png summary.json",
    "medida_qg": "discovery.json increments.nc increments.png coefficients.png path.png forecast.png summary.json",
    **{name: NEURAL for name in CASES if name.startswith("insr_")},
    "mgno_qg": "skill.nc climate.nc skill.png spectra.png maps.png energy.png mgno.safetensors mgno.csv mgno.png "
    "unet.safetensors summary.json",
    "mgno_darcy": "scores.nc error.png fields.png mgno.safetensors mgno.csv mgno.png summary.json",
    "prose_ode": "table.nc errors.png trajectories.png sweeps.png model.safetensors training.csv summary.json",
    "prose_pde": "table.nc errors.png fields.png sweeps.png training.csv model.safetensors summary.json",
    "prose_qg": "table.nc errors.png maps.png terms.png summary.json",
    "prose_own": "equations.json fit.nc fit.png summary.json",
    "satellite_file": "synthetic_swath.nc observations.nc values.png flags.png summary.json",
    "altimetry_map": "map.nc departures.nc tracks.png map.png along_track.png summary.json",
}
QG = SHORT["qg_two_layer"].split()
BLOWING_UP = [
    "--preset",
    "quick",
    "--config",
    "phillips",
    "--nx",
    "32",
    "--dt",
    "6e4",
    "--spinup-days",
    "0",
    "--days",
    "400",
    "--every-days",
    "2",
]


@pytest.fixture(autouse=True)
def _cases_are_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def qg():
    return import_module("qg_two_layer")


class Ended(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def call(monkeypatch, capfd):
    """Run a case in this process as if from the command line."""

    def run(*args, case="qg_two_layer") -> Ended:
        monkeypatch.setattr(sys, "argv", [f"{case}.py", *map(str, args)])
        module, status = import_module(case), 0
        capfd.readouterr()
        try:
            module.main(module.run, module.Options)
        except SystemExit as end:
            status = end.code or 0
        return Ended(status, *capfd.readouterr())

    return run


def refused(ended: Ended, message: str) -> None:
    assert ended.status == 2
    assert re.fullmatch(r"error: .+\n", ended.err), "one line"
    assert re.search(message, ended.err)
    assert ended.out == ""


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id):
    """Folder and output of a short run of every case, each made once from the command line, by whichever of the
    processes that run tests asks for it first."""
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "finished"
    shared.mkdir(exist_ok=True)

    def run(case: str) -> tuple[Path, str]:
        out, printed = shared / case, shared / f"{case}.txt"
        try:
            (shared / f"{case}.claimed").touch(exist_ok=False)
        except FileExistsError:
            while not printed.exists():
                if (shared / f"{case}.failed").exists():
                    pytest.fail(f"the short run of {case} failed in the test that asked for it first")
                time.sleep(0.1)
            return out, printed.read_text()
        line = [sys.executable, f"cases/{case}.py", "--preset", "quick", *SHORT.get(case, "").split(), "--out", out]
        try:
            ended = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=300)
            assert (ended.returncode, ended.stderr) == (0, ""), "quiet where no terminal reads"
        except BaseException:
            (shared / f"{case}.failed").touch()
            raise
        with replacing(printed) as partial:
            partial.write_text(ended.stdout)
        return out, ended.stdout

    return run


@pytest.fixture
def earlier(finished, tmp_path) -> Path:
    """A copy of a finished run, to do harm to."""
    return shutil.copytree(finished("qg_two_layer")[0], tmp_path / "run")


@pytest.fixture
def undrawn(monkeypatch):
    """Runs without pictures, where these are not the point."""
    monkeypatch.setattr(qg(), "pictures", lambda *args: None)


def options(**changes):
    short = dict(preset="quick", nx=16, dt=14400.0, spinup_days=10.0, days=20.0)
    return replace(qg().Options(), **(short | changes))


def stopping(f, count: int):
    """``f``, interrupted at its ``count``-th call."""
    left = iter(range(count))

    def wrapped(*args, **kwargs):
        if next(left) == count - 1:
            raise KeyboardInterrupt
        return f(*args, **kwargs)

    return wrapped
