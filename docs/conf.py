"""Sphinx: the pages of this folder, the executed notebooks as tutorials, and the public names."""

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
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "sciml"

myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are stored executed; make notebooks runs them again

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures have them
numpydoc_show_class_members = False
