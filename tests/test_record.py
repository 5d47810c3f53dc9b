"""Runs on disk: interrupted, killed, resumed, extended; the files are the same bit for bit."""

import os
import signal

import pytest
import torch

from sciml.data import open_run
from sciml.record import Means
from sciml.rollout import BlowUp
from tests.runs import EVERY, SPINUP, child, equation, killed, simulate
from tests.test_data import contents

FORMATS = pytest.mark.parametrize("form", ["netcdf", "zarr"])


def fields(folder):
    return {n: h for n, h in contents(folder).items() if "restart" not in n}


def identical(a, b) -> bool:
    """Means and last states are the same bit for bit, names in the same order."""
    (means, state), (others, other) = a, b
    groups = [(getattr(means, g), getattr(others, g)) for g in ("total", "first", "last")]
    values = all(list(x) == list(y) and all(torch.equal(x[n], y[n]) for n in x) for x, y in groups)
    memory = len(state.memory) == len(other.memory) and all(map(torch.equal, state.memory, other.memory))
    noise = (state.rng is None) == (other.rng is None) and (state.rng is None or torch.equal(state.rng, other.rng))
    return (
        values
        and memory
        and noise
        and means.n == others.n
        and state.time == other.time
        and torch.equal(state.z, other.z)
    )


# -- an uninterrupted run ----------------------------------------------------------------------------------------------
@FORMATS
def test_records_and_means(tmp_path, form):
    eq = equation()
    means, state = simulate(tmp_path, eq, form)
    with open_run(tmp_path) as ds:
        assert ds["time"].values.tolist() == [7200.0 * i for i in range(SPINUP, 15, EVERY)]
        assert torch.equal(torch.as_tensor(ds["q"].values[-1]), eq.read(state.z))
        energy = 0.5 * (ds["u"] ** 2 + ds["v"] ** 2).mean(("y", "x"))
        assert means.n == 6
        assert torch.allclose(means.mean()["EKE"], torch.as_tensor(energy.mean("time").values), rtol=1e-12)
        assert torch.allclose(means.first["EKE"], torch.as_tensor(energy.values[0]), rtol=1e-12)
        assert torch.allclose(means.last["EKE"], torch.as_tensor(energy.values[-1]), rtol=1e-12)
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_means():
    means = Means().plus({"a": torch.tensor(1.0)}).plus({"a": torch.tensor(2.0)}).plus({"a": torch.tensor(6.0)})
    assert (means.n, means.mean(), means.first, means.last) == (3, {"a": 3.0}, {"a": 1.0}, {"a": 6.0})


# -- interrupted and resumed -------------------------------------------------------------------------------------------
MODELS = {
    "ab3": {},
    "ab3, dealiased": {"dealias": 2 / 3},
    "ab3, padded, single precision": {"dealias": 1.5, "dtype": torch.float32},
    "ab3, noise": {"noise": True},
    "ab3, noise, members": {"noise": True, "members": 2},
    "imex": {},
    "rk4": {},
    "etdrk4": {"dealias": 2 / 3},
}


@FORMATS
@pytest.mark.parametrize("name", MODELS)
def test_interrupted_twice_and_resumed(tmp_path, name, form):
    """Once in the start-up of the multi-step methods, once when all memory is there."""
    options = dict(MODELS[name])
    how = dict(form=form, stepper=name.split(",")[0], members=options.pop("members", None))
    eq = equation(**options)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = simulate(tmp_path / "a", eq, **how)
    for resume, count in ((False, 4), (True, 7)):
        with pytest.raises(KeyboardInterrupt):
            simulate(tmp_path / "b", eq, **how, resume=resume, stop=("step", count))
    assert identical(simulate(tmp_path / "b", eq, **how, resume=True), whole)
    assert contents(tmp_path / "a") == contents(tmp_path / "b"), "the restart files as well"


MOMENTS = [
    *(("netcdf", SPINUP, (what, count)) for what, count in (("fields", 4), ("values", 4), ("values", 6), ("step", 14))),
    *(("netcdf", 0, (what, count)) for what, count in (("fields", 2), ("fields", 7), ("values", 1), ("step", 1))),
    *(("zarr", 0, (what, count)) for what, count in (("fields", 2), ("values", 4), ("step", 14))),
]


@pytest.mark.parametrize(("form", "spinup", "moment"), MOMENTS, ids=str)
def test_interrupted_at_any_moment(tmp_path, moment, spinup, form):
    eq = equation(noise=True)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    n = 14 - spinup if moment[0] == "step" else 10
    whole = simulate(tmp_path / "a", eq, form, spinup=spinup, n=n)
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "b", eq, form, spinup=spinup, n=n, stop=moment)
    assert identical(simulate(tmp_path / "b", eq, form, spinup=spinup, n=n, resume=True), whole)
    assert fields(tmp_path / "a") == fields(tmp_path / "b")


@FORMATS
def test_interrupted_before_there_is_a_file(tmp_path, form):
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path, equation(), form, stop=("fields", 1))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module", params=["netcdf", "zarr"])
def uninterrupted(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    folder.mkdir()
    return request.param, simulate(folder, equation(), request.param, spinup=0), folder


@pytest.mark.parametrize(
    ("place", "counts"), [("in a record", (1, 3)), ("before a record counts", (1, 2)), ("in a restart", (2, 4))]
)
def test_killed_and_resumed(tmp_path, place, counts, uninterrupted):
    """SIGKILL in the worst places, from the first record on; whole records stay readable, and the end is the same."""
    form, whole, folder = uninterrupted
    (tmp_path / "run").mkdir()
    with open_run(folder) as truth:
        for i, count in enumerate(counts):
            assert child(killed, tmp_path / "run", form, place, count, i > 0) == -signal.SIGKILL
            with open_run(tmp_path / "run") as ds:
                n = ds.sizes["time"]
                assert ds["q"].equals(truth["q"][:n])
        assert n > 0
    assert identical(simulate(tmp_path / "run", equation(), form, spinup=0, resume=True), whole)
    assert fields(tmp_path / "run") == fields(folder)


def test_killed_before_there_is_a_restart_file(tmp_path):
    assert child(killed, tmp_path, "netcdf", "in a restart", 1, False) == -signal.SIGKILL
    with pytest.raises(ValueError, match="nothing to resume"):
        simulate(tmp_path, equation(), resume=True)


@FORMATS
@pytest.mark.parametrize("first", [2, 6])
def test_finished_run_is_extended(tmp_path, form, first):
    eq = equation()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = simulate(tmp_path / "a", eq, form)
    simulate(tmp_path / "b", eq, form, n=first)
    assert identical(simulate(tmp_path / "b", eq, form, resume=True), whole)
    assert fields(tmp_path / "a") == fields(tmp_path / "b")
    before = contents(tmp_path / "b")
    assert identical(simulate(tmp_path / "b", eq, form, resume=True), whole), "nothing is left to do"
    assert contents(tmp_path / "b") == before


# -- refused -----------------------------------------------------------------------------------------------------------
def spoil(folder, name, keep):
    os.truncate(folder / name, int(keep * (folder / name).stat().st_size))


@pytest.mark.parametrize(
    ("spoiled", "options", "message"),
    [
        (None, {"identity": {"stepper": "rk4"}}, "another run: its stepper is ab3, this run's is rk4"),
        (None, {"identity": {"stepper": "ab3", "dt": 0.1}}, "another run: its dt is None, this run's is 0.1"),
        (None, {"identity": {"x": 1}}, "another run: its stepper is ab3, this run's is None"),
        (None, {"n": 8}, "14 steps into its run, more than the 12 asked for"),
        (lambda f: (f / "fields.restart.safetensors").unlink(), {}, "nothing to resume: there is no .*restart"),
        (lambda f: spoil(f, "fields.restart.safetensors", 0.7), {}, r"restart\.safetensors is damaged"),
        (lambda f: spoil(f, "fields.restart.safetensors", 0), {}, r"restart\.safetensors is damaged"),
        (lambda f: spoil(f, "fields.nc", 0.99), {}, r"fields\.nc is cut short: it holds 5 whole.* counts 6"),
        (lambda f: spoil(f, "fields.nc", 0.02), {}, r"fields\.nc is damaged"),
        (lambda f: (f / "fields.nc").unlink(), {}, r"fields\.nc is missing"),
    ],
)
def test_resume_refuses(tmp_path, spoiled, options, message):
    """One clear reason, and not a byte is changed."""
    eq = equation()
    simulate(tmp_path, eq)
    if spoiled:
        spoiled(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=message):
        simulate(tmp_path, eq, **{"n": 12} | options, resume=True)
    assert contents(tmp_path) == before


def test_resume_refuses_files_of_another_kind(tmp_path):
    from sciml.files import save_tensors

    save_tensors(tmp_path / "fields.restart.safetensors", {"w": torch.zeros(2)}, {"n": 1})
    with pytest.raises(ValueError, match="not a restart file: it has no done, identity, time, z"):
        simulate(tmp_path, equation(), resume=True)


@pytest.mark.parametrize("options", [{"n": 9}, {"spinup": 3}])
def test_uneven_lengths_are_refused_before_anything_is_written(tmp_path, options):
    simulate(tmp_path, equation(), n=2)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="must be a multiple of the saving interval"):
        simulate(tmp_path, equation(), **options)
    assert contents(tmp_path) == before


def test_blow_up_keeps_what_was_good(tmp_path):
    """The file ends with the last finite record, and a resumed run stops at the same place."""
    eq = equation(nx=16, ny=16).with_tendency(lambda eq, z, t: z * (torch.inf if t > 9 * 7200 else 0.0))
    with pytest.raises(BlowUp, match="stopped being finite at t = 79200"):
        simulate(tmp_path, eq)
    before = fields(tmp_path)
    with open_run(tmp_path) as ds:
        assert ds["time"].values[-1] == 72000
        assert bool(torch.isfinite(torch.as_tensor(ds["q"].values)).all())
    with pytest.raises(BlowUp):
        simulate(tmp_path, eq, resume=True)
    assert fields(tmp_path) == before
