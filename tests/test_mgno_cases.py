"""The cases of operator learning: what they refuse, weights that are used again, budgets, the published files."""

import json
import os
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
import torch
import xarray as xr

from sciml.emulation import persistence, skill
from sciml.losses import relative_l2
from sciml.operator_data import elliptic_samples, sample_seeds
from sciml.snapshots import seen, stepper
from sciml.surrogate import Learned, Scaling, Surrogate
from tests import ROOT
from tests.case_fixtures import SHORT, refused

QG = SHORT["mgno_qg"].split()
DARCY = SHORT["mgno_darcy"].split()
pytestmark = pytest.mark.usefixtures("_cases_are_importable")


@pytest.mark.parametrize(("args", "message"), [
    (["--lead-days", "0"], "from 1 to 1000"),
    (["--days", "1"], "from 2 to"),
    (["--minutes", "0"], "--minutes must be above 0"),
    (["--weights", "missing.safetensors"], "missing"),
    (["--train", "--networks", "fno", "--updates", "2"], "bench/.neuralop"),
])  # fmt: skip
def test_qg_refuses(args, message, call, tmp_path):
    base = ["--preset", "quick", "--nx", "16", "--fine", "16", "--days", "12", "--data", tmp_path / "d"]
    pytest.importorskip("torch")
    refused(call(*base, *args, "--out", tmp_path / "o", case="mgno_qg"), message)


@pytest.mark.parametrize(("args", "message"), [
    (["--points", "8"], "--points must be from 16"),
    (["--samples", "2"], "--samples must be at least --batch, got 2 and 8"),
])  # fmt: skip
def test_darcy_refuses(args, message, call, tmp_path):
    refused(call("--preset", "quick", *args, "--out", tmp_path / "o", case="mgno_darcy"), message)


def test_samples_of_another_kind_are_refused(call, tmp_path):
    """Files in the folder of the samples that have their name, but hold something else, or were cut short."""
    path = tmp_path / "darcy-rough_16_61_16_0_train.nc"
    path.write_bytes((ROOT / "data" / "qg_satellite.nc").read_bytes())
    line = ["--preset", "quick", *DARCY, "--networks", "mgno", "--data", tmp_path, "--out", tmp_path / "o"]
    refused(call(*line, case="mgno_darcy"), "train.nc holds no samples: it needs a and u, or omega")
    path.write_bytes(path.read_bytes()[:3000])
    refused(call(*line, case="mgno_darcy"), "train.nc is damaged, or not a file of this package")


def test_weights_are_used_again(finished, call, tmp_path):
    """Of the finished run: on the same truths the same skill, and no training."""
    out, _ = finished("mgno_qg")
    before = xr.open_dataset(out / "skill.nc", decode_times=False)["correlation"].sel(forecast="mgno").values
    ended = call("--preset", "quick", "--nx", 16, "--fine", 32, "--days", 40, "--out", tmp_path / "again", "--weights",
                 out / "mgno.safetensors", case="mgno_qg")  # fmt: skip
    assert (ended.status, ended.err) == (0, "")
    assert "training" not in ended.out
    after = xr.open_dataset(tmp_path / "again" / "skill.nc", decode_times=False)["correlation"].sel(forecast="mgno")
    np.testing.assert_allclose(after.values, before, rtol=1e-5)


def test_weights_say_how_they_were_made(finished):
    out, _ = finished("mgno_qg")
    about = Learned.load(out / "mgno.safetensors").about
    assert about["command"].startswith("python cases/mgno_qg.py --train")
    assert about["updates"] == 4
    assert len(about["truth"]["spectrum"]) == 2
    surrogate = Surrogate.load(out / "mgno.safetensors")
    assert (surrogate.dt, surrogate.names, surrogate.grid.shape) == (2 * 86400.0, ("q1", "q2"), (16, 16))


def test_weights_of_another_grid_are_refused(finished, call, tmp_path):
    out, _ = finished("mgno_qg")
    ended = call("--preset", "quick", "--nx", 32, "--weights", out / "mgno.safetensors", "--out", tmp_path / "o",
                 case="mgno_qg")  # fmt: skip
    refused(ended, "not of 32 points")


def test_networks_that_correct_the_coarse_model(finished, call, tmp_path):
    line = ["--preset", "quick", *QG, "--correct", "--out", tmp_path / "o"]
    ended = call(*line, case="mgno_qg")
    assert (ended.status, ended.err) == (0, "")
    about = Learned.load(tmp_path / "o" / "mgno.safetensors").about
    assert about["command"] == ("python cases/mgno_qg.py --train --networks mgno --preset quick --correct --batch 4 "
                                "--nx 16 --fine 32 --days 40 --seed 0 --updates 4")  # fmt: skip
    assert about["surrogate"]["every"] == 24  # steps of 7200 s in two days
    skill = xr.open_dataset(tmp_path / "o" / "skill.nc", decode_times=False)["nrmse"].isel(lead=1).mean("lev")
    assert float(skill.sel(forecast="mgno")) < 3 * float(skill.sel(forecast="model, 16 points"))
    used = ["--preset", "quick", "--nx", 16, "--fine", 32, "--days", 40, "--out", tmp_path / "p", "--weights"]
    refused(call(*used, tmp_path / "o" / "mgno.safetensors", case="mgno_qg"), "corrects the .* use it with --correct")
    other = finished("mgno_qg")[0] / "mgno.safetensors"
    refused(call(*used, other, "--correct", case="mgno_qg"), "corrects no .* use it without --correct")
    assert call(*used, tmp_path / "o" / "mgno.safetensors", "--correct", case="mgno_qg").status == 0


def test_runs_are_stable_until_they_grow():
    run = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    run[3] *= 100
    run[4] = torch.nan
    assert import_module("mgno_qg").sane(run).tolist() == [True, True, True, False, False, True]


def test_plans_keep_the_number_of_updates(tmp_path):
    operators = import_module("operators")
    net = torch.nn.Linear(4, 4)

    def objective(update):
        return net(torch.ones(2, 4)).square().sum()

    plan = tmp_path / "plan.json"
    first = operators.planned(plan, net, objective, 0.5, {0: 1.0})
    assert first == json.loads(plan.read_text())["updates"]
    assert operators.planned(plan, net, objective, 100.0, {0: 1.0}) == first
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("task", ["smooth", "multiscale", "helmholtz", "ns"])
def test_every_task_has_data_a_network_and_tests(task, tmp_path):
    case, points = import_module("mgno_darcy"), 16
    o = case.Options(preset="quick", task=task, points=points, data=tmp_path)
    x, y = case.pairs(case.split(o, "train", points, 2))
    assert x.shape == y.shape
    net = case.network(o, "mgno", case.TASKS[task], points)
    learned = Learned(net, Scaling.of(x), Scaling.of(y, False))
    for test in case.tests(o, points, 2):
        if test.points >= 2 ** (len(net.config.smoothings) - 1):
            assert case.predicted(learned, test, case.TASKS[task].boundary).shape == test.y[:, : test.steps].shape


def test_sets_that_are_there_are_used_with_the_grids_that_they_have(call, tmp_path):
    """As data/make_operator_data.py writes them: 33 points, which have those of grids of 17 and 9."""
    for which, n in (("train", 16), ("test", 3)):
        samples = elliptic_samples("darcy-rough", sample_seeds(5, which, 0, n), 33, 33)
        samples.to_netcdf(tmp_path / f"darcy-rough_{which}.nc")
    line = "--preset quick --samples 16 --updates 4 --batch 4 --networks mgno --data".split()
    ended = call(*line, tmp_path, "--points", 17, "--test", 3, "--out", tmp_path / "o", case="mgno_darcy")
    assert (ended.status, ended.err) == (0, "")
    assert "making" not in ended.out
    assert all(f"{n} points" in ended.out for n in (33, 9))
    out = "--out", tmp_path / "p"
    refused(call(*line, tmp_path, "--points", 17, "--test", 9, *out, case="mgno_darcy"), "holds 3 samples: .* --test")
    refused(call(*line, tmp_path, "--points", 20, *out, case="mgno_darcy"), "a grid of 20 are not among those of 33")


def test_half_as_fine_a_grid_must_have_both_walls(tmp_path):
    case = import_module("mgno_darcy")
    for points, sizes in ((17, [17, 9, 33]), (16, [16, 31])):
        assert case.resolutions(case.Options(points=points, data=tmp_path), points) == sizes
    assert case.resolutions(case.Options(task="ns", points=16, data=tmp_path), 16) == [16, 8, 32]


def test_a_training_by_the_clock_ends_in_time_and_says_so(call, tmp_path, monkeypatch):
    """As on a GPU; its weights know how many updates it had, and the command that made them."""
    case = import_module("mgno_darcy")
    monkeypatch.setattr(case, "device", lambda name: "cpu:0")
    line = "--preset quick --points 16 --samples 16 --batch 4 --networks mgno --minutes 0.04 --data".split()
    assert call(*line, tmp_path / "data", "--out", tmp_path / "o", case="mgno_darcy").status == 0
    about = Learned.load(tmp_path / "o" / "mgno.safetensors").about
    assert 5 < about["updates"] < case.CLOCKED
    assert "--points 16 --batch 4 --lr 0.003 --minutes 0.04 --device cpu:0" in about["command"]


# -- the weights that come with the package --------------------------------------------------------------------------
def test_shipped_darcy_weights_keep_their_promise():
    """0.0096 on the 100 samples of docs/results.md."""
    learned = Learned.load(ROOT / "data" / "weights" / "mgno_darcy_rough.safetensors")
    case = import_module("mgno_darcy")
    assert learned.about["command"].startswith("python cases/mgno_darcy.py --networks mgno")
    x, y = case.pairs(elliptic_samples("darcy-rough", sample_seeds(0, "test", 0, 8), 85, 169))
    with torch.no_grad():
        found = learned(x)
    assert (found[..., 0, :] == 0).all()
    assert float(relative_l2(found, y).mean()) < 0.015


def test_shipped_emulator_forecasts_a_flow_that_it_never_saw():
    """A model with 64 points; twelve days ahead, a quarter of the error of persistence."""
    emulator = Surrogate.load(ROOT / "data" / "weights" / "mgno_qg.safetensors")
    truth = torch.as_tensor(seen("eddy", 64, 64, 12, 5, years=3)["q"].values)[None, ::2]
    own, still = skill(emulator, truth), persistence(truth, emulator.dt)
    assert (own.nrmse[-1] < 0.5 * still.nrmse[-1]).all()
    assert (own.correlation[-1] > 0.9).all()


def test_shipped_correction_beats_the_model_that_it_corrects():
    """A truth with 128 points, seen with 64; the first step, and twelve days ahead."""
    step = stepper("eddy", 64, dtype=torch.float32)
    emulator = Surrogate.load(ROOT / "data" / "weights" / "mgno_qg_correct.safetensors", step)
    truth = torch.as_tensor(seen("eddy", 64, 128, 12, 5, years=3)["q"].values)[None, ::2]
    own, model = skill(emulator, truth), skill(step, truth, emulator.every)
    assert (own.nrmse[[1, -1]] < 0.7 * model.nrmse[[1, -1]]).all()


@pytest.mark.slow
def test_two_processes_train_as_one_with_batches_twice_as_large(tmp_path):
    """Of the whole case, as docs/scaling.md starts it: one log, one file of weights, the same scores."""
    line = [
        ROOT / "cases/mgno_darcy.py",
        *"--preset quick --networks mgno --points 16 --samples 16 --updates 4".split(),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    errors = []
    for launcher, batch in (([], 8), ("-m torch.distributed.run --standalone --nproc-per-node 2".split(), 4)):
        out = tmp_path / str(batch)
        arguments = [*launcher, *line, "--batch", str(batch), "--data", tmp_path / "data", "--out", out]
        ended = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=200
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count("results in") == 1, "one of them speaks"
        assert len((out / "mgno.csv").read_text().splitlines()) == 5
        errors.append(json.loads((out / "summary.json").read_text())["results"]["networks"]["mgno"]["L2"])
    assert errors[0] == pytest.approx(errors[1], rel=5e-3)
