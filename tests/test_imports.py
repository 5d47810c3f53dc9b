"""What may import what, how quickly `import sciml` comes back, and how long files may be."""

import ast
import subprocess
import sys

import pytest

import sciml
from tests.conftest import ROOT

LAYERS = [
    {"grid"},
    {"equation", "files", "flagging"},
    {"step", "rollout", "losses", "observations", "superob", "observe", "instruments", "interpolate", "nn", "initial"}
    | {"field", "fill", "kriging", "optimisers"},
    {"assim", "discover", "insr", "prose", "surrogate", "train", "objectives"},
    {"plot", "score", "spectra", "data", "record", "cluster", "testbed", "foreign", "readers", "evaluate", "charts"}
    | {"plot_terms", "plot_emulation", "snapshots", "emulation", "operator_data", "operator_files"},
]
"""From the bottom up; a module may import its own layer and those before it (design.md)."""

LAZY = {"pysindy", "netCDF4", "zarr", "dask", "distributed", "matplotlib", "sklearn", "sympy", "cmocean", "safetensors"}
FORBIDDEN = [("equation", "step"), ("nn", "equation"), ("assim", "equation")]
SOURCES = sorted(p for p in (ROOT / "sciml").rglob("*.py") if p.name != "__init__.py" or p.parent.name != "sciml")
every_source = pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT / "sciml").as_posix())


def part(path) -> str:
    """The layer's member that a source file belongs to: ``equation`` for sciml/equation/qg.py."""
    return path.relative_to(ROOT / "sciml").with_suffix("").parts[0]


def imports(tree: ast.AST, path) -> list[str]:
    """Dotted names of all modules imported anywhere in a tree, ``sciml.step`` for ``from sciml import step`` too."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative imports hide the layer; write the whole name"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def on_import(tree: ast.Module) -> ast.Module:
    """The tree without the bodies of functions, which do not run when the module is imported."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node):
            return None

        visit_AsyncFunctionDef = visit_FunctionDef

    return Strip().visit(tree)


def layer(name: str) -> int:
    found = [i for i, names in enumerate(LAYERS) if name in names]
    assert found, f"sciml/{name} is in no layer: add it to LAYERS (and to docs/design.md)"
    return found[0]


# -- direction -------------------------------------------------------------------------------------------------------
@every_source
def test_imports_go_one_way(path):
    here = part(path)
    for name in imports(ast.parse(path.read_text()), path):
        if not name.startswith("sciml"):
            assert name.split(".")[0] not in ("cases", "tests", "bench", "notebooks")
            continue
        assert name.count("."), f"{path.name} imports the whole package"
        there = name.split(".")[1]
        assert layer(there) <= layer(here), f"{path.name}: {here} may not import {there}"
        assert (here, there) not in FORBIDDEN, f"{path.name}: {here} never imports {there}"


def test_the_check_sees_imports_everywhere():
    source = "import a.b\nfrom c import d\ndef f():\n    from sciml import step\nclass G:\n    import h"
    assert sorted(imports(ast.parse(source), ROOT)) == ["a.b", "c.d", "h", "sciml.step"]
    assert sorted(imports(on_import(ast.parse(source)), ROOT)) == ["a.b", "c.d", "h"]


# -- optional packages -----------------------------------------------------------------------------------------------
@every_source
def test_heavy_packages_wait_until_they_are_needed(path):
    """They are imported inside functions; numba and pyfftw in files that are themselves imported inside functions."""
    fast = path.name in ("qg_loops.py", "qg_packed.py", "qg_gradient.py")
    late = LAZY if fast else LAZY | {"numba", "pyfftw"}
    for name in imports(on_import(ast.parse(path.read_text())), path):
        assert name.split(".")[0] not in late, f"{path.name} imports {name} as soon as it is imported itself"
        assert fast or name.split(".")[-1] not in ("qg_loops", "qg_packed", "qg_gradient")


def test_import_is_quick_and_light():
    """By the processor's time, which others on the machine change less than the clock's, over that of what it needs."""
    late = f"sorted({LAZY | {'numba', 'pyfftw'}} & sys.modules.keys())"

    def spent(modules: str) -> float:
        code = f"import {modules}, sys, time; print(time.process_time(), {late})"
        out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        seconds, loaded = out.stdout.strip().split(" ", 1)
        assert loaded == "[]"
        return float(seconds)

    ratios = []
    for _ in range(3):
        ratios.append(spent("sciml") / spent("torch, xarray"))
        if ratios[-1] < 1.8:
            break
    assert min(ratios) < 1.8, f"import sciml takes {min(ratios):.1f} times as long as torch and xarray"


# -- the public names, and the size of files -------------------------------------------------------------------------
def test_public_names():
    assert len(set(sciml.__all__)) == len(sciml.__all__)
    for name in sciml.__all__:
        assert hasattr(sciml, name), name
    tree = ast.parse((ROOT / "sciml" / "__init__.py").read_text())
    imported = {name.split(".")[-1] for name in imports(tree, ROOT)}
    assert imported == set(sciml.__all__)


@pytest.mark.parametrize("folder", ["sciml", "cases", "tests"])
def test_no_file_is_over_400_lines(folder):
    lengths = {p.name: len(p.read_text().splitlines()) for p in (ROOT / folder).rglob("*.py")}
    assert lengths
    assert {name: n for name, n in lengths.items() if n > 400} == {}
