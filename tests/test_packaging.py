"""What is released: all packages are in the wheel, versions agree, the citation file is one, nothing is too large."""

import re
import tomllib
import zipfile

import pytest
import torch

import sciml
from tests import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_listed():
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "sciml").rglob("__init__.py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def test_versions_agree():
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M)
    changed = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert cited is not None
    assert changed is not None
    assert {PROJECT["project"]["version"], sciml.__version__, cited[1]} == {"0.1.0"}


def test_citation_file_has_what_its_schema_requires():
    yaml = pytest.importorskip("yaml")
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= about.keys()
    assert about["cff-version"] == "1.2.0"
    assert all(a.keys() & {"name", "family-names"} for a in about["authors"])
    assert all({"type", "title", "authors", "year"} <= r.keys() for r in about["references"])
    assert len(about["references"]) >= 5, "the papers of the five methods"


def test_wheel_holds_the_package_and_nothing_else(tmp_path):
    """Built by setuptools in this process, without a network."""
    build = pytest.importorskip("setuptools.build_meta")
    import os
    import shutil

    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "sciml", tmp_path / "sciml", ignore=shutil.ignore_patterns("__pycache__"))
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        wheel = build.build_wheel(str(tmp_path / "dist"))
    finally:
        os.chdir(here)
    with zipfile.ZipFile(tmp_path / "dist" / wheel) as file:
        held = {n for n in file.namelist() if ".dist-info/" not in n}
    assert held == {p.relative_to(ROOT).as_posix() for p in (ROOT / "sciml").rglob("*.py")}


def test_no_source_file_is_past_400_lines():
    folders = ("sciml", "cases", "data", "bench", "tests")
    sources = [p for f in folders for p in (ROOT / f).rglob("*.py") if ".venv" not in p.parts]
    sources = [p for p in sources if not {".dapper", ".neuralop"} & set(p.parts)]
    assert len(sources) > 200
    assert not [p.name for p in sources if len(p.read_text().splitlines()) > 400]


def test_weights_are_small_and_execute_nothing():
    """Safetensors only, at most 5 MB, each with the command that made it."""
    from sciml.files import load_tensors

    weights = sorted(p for p in (ROOT / "data" / "weights").iterdir() if p.name != "README.md")
    assert len(weights) >= 6
    for path in weights:
        assert path.suffix == ".safetensors"
        assert path.stat().st_size <= 5.5e6
        load_tensors(path)
    sources = {p.name: p.read_text() for f in ("sciml", "cases", "data") for p in (ROOT / f).rglob("*.py")}
    for dangerous in (r"torch\.load\(", r"\bpickle\b", r"allow_pickle=True", r"(?<!\.)\beval\(", r"(?<!\.)\bexec\("):
        assert {n for n, text in sources.items() if re.search(dangerous, text)} <= {"compiled.py"}, dangerous


def test_equations_from_files_cannot_smuggle_code():
    """compiled.py makes functions of trees; names that are no plain fields are refused, of parameters taken as keys."""
    from sciml.equation.expression import Field, Param
    from sciml.prose.compiled import kernel

    evil = "u_0, __import__('os').getcwd()"
    with pytest.raises(ValueError, match="unknown fields"):
        kernel([Field(evil)])
    one = torch.tensor(2.0)
    (found,) = kernel([Param("'] + u[0][") * Field("u_0")])((one,), {"'] + u[0][": torch.tensor(3.0)})
    assert float(found) == 6.0
