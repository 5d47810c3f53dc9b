"""Files that the cases read, cut short or with other bytes within: one line that names the file, nothing written."""

import json
import os
import shutil
from importlib import import_module

import pytest

from sciml.assim.network import FuXiDA
from sciml.discover import medida
from sciml.prose.model import PROSE
from sciml.surrogate import Learned, Surrogate
from tests import ROOT
from tests.case_fixtures import refused

WEIGHTS = sorted((ROOT / "data" / "weights").glob("*.safetensors"))
KEPT = (0, 7, 0.01, 0.6, 0.9999)
"""bytes, or parts of the file, that are left"""


def cut(path, kept) -> None:
    os.truncate(path, kept if isinstance(kept, int) else int(kept * path.stat().st_size))


def load(path):
    """By the class that the name of the file says."""
    kind = path.stem.split("_")[0]
    if kind == "fuxida":
        from sciml import testbed

        return FuXiDA.load(path, *testbed.shown(testbed.model()))
    return {"prose": PROSE, "mgno": Surrogate if path.stem == "mgno_qg" else Learned}[kind].load(path)


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda p: p.stem)
@pytest.mark.parametrize("kept", KEPT)
def test_weights_that_are_cut_short(path, kept, tmp_path):
    copy = shutil.copy(path, tmp_path / path.name)
    load(copy)
    cut(copy, kept)
    with pytest.raises(ValueError, match=rf"{path.name} is damaged"):
        load(copy)


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda p: p.stem)
def test_weights_of_another_kind(path):
    """Every file given to every other reader."""
    for other in ("fuxida_qg", "mgno_qg", "prose_ode"):
        if other.split("_")[0] != path.stem.split("_")[0]:
            with pytest.raises(ValueError, match=rf"{path.name}"):
                load_as(other, path)


def load_as(other: str, path):
    if other == "fuxida_qg":
        from sciml import testbed

        return FuXiDA.load(path, *testbed.shown(testbed.model()))
    return (Surrogate if other == "mgno_qg" else PROSE).load(path)


@pytest.mark.parametrize("option", ["observations", "truth", "climatology"])
@pytest.mark.parametrize("kept", KEPT)
def test_data_that_are_cut_short(option, kept, call, tmp_path):
    name = "qg_satellite" + ("" if option == "observations" else f"_{option}") + ".nc"
    copy = shutil.copy(ROOT / "data" / name, tmp_path / name)
    cut(copy, kept)
    line = ("--preset", "quick", "--method", "oi", f"--{option}", copy, "--out", tmp_path / "out")
    refused(call(*line, case="qg_assimilate"), f"{name} is damaged")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"found": 3}', '{"library": []}'])
def test_discoveries_that_are_damaged(text, tmp_path):
    (tmp_path / "found.json").write_text(text)
    with pytest.raises(ValueError, match=r"found.json is damaged"):
        medida.Discovery.load(tmp_path / "found.json")


@pytest.mark.parametrize("text", ["", "update,loss\n1,2,3\n", "update,loss,seconds\n1,x,3\n"])
def test_logs_that_are_damaged(text, tmp_path):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(ValueError, match=r"log.csv is damaged"):
        import_module("training").read(tmp_path / "log.csv")


@pytest.mark.parametrize("text", ["", "{", json.dumps({"seconds": 3})])
def test_plans_that_are_damaged(text, tmp_path):
    (tmp_path / "mgno.json").write_text(text)
    with pytest.raises(ValueError, match=r"mgno.json is damaged"):
        import_module("operators").planned(tmp_path / "mgno.json", None, None, 1.0, {})
