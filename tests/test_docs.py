"""The documentation: pages are reached, links lead somewhere, public names are listed, pages of methods are whole."""

import re

import pytest

import sciml as sm
from tests import ROOT
from tests.case_fixtures import CASES

DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if not {"_build", "generated"} & set(p.parts))
METHODS = sorted((DOCS / "methods").glob("*.md"))


def test_every_case_is_in_the_list_of_cases():
    listed = set(re.findall(r"`(\w+)\.py`", (ROOT / "cases" / "README.md").read_text()))
    assert listed == set(CASES)


def test_every_page_is_in_the_table_of_contents():
    index = (DOCS / "index.md").read_text()
    listed = {line for block in re.findall(r"```{toctree}\n(.*?)```", index, re.S) for line in block.split("\n")}
    pages = {p.relative_to(DOCS).with_suffix("").as_posix() for p in PAGES} - {"index"}
    tutorials = {f"tutorials/{p.stem}" for p in (ROOT / "notebooks").glob("*.ipynb")}
    assert pages | tutorials <= listed


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda p: p.stem)
def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (page.parent / target).exists(), target
    for target in re.findall(r"{doc}`([^`<]+)`", text):
        name = (page.parent / target).resolve()
        stored = ROOT / "notebooks" / f"{name.name}.ipynb"
        assert name.with_suffix(".md").exists() or (name.parent.name == "tutorials" and stored.exists()), target
    for path in re.findall(r"`((?:sciml|cases|tests|bench|data|notebooks|docs)/[\w/.]+\.(?:py|ipynb|nc|md))`", text):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"`sm\.(\w+)", text):
        assert hasattr(sm, name), name


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda p: p.stem)
def test_rows_of_tables_have_as_many_cells_as_their_header(page):
    """An unescaped | starts another one, within code, too."""
    width = 0
    for number, line in enumerate(page.read_text().split("\n"), 1):
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert not (width and cells) or cells == width, f"line {number}: {line}"
        width = cells


def test_every_public_name_is_in_the_reference():
    listed = set(re.findall(r"^   (\w+)$", (DOCS / "api.md").read_text(), re.M))
    assert listed | {"STEPPERS", "equation"} >= {*sm.__all__, *sm.equation.__all__}
    assert all(hasattr(sm, n) or hasattr(sm.equation, n) for n in listed)


@pytest.mark.parametrize("page", METHODS, ids=lambda p: p.stem)
def test_a_method_has_equation_example_values_limits_results_and_references(page):
    text = page.read_text()
    limits = r"\*\*(It does not|It is not|Do not|Mind)"
    for part in (
        r"\$[^$]+\$",
        "```python\n",
        r"\*\*(Use it|Which one)",
        limits,
        "## Good values",
        "## Results",
        "## References",
    ):
        assert re.search(part, text), part
    assert "{doc}`../results`" in text
    assert len(re.findall(r"\((19|20)\d\d\)", text)) >= 2, "references have years"
    assert re.search(r"^    python |\(`python |`pytest |`python ", text, re.M), "a command"


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path):
    """Where Sphinx is installed (make docs)."""
    pytest.importorskip("myst_nb")
    import subprocess
    import sys

    line = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", DOCS, tmp_path]
    ended = subprocess.run(line, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    page = (tmp_path / "methods" / "qg.html").read_text()
    assert "{doc}" not in page
    assert "sciml.Grid" in (tmp_path / "api.html").read_text()
