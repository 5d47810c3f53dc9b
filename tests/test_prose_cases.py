"""The case of PROSE for ordinary equations: refusals, twins, and its scores of a network that knows everything."""

from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
import xarray as xr

from sciml.equation.tokens import Vocabulary, write
from sciml.prose.model import PROSE, Written, new
from sciml.prose.ordinary import SYSTEMS
from sciml.prose.symbols import GUESSES, KNOWN, NONE
from sciml.prose.windows import Windows
from tests import ROOT
from tests.case_fixtures import SHORT, refused

TRAIN = SHORT["prose_ode"].split()
FIELDS = tuple(f"u_{i}" for i in range(5))
pytestmark = pytest.mark.usefixtures("_cases_are_importable")


def untrained(**about) -> PROSE:
    small = new(Windows(5), Vocabulary(FIELDS), "small", length=144, seed=0)
    return replace(small, about={"names": ["thomas", "rossler"], "spread": 0.1, "noise": 0.02, "symbols": True} | about)


# -- refusals --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("args", "message"), [
    (["--windows", "0"], "--windows must be from 1 "), (["--beams", "0"], "--beams must be from 1"),
    (["--train", "--equations", "-1"], "--equations must be from 1 "),
    (["--train", "--families", "x"], "there is no x; known"),
    (["--weights", "missing.safetensors"], "there are no weights missing.safetensors; .*--train"),
    (["--twin", "missing.safetensors"], "no weights missing"), (["--noise", "2"], "--noise must be from 0 to 1"),
    (["--weights", str(ROOT / "data" / "weights" / "mgno_qg.safetensors")], "mgno_qg"),
])  # fmt: skip
def test_refuses(args, message, call, tmp_path):
    refused(call("--preset", "quick", *args, "--out", tmp_path / "o", case="prose_ode"), message)


def test_refuses_weights_of_the_wrong_kind(call, tmp_path):
    """Twins in place of networks and the other way round, other families, other data."""
    path, twin, few = (tmp_path / f"{n}.safetensors" for n in ("whole", "twin", "few"))
    untrained().save(path)
    untrained(symbols=False).save(twin)
    untrained(symbols=False, names=["thomas"]).save(few)
    line = ("--preset", "quick", "--out", tmp_path / "o")
    refused(call(*line, "--weights", twin, case="prose_ode"), "trained with --no-symbols")
    refused(call(*line, "--weights", path, "--twin", path, case="prose_ode"), "trained with --symbols")
    refused(call(*line, "--weights", path, "--families", "dadras", case="prose_ode"), "known: thomas, rossler")
    refused(call(*line, "--weights", path, "--twin", few, case="prose_ode"), "--twin was not trained for rossler")
    other = new(Windows(3), Vocabulary(FIELDS[:3]), "small", length=144, seed=0)
    other.save(tmp_path / "other.safetensors", symbols=True)
    refused(call(*line, "--weights", tmp_path / "other.safetensors", case="prose_ode"), "other data")
    replace(other, vocabulary=Vocabulary(FIELDS)).save(tmp_path / "older.safetensors")
    refused(call(*line, "--weights", tmp_path / "older.safetensors", case="prose_ode"), "tokens.*train it again")


def test_families_that_it_never_saw(call, tmp_path):
    path, every = tmp_path / "few.safetensors", tmp_path / "every.safetensors"
    untrained().save(path)
    untrained(names=list(SYSTEMS)).save(every)
    line = ("--preset", "quick", "--strangers", "--windows", "2", "--beams", "1")
    wrong = call(*line, "--weights", path, "--families", "thomas", "--out", tmp_path / "o", case="prose_ode")
    refused(wrong, "there is no thomas; known: .*lorenz63")
    refused(call(*line, "--weights", every, "--out", tmp_path / "o", case="prose_ode"), "trained on all families")
    refused(call(*line, "--train", "--out", tmp_path / "o", case="prose_ode"), "--strangers goes with weights")
    ended = call(*line, "--weights", path, "--families", "sprott_b", "--out", tmp_path / "o", case="prose_ode")
    assert ended.out.startswith("never trained on sprott_b\n"), ended.err
    with xr.open_dataset(tmp_path / "o" / "table.nc") as ds:
        assert ds["family"].values.tolist() == ["sprott_b"]


def test_refuses_trajectories_of_other_families(call, tmp_path):
    line = ("--preset", "quick", *TRAIN, "--no-symbols", "--data", tmp_path / "runs.safetensors")
    ended = call(*line, "--out", tmp_path / "a", case="prose_ode")
    assert (ended.status, ended.err) == (0, "")
    assert "for --twin" in ended.out
    assert PROSE.load(tmp_path / "a" / "model.safetensors").about["symbols"] is False
    ended = call(*line, "--families", "rossler", "--out", tmp_path / "b", case="prose_ode")
    refused(ended, "holds thomas; name these with --families")


# -- the table -------------------------------------------------------------------------------------------------------
def test_the_table_says_what_was_measured(finished):
    out, printed = finished("prose_ode")
    with xr.open_dataset(out / "table.nc") as ds:
        assert ds["guess"].values.tolist() == list(GUESSES)
        assert ds["family"].values.tolist() == ["thomas"]
        assert ds["error"].dims == ("guess", "target", "until", "family")
        assert float(ds["chaotic"].sel(family="thomas")) == 0
        assert float(ds["integrated"].max()) <= 1
        assert float(ds["right"].sel(writer="right terms, refined")[0]) == 1, "whatever the network"
        assert float(ds["integrated"].sel(forecast="right terms, refined")[0]) < 0.1
        assert f"{100 * float(ds['integrated'].sel(forecast='persistence')[0]):.5g}" in printed


# -- a network that knows everything ---------------------------------------------------------------------------------
class Oracle:
    """Predicts the truth, and writes the true equation where it is told something."""

    def __init__(self):
        self.view, self.vocabulary, self.tests, self.asked = Windows(5), Vocabulary(FIELDS), None, ()
        self.about = {"spread": 0.1, "noise": 0.02}
        self.net = SimpleNamespace(config=SimpleNamespace(length=144))

    def rows(self, u):
        """Of the tests, by the window."""
        return torch.cdist(u.flatten(1), self.tests.window.flatten(1)).argmin(1)

    def predict(self, t, u, times, told, tokens=None):
        self.asked = (told, tokens)
        absent = torch.arange(5) >= self.tests.dims[self.rows(u)][:, None]
        return self.tests.truth[self.rows(u)] + 7.0 * absent[:, None]

    def write(self, t, u, components, told, *, beams=1, constrained=True):
        found = [self.tests.equations[i] if e else None for i, e in zip(self.rows(u).tolist(), told, strict=True)]
        return [[Written(["u_0"] if e is None else write(e), -0.1)] * beams for e in found]


@pytest.fixture
def oracle():
    evaluation = import_module("prose_evaluation")
    one = Oracle()
    one.tests = evaluation.unseen(one, ("thomas", "lorenz96_4"), 3, 0.02, 0.1, 0)
    return one


def test_scores_of_a_perfect_network(oracle):
    """No error against the truth, and that of the noise in the published convention; told nothing it writes nothing."""
    evaluation = import_module("prose_evaluation")
    scores = evaluation.errors_of_guesses(oracle, oracle.tests, 2)
    clean, noisy = scores["error"].unbind(1)
    assert float(clean.abs().max()) == 0, "channels that a system does not have are left out"
    assert float((noisy - 0.02).abs().max()) < 0.02, "noise is a share of the whole, of which the end may be small"
    assert float(noisy[..., 1].sub(0.02).abs().max()) < 0.002
    assert scores["valid"][:NONE].min() == 1
    assert scores["valid"][NONE].max() == 0
    assert scores["expression"][:NONE].max() == 0
    assert scores["expression"][NONE].min() == 1, "nothing valid"


def test_forecasts_of_a_perfect_network(oracle):
    """The true equation from the noisy state errs, refined less; what is not written is no forecast."""
    evaluation = import_module("prose_evaluation")
    own = oracle.tests.family(0)
    oracle.tests = own
    found = evaluation.of_written(oracle, own, KNOWN, "known", 2) | evaluation.of_written(oracle, own, NONE, "none", 1)
    marks = {name: evaluation.marked(f, own) for name, f in found.items()}
    assert marks["decoded, known"].right == marks["refined, known"].right == 1
    assert marks["decoded, known"].coefficients == 0
    assert 0.1 > marks["decoded, known"].errors.mean() > 2 * marks["refined, known"].errors.mean() > 0
    assert marks["refined, known"].seconds > 0
    assert marks["decoded, none"].errors.tolist() == marks["refined, none"].errors.tolist() == [1, 1, 1]
    assert marks["refined, none"].right == 0


def test_either_a_fit_that_explains_the_window_or_the_network():
    evaluation = import_module("prose_evaluation")
    fits = [None, *(SimpleNamespace(reduced=torch.tensor([r])) for r in (0.9, 30.0))]
    fitted = evaluation.Forecast(torch.ones(3, 4, 2).double(), None, 1.0, fits)
    found = evaluation.either(fitted, evaluation.Forecast(torch.zeros(3, 4, 2), None, 0.5))
    assert found.values[:, 0, 0].tolist() == [0, 1, 0]
    assert found.seconds == 1.5


def test_shortened_windows_and_noise(oracle):
    evaluation, table = import_module("prose_evaluation"), import_module("prose_table")
    tests = oracle.tests
    evaluation.predicted(oracle, tests, NONE, 32)
    assert oracle.asked[1].tolist() == [8] * 6
    levels = [tests.with_noise(level, 0) for level in (0.0, 0.05)]
    assert torch.equal(levels[0].noisy, tests.runs.u)
    size = (levels[1].noisy - tests.runs.u).norm() / tests.runs.u.norm()
    assert float(size) == pytest.approx(0.05, rel=0.1)
    both = tests.repeated(levels)
    assert torch.equal(both.window[6:], levels[1].window)
    assert both.equations == 2 * tests.equations
    assert table.noise_expressions(oracle, tests, levels).tolist() == [[[0, 0], [1, 1]]] * 2


def test_means_over_families(oracle):
    nan, tests = torch.nan, oracle.tests
    values = torch.tensor([1.0, nan, 3.0, nan, nan, nan])
    assert tests.mean(values).tolist() == [2, 1]
    assert tests.median(torch.tensor([1.0, 2.0, 30.0, 5.0, nan, 5.0])).tolist() == [2, 5]
    assert tests.first(2).families.tolist() == [0, 0, 1, 1]
    assert len({str(e) for e in tests.equations}) > 3, "an equation of its own for each window"


def test_what_is_tested_is_drawn_with_other_numbers_than_what_is_learned():
    """Of the generator of a CPU, which takes 32 bits."""
    case, ode = import_module("prose_evaluation"), import_module("prose_ode")
    names = tuple(SYSTEMS)
    tests = case.unseen(untrained(), names[:2], 3, 0.02, 0.1, 0)
    for f in range(2):
        learned = ode.family_runs(names, 3, 1, 0, 0.1, f)
        assert not set(map(str, learned.equations)) & set(map(str, tests.family(f).equations))
    assert case.UNSEEN <= 2**31, "the generator takes no more bits"


def test_unseen_runs_do_not_depend_on_the_other_families(oracle):
    evaluation = import_module("prose_evaluation")
    alone = evaluation.unseen(oracle, ("lorenz96_4",), 3, 0.02, 0.1, 0)
    assert torch.equal(alone.runs.u, oracle.tests.family(1).runs.u)
    other = evaluation.unseen(oracle, ("lorenz96_4",), 3, 0.02, 0.1, 1)
    assert not torch.equal(alone.runs.u, other.runs.u)


def test_quick_tests_a_few_families():
    case = import_module("prose_ode")
    o = case.Options(preset="quick")
    assert case.tested(o, ("thomas", "dadras", "rossler")) == ("thomas", "rossler")
    assert case.tested(o, ("dadras",)) == ("dadras",)
    assert case.tested(replace(o, families=("dadras", "thomas")), ("thomas", "dadras")) == ("thomas", "dadras")
    assert case.tested(replace(o, preset="default"), ("thomas", "dadras")) == ("thomas", "dadras")


# -- pictures --------------------------------------------------------------------------------------------------------
def test_equations_in_titles():
    pictures, expression = import_module("prose_pictures"), import_module("sciml.equation.expression")
    parse = expression.parse
    lines = pictures.text((parse("2.34567*u_1 - 0.10004*u_0"), parse("sin(0.50049*u_0)"))).splitlines()
    assert lines == ["u0' = -0.1*u0 + 2.35*u1", "u1' = sin(0.5*u0)"]
    long = sum((parse(f"{i}.123*u_0**{i}") for i in range(2, 40)), parse("u_0"))
    assert all(len(line) <= 105 for line in pictures.text((long,)).splitlines())
    assert pictures.text(None) == "no equation"
    assert pictures.flagged("lorenz63") == "lorenz63*"
