"""Sphinx: the pages of this folder, the executed notebooks as tutorials, and the public names."""

import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import sciml  # noqa: E402

tutorials = HERE / "tutorials"
tutorials.mkdir(exist_ok=True)
for notebook in (HERE.parent / "notebooks").glob("*.ipynb"):
    shutil.copy2(notebook, tutorials / notebook.name)

project, author, release = "sciml", "The sciml developers", sciml.__version__
project_copyright = author
extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax", "numpydoc", "myst_nb"]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates"]
html_theme = "furo"
html_title = "sciml"

myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are stored executed; make notebooks runs them again

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures have them
numpydoc_show_class_members = False


def described(app, what, name, obj, options, lines: list[str]) -> None:
    """numpydoc takes what follows ``name :`` for a type; here it is the description, which goes below."""
    out, within = [], False
    for i, line in enumerate(lines):
        if re.fullmatch(r"-{4,}", line.strip()):
            within = lines[i - 1].strip() == "Parameters"
        found = re.fullmatch(r"(\w[\w, ]*?) : (.+)", line) if within else None
        out += [found[1], f"    {found[2]}"] if found else [line]
    lines[:] = out


def setup(app) -> None:
    app.connect("autodoc-process-docstring", described, priority=400)  # before numpydoc's own
