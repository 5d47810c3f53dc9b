"""A small recorded run for tests, interrupted where one likes, and child processes to kill."""

import multiprocessing
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import xarray as xr

import sciml as sm
from sciml import data, files, record
from sciml.data import APPENDERS, SUFFIX
from sciml.equation.forcing import ring_forcing
from sciml.rollout import Trajectory

CHILDREN = multiprocessing.get_context("forkserver")  # forks from a process that has made these imports only
CHILDREN.set_forkserver_preload(["torch", "xarray", "netCDF4", "zarr", "tyro", "cmocean", "sciml.plot"])
SPINUP, EVERY = 4, 2


def equation(noise: bool = False, dealias: float = 1.0, dtype=torch.float64, nx: int = 10, ny: int = 9):
    eq = sm.preset("eddy", nx, ny, dealias=dealias, dtype=dtype)
    return replace(eq, noise=ring_forcing(eq, 1e-9, 4e-5, 2e-5)) if noise else eq


def simulate(folder: Path, eq, form="netcdf", stepper="ab3", n=10, resume=False, stop=("", 0), spinup=SPINUP,
             members=None, identity=None):  # fmt: skip
    """Record a run; a KeyboardInterrupt comes with the ``stop[1]``-th call of ``step``, ``fields`` or ``values``."""
    calls = {"step": 0, "fields": 0, "values": 0}

    def counted(name, f, *args):
        calls[name] += 1
        if stop == (name, calls[name]):
            raise KeyboardInterrupt
        return f(*args)

    def fields(state):
        return sm.to_dataset(Trajectory(torch.tensor([state.time]), eq.read(state.z)[None], state), eq)

    step = sm.STEPPERS[stepper](eq, 7200.0)
    step = replace(step, advance=partial(counted, "step", step.advance))
    return record.record(
        step, lambda: step.init(sm.random_pv(eq, seed=3, members=members), seed=5), n, EVERY, spinup,
        fields=partial(counted, "fields", fields),
        values=lambda state: counted("values", sm.spectra.diagnostics, eq, state.z, step.dt),
        appender=partial(APPENDERS[form], folder / f"fields{SUFFIX[form]}"),
        restart=folder / "fields.restart.safetensors", identity=identity or {"stepper": stepper}, resume=resume,
    )  # fmt: skip


def child(work, *args, kill_after: float | None = None) -> int | None:
    """Exit code of ``work(*args)`` in a child process, negative where a signal ended it."""
    process = CHILDREN.Process(target=work, args=args)
    process.start()
    process.join(kill_after)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def killed(folder: Path, form: str, place: str, count: int, resume: bool) -> None:
    """A run that dies at the ``count``-th time it comes to a place: in a record, before it is counted, in a restart."""
    torch.set_num_threads(1)
    record.RESTART_SECONDS = 0.0
    times = iter(range(1, 1000))
    rename, names, append = os.replace, data.varying, APPENDERS[form].append

    def variables(ds: xr.Dataset):
        yield from names(ds)[:1] if place == "in a record" else names(ds)
        die()

    def appending(self, ds: xr.Dataset):
        if next(times) == count:
            data.varying = variables
        append(self, ds)

    def renaming(a, b):
        if "restart" in str(b) and next(times) == count:
            die()
        rename(a, b)

    if place == "in a restart":
        files.os.replace = renaming
    else:
        APPENDERS[form].append = appending
    simulate(folder, equation(), form, resume=resume, spinup=0)
