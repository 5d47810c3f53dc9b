"""The case of the learned analysis: a short training, resumed and used; refusals; the weights that are shipped."""

import json
from importlib import import_module

import numpy as np
import pytest
import torch

from sciml.files import load_tensors
from tests import ROOT
from tests.case_fixtures import refused

CASE = "qg_fuxi_da"
TRAIN = "--train --preset quick".split()
SHORT = "--preset quick --methods oi --responses 1 --members 6".split()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tmp_path_factory.mktemp("trained")


@pytest.mark.parametrize(("arguments", "message"), [
    (["--weights", "nowhere.safetensors"], "no weights at nowhere.safetensors; make them with: python cases/qg_fuxi"),
    (["--methods", "kalman"], "no method kalman; there are"),
    (["--train", "--updates", "1"], "--updates must be from 2 .*, got 1"),
    (["--train", "--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
    (["--train", "--halfway"], "--halfway needs --start with weights of a network of the same inputs"),
    (["--members", "1"], "--members must be from 2"),
    (["--days", "4000"], "--days must be from 5 to 400"),
    (["--truth", "nowhere.nc"], "no truth at nowhere.nc"),
    (["--weights", "data/weights/fuxida_qg_corr.safetensors"], "network that sees no observations, CORR: give it with"),
    (["--corr-weights", "data/weights/fuxida_qg.safetensors"], "sees observations: give it with --weights"),
    (["--weights", "data/weights/fuxida_qg_imperfect.safetensors"], "was trained for the imperfect model: use it with"),
    (["--train", "--ablate", "cycles", "--start", "data/weights/fuxida_qg.safetensors"], "leave --start out"),
    (["--weights", "data/qg_satellite.nc"], "qg_satellite.nc is damaged, or not a file of this package"),
])  # fmt: skip
def test_requests_that_cannot_be_met(call, tmp_path, arguments, message):
    short = ["--preset", "quick"] if "--train" in arguments else SHORT
    refused(call(*short, "--out", tmp_path / "o", *arguments, case=CASE), message)


@pytest.mark.slow
def test_a_training_that_was_stopped_goes_on_and_its_weights_can_be_used(call, trained, monkeypatch):
    import sciml.train

    whole, out, save = trained / "whole", trained / "stopped", sciml.train.save
    assert call(*TRAIN, "--out", whole, case=CASE).status == 0

    def stopping(path, update, *rest):
        save(path, update, *rest)
        if update == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(sciml.train, "save", stopping)
    assert call(*TRAIN, "--out", out, case=CASE).status == 130
    monkeypatch.undo()
    refused(call(*TRAIN, "--out", out, case=CASE), "was not finished; continue it with --resume")
    refused(call(*TRAIN, "--out", out, "--resume", "--seed", 5, case=CASE), "is of a training with seed 0, not 5")
    assert call(*TRAIN, "--out", out, "--resume", case=CASE).status == 0
    first, second = (load_tensors(p / "weights.safetensors") for p in (whole, out))
    assert first[0].keys() == second[0].keys()
    assert all(torch.equal(a, second[0][n]) for n, a in first[0].items()), "as if it had never been stopped"
    rows = np.genfromtxt(out / "training.csv", delimiter=",", names=True)
    assert list(rows["update"]) == [2, 4, 6]
    assert (out / "training.png").exists()
    line = ["--weights", out / "weights.safetensors", "--responses", 0, "--out", trained / "used"]
    assert call(*SHORT, *line, case=CASE).status == 0
    ladder = json.loads((trained / "used" / "summary.json").read_text())["results"]["ladder"]
    assert ladder.keys() == {"CTRL", "CORR", "ASSI", "oi"}
    assert ladder["ASSI"]["psi"]["analysis"][0] == pytest.approx(ladder["CTRL"]["psi"]["analysis"][0], rel=0.05)


def test_halfway_between_two_networks():
    from sciml.nn.fuxida import Config, FuXiDANet

    a, b = (FuXiDANet(Config(4, 0, 2, (8, 8), 4)) for _ in range(2))
    mean = [(p + q) / 2 for p, q in zip(a.parameters(), b.parameters(), strict=True)]
    import_module(CASE).halfway(a, b)
    for p, q in zip(a.parameters(), mean, strict=True):
        torch.testing.assert_close(p.detach(), q.detach())


def test_hybrid_is_a_method_of_the_assimilation_case(call, tmp_path):
    line = "--method hybrid --days 10 --hybrid-members 4 --network-weight 0.6".split()
    assert call(*line, "--out", tmp_path / "o", case="qg_assimilate").status == 0
    results = json.loads((tmp_path / "o" / "summary.json").read_text())["results"]
    assert len(results["psi"]["spread_over_error"]) == 2
    refused(call(*line[:-1], 1.5, "--out", tmp_path / "p", case="qg_assimilate"), "from 0 to 1, got 1.5")


@pytest.mark.parametrize("name", ["fuxida_qg", "fuxida_qg_corr", "fuxida_qg_imperfect", "fuxida_qg_corr_imperfect"])
def test_shipped_weights_say_how_they_were_made_and_are_small(name):
    path = ROOT / "data" / "weights" / f"{name}.safetensors"
    about = load_tensors(path)[1]["about"]
    assert about["command"].startswith("python cases/qg_fuxi_da.py --train")
    assert path.stat().st_size < 5.5e6


def test_shipped_weights_beat_optimal_interpolation(call, tmp_path):
    """After twelve windows, and with less than a tenth of its time."""
    line = "--methods oi --responses 0 --days 80".split()
    assert call(*line, "--out", tmp_path, case=CASE).status == 0
    ladder = json.loads((tmp_path / "summary.json").read_text())["results"]["ladder"]
    for layer in (0, 1):
        error = {m: r["psi"]["analysis"][layer] for m, r in ladder.items()}
        assert error["ASSI"] < 0.9 * error["oi"] < 0.5 * min(error["CTRL"], error["CORR"])
    assert 0.6 < ladder["ASSI"]["psi"]["spread_over_error"][0] < 1.5
