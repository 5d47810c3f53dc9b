"""What the network is shown and told, symmetries, the objective, data sets in files, models in files."""

from functools import partial

import pytest
import torch

from sciml.cluster import in_processes
from sciml.equation.expression import parse
from sciml.equation.tokens import EOS, Vocabulary, read, skeleton, write
from sciml.optimisers import adamw, muon
from sciml.prose import sets
from sciml.prose.learning import Course, Teaching, mixed, parts_of, relative_square
from sciml.prose.model import PROSE, new
from sciml.prose.ordinary import SYSTEMS
from sciml.prose.symbols import CORRUPTED, KNOWN, NONE, SKELETON, Symbols, corrupted, one_of, polynomial
from sciml.prose.symmetry import Shifts, free_axes, rolled
from sciml.prose.trajectories import generate
from sciml.prose.windows import Lines, Maps, Windows
from sciml.train import fit

FIELDS = tuple(f"u_{i}" for i in range(3))
V = Vocabulary(FIELDS)


@pytest.fixture(scope="module")
def runs():
    return generate([SYSTEMS["lorenz63"], SYSTEMS["rossler"]], 6, 3, seed=0, dmax=3)


@pytest.fixture(scope="module")
def symbols(runs):
    return Symbols.of(V, runs.equations, runs.family, length=96, variants=60)


def course(runs, symbols, **options) -> Course:
    return Course(runs.t, runs.u, runs.equation, symbols, Windows(3), **options)


# -- equations told and wanted ---------------------------------------------------------------------------------------
def test_what_is_told(runs, symbols):
    index = torch.arange(6)
    for i, tokens in enumerate(symbols.guesses(index, KNOWN)):
        assert read(tokens, FIELDS) == runs.equations[i]
    for i, tokens in enumerate(symbols.guesses(index, SKELETON)):
        assert tokens == skeleton(write(runs.equations[i]))
    assert symbols.guesses(index, NONE) == [[]] * 6
    given, following = symbols.target(index)
    for i in range(6):
        assert V.decode(following[i].tolist()) == write(runs.equations[i])
        assert V.number[EOS] in following[i].tolist()
        assert given[i, 1:].tolist() == following[i, :-1].masked_fill(following[i, :-1] == V.number[EOS], 0).tolist()


def test_seven_tenths_of_the_skeletons_are_as_they_should_be(runs, symbols):
    wanted = [skeleton(write(e)) for e in runs.equations]
    same, n = 0, 0
    for seed in range(40):
        for i, tokens in enumerate(symbols.guesses(torch.arange(6), CORRUPTED, seed)):
            same, n = same + (tokens == wanted[i]), n + 1
            assert len(read(tokens, FIELDS)) == 3
    assert same / n == pytest.approx(0.7, abs=0.12)


def test_corruption_takes_a_term_or_adds_one():
    system = (parse("c*u_0 + u_1", ("c",)), parse("u_0*u_1 + u_0 + 2"))
    generator = torch.Generator().manual_seed(0)
    sizes = {"fewer": 0, "more": 0, "same": 0}
    for _ in range(2000):
        new_one = corrupted(system, generator, polynomial)
        count = sum(len(getattr(e, "args", ())) if getattr(e, "op", "") == "add" else 1 for e in new_one)
        kind = "same" if new_one == system else "fewer" if count < 5 else "more"
        sizes[kind] += 1
    assert sizes["fewer"] / 2000 == pytest.approx(0.15, abs=0.03)
    assert sizes["more"] / 2000 == pytest.approx(0.15, abs=0.03)
    term = one_of(parse("lap(u_0)"))
    assert term(2, generator) == parse("lap(u_0)")


def test_too_long_equations_are_refused(runs):
    with pytest.raises(ValueError, match="choose a longer one"):
        Symbols.of(V, runs.equations, runs.family, length=10)


# -- views -----------------------------------------------------------------------------------------------------------
def test_scaled_windows_differ_in_what_is_told_of_their_size_only():
    view, g = Windows(3), torch.Generator().manual_seed(0)
    t, u = torch.linspace(0, 2, 64), torch.randn(5, 64, 3, generator=g)
    a, _, scale = view.see(t, u)
    b, _, larger = view.see(t, 10 * u)
    torch.testing.assert_close(larger, 10 * scale)
    torch.testing.assert_close(a[..., :16], b[..., :16])
    torch.testing.assert_close(a[..., 16:] + 1, b[..., 16:])
    assert view.see(t, u)[0].shape == (5, 16, view.features)


def test_hidden_points_have_no_influence():
    view, g = Windows(3), torch.Generator().manual_seed(0)
    t, u = torch.linspace(0, 2, 64), torch.randn(2, 64, 3, generator=g)
    other = u.clone()
    other[:, :32] += 5
    few = torch.full((2,), 8)
    for x, y in zip(view.see(t, u, few), view.see(t, other, few), strict=True):
        torch.testing.assert_close(x, y)
    assert view.see(t, u, few)[1].sum(1).tolist() == [8, 8]


@pytest.mark.parametrize("view", [Windows(3), Lines(cells=16), Maps(n=8, points=3)], ids=["windows", "lines", "maps"])
def test_answers_bring_the_values_back(view):
    shape = {"Windows": (3,), "Lines": (16,), "Maps": (2, 8, 8)}[type(view).__name__]
    u = torch.randn(2, view.points + 4, *shape)
    t = torch.linspace(0, 1, view.points)
    context = torch.randn(2, 8, 8) if isinstance(view, Maps) else None
    data, seen, scale = view.see(t, u[:, : view.points], None, context)
    assert data.shape == (*seen.shape, view.features)
    answers = view.answers(u[:, view.points :])
    assert torch.equal(view.values(answers), u[:, view.points :])
    queries = view.ask(torch.linspace(1, 2, 4), u[:, : view.points], context)
    assert queries.shape == (2, answers.shape[1], view.queries)
    assert answers.shape[2] == view.outputs
    assert torch.broadcast_shapes(scale.shape, answers.shape) == answers.shape
    with pytest.raises(ValueError, match="windows have shape"):
        view.see(t, u)


def test_queries_of_a_map_hold_the_patch_they_ask_for():
    """The middle of what surrounds a patch is the patch itself, in the order of the answers."""
    view = Maps(n=8, points=2, channels=1)
    u = torch.randn(1, 2, 1, 8, 8)
    unit = u / u[:, -1].square().mean().sqrt()
    around = view.ask(torch.tensor([3.0]), u)[0, :, 1 + 2 * view.waves : -4].view(4, 2, 8, 8)[:, 0]
    torch.testing.assert_close(around[:, 2:6, 2:6].flatten(1), view.answers(unit[:, -1:])[0])


# -- symmetries ------------------------------------------------------------------------------------------------------
def test_shifts_move_fields_and_context_together_and_only_where_they_may():
    equations = [(parse("dx(u_0)"),), (parse("cos(2*y)*u_0"),)]
    free = free_axes(equations, ("y", "x"))
    assert free.tolist() == [[True, True], [False, True]]
    g = torch.Generator().manual_seed(0)
    u = torch.randn(20, 3, 2, 8, 8, generator=g)
    equation = torch.arange(20) % 2
    turned, context = Shifts(free)(u, u[:, 0, 0], equation, g)
    torch.testing.assert_close(turned[:, 0, 0], context)
    torch.testing.assert_close(turned.mean((-2, -1)), u.mean((-2, -1)))
    torch.testing.assert_close(turned[equation == 1].mean(-1), u[equation == 1].mean(-1))
    assert (turned[equation == 0].mean(-1) - u[equation == 0].mean(-1)).abs().max() > 0.1


def test_contexts_that_an_equation_does_not_name_tell_nothing_of_it(runs, symbols):
    maps = torch.arange(len(runs.equations))[:, None].expand(-1, 3)
    named = torch.arange(len(maps)) % 2 == 0
    one = course(runs, symbols, context=maps, named=named)
    equation, g = torch.arange(len(maps)).repeat(50), torch.Generator().manual_seed(0)
    shown = one._shown(equation, len(maps), g)
    assert torch.equal(shown[named[equation]], equation[named[equation]])
    others = shown[~named[equation]]
    assert len(others.unique()) == len(maps)
    assert (others == equation[~named[equation]]).float().mean() < 0.5


def test_rolled_is_roll_for_each():
    u, by = torch.randn(3, 4, 6), torch.tensor([0, 2, 5])
    expected = torch.stack([x.roll(int(k), -1) for x, k in zip(u, by, strict=True)])
    assert torch.equal(rolled(u, by, -1), expected)


# -- the objective ---------------------------------------------------------------------------------------------------
def test_noise_is_of_inputs_only_unless_targets_shall_have_it(runs, symbols):
    rows = torch.arange(len(runs))
    for noisy, low, high in ((False, 0, 1e-6), (True, 0.015, 0.025)):
        one = course(runs, symbols, noise=0.02, asked=0, noisy_targets=noisy)
        samples, equation = one.draw(rows, torch.Generator().manual_seed(0))
        error = relative_square(samples.answers, runs.u[:, 64:]).sqrt()
        assert low <= float(error.mean()) <= high
        assert torch.equal(equation, runs.equation)


def test_parts_hold_the_whole_batch_and_the_longest_equation():
    lengths = torch.tensor([10] * 70 + [100] * 30)
    parts = parts_of(lengths, 64, (0.5, 0.5), 144)
    assert sum(n for n, _ in parts) == 64
    assert parts[0][1] == 16
    assert parts[-1][1] == 104
    with pytest.raises(ValueError, match="add up to 1"):
        parts_of(lengths, 64, (0.6, 0.6), 144)


@pytest.mark.parametrize("optimiser", [adamw, muon])
def test_learning_lowers_the_loss(runs, symbols, optimiser):
    model = new(Windows(3), V, "small", length=96, seed=1)
    teaching = Teaching(model.net, course(runs, symbols, asked=8), batch=6, bfloat16=False)
    first = float(teaching(0).detach())
    fit(model.net, teaching, 12, lr=2e-3, warm_up=2, optimiser=optimiser)
    assert float(teaching(0).detach()) < 0.6 * first


def test_a_training_with_muon_goes_on_exactly(runs, symbols, tmp_path):
    def objective(net, stop=None):
        teaching = Teaching(net, course(runs, symbols, asked=4), batch=4, bfloat16=False)

        class Stopping:
            state, restore = teaching.state, teaching.restore

            def __call__(self, update: int):
                if update == stop:
                    raise KeyboardInterrupt
                return teaching(update)

        return Stopping()

    nets = [new(Windows(3), V, "small", length=96, seed=1).net for _ in range(2)]
    options = {"lr": 1e-3, "warm_up": 2, "optimiser": muon, "every": 2}
    whole = fit(nets[0], objective(nets[0]), 6, **options)
    state = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(nets[1], objective(nets[1], stop=4), 6, checkpoint=state, **options)
    other = new(Windows(3), V, "small", length=96, seed=2).net
    again = fit(other, objective(other), 6, checkpoint=state, **options)
    for name, average in whole.items():
        assert torch.equal(average, again[name]), name


def test_a_twin_without_symbols_leaves_the_writing_parts_alone(runs, symbols):
    model = new(Windows(3), V, "small", length=96, seed=1)
    Teaching(model.net, course(runs, symbols), batch=4, symbolic=0.0, bfloat16=False)(0).backward()
    assert all(p.grad is None for p in model.net.decoder.parameters())
    assert all(p.grad is not None for p in model.net.operator.parameters())


def test_every_second_equation_only_changes_the_second_loss(runs, symbols):
    model = new(Windows(3), V, "small", length=96, seed=1)
    make = partial(Teaching, model.net, course(runs, symbols), batch=8, bfloat16=False)
    whole, half, none = (float(make(**o)(0).detach()) for o in ({}, {"every": 2}, {"symbolic": 0.0}))
    assert none < half
    assert half == pytest.approx(whole, rel=0.2)


def test_refuses_what_cannot_be_learnt_from(runs, symbols):
    bad = runs.u.clone()
    bad[0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        Course(runs.t, bad, runs.equation, symbols, Windows(3))
    with pytest.raises(ValueError, match="nothing to predict"):
        Course(runs.t[:64], runs.u[:, :64], runs.equation, symbols, Windows(3))
    empty = runs.select(torch.zeros(len(runs), dtype=torch.bool))
    with pytest.raises(ValueError, match="nothing to learn from"):
        Teaching(new(Windows(3), V, "small", length=96, seed=0).net, course(empty, symbols))


# -- files -----------------------------------------------------------------------------------------------------------
def one_family(i: int):
    return generate([SYSTEMS[("thomas", "lorenz63")[i]]], 2, 2, seed=i, dmax=3)


def test_sets_do_not_depend_on_the_processes_and_come_back_from_files(tmp_path):
    whole = sets.joined(in_processes(one_family, 2, 2))
    assert whole.names == ("thomas", "lorenz63")
    assert whole.family.tolist() == [0, 0, 1, 1]
    assert torch.equal(whole.u, sets.joined(in_processes(one_family, 2, 1)).u)
    assert torch.equal(whole.u[4:], one_family(1).u)
    assert [whole.equations[i] for i in whole.equation.tolist()][4] == one_family(1).equations[0]
    sets.save(whole, tmp_path / "runs.safetensors")
    again = sets.load(tmp_path / "runs.safetensors", FIELDS)
    assert again.equations == whole.equations
    assert torch.equal(again.u, whole.u)
    with pytest.raises(ValueError, match="missing"):
        sets.load(tmp_path / "nothing.safetensors", FIELDS)


def test_models_come_back_from_files_to_half_precision(runs, tmp_path):
    model = new(Windows(3), V, "small", length=96, seed=1)
    model.net.eval()
    path = tmp_path / "model.safetensors"
    model.save(path, names=["a"])
    again = PROSE.load(path)
    assert again.about["names"] == ["a"]
    t, u = runs.t[:64], runs.u[:4, :64]
    torch.testing.assert_close(again.predict(t, u, runs.t[64:]), model.predict(t, u, runs.t[64:]), atol=0.2, rtol=0.02)
    assert len(again.write(t, u, torch.full((4,), 3), beams=2)[0]) == 2
    sets.save(runs, tmp_path / "runs.safetensors")
    with pytest.raises(ValueError, match="another kind"):
        PROSE.load(tmp_path / "runs.safetensors")


def test_models_refuse_other_times_shapes_and_values(runs):
    model = new(Windows(3), V, "small", length=96, seed=1)
    t, u = runs.t[:64], runs.u[:2, :64]
    with pytest.raises(ValueError, match="must be from"):
        model.predict(t, u, torch.tensor([7.0]))
    with pytest.raises(ValueError, match="windows have shape"):
        model.predict(t[:32], u[:, :32], runs.t[64:])
    with pytest.raises(ValueError, match="not finite"):
        model.predict(t, u * float("nan"), runs.t[64:])
    with pytest.raises(ValueError, match="give one for each"):
        model.predict(t, u, runs.t[64:], [["u_0"]])
    with pytest.raises(ValueError, match="unknown token"):
        model.predict(t, u, runs.t[64:], [["v"], []])


def test_seeds_and_updates_draw_other_numbers_on_a_cpu():
    drawn = {float(torch.rand((), generator=torch.Generator().manual_seed(mixed(seed, update))))
             for seed in range(4) for update in range(4)}  # fmt: skip
    assert len(drawn) == 16
    assert mixed(3, 7) == mixed(3, 7) < 2**32


@pytest.mark.parametrize(("change", "message"), [
    (lambda t, u: (t / 10, u), r"sees 64 times from 0 to 1.97906, 0.0314136 apart, got 0 to 0.197906; interpolate"),
    (lambda t, u: (t + 3, u), r"got 3 to|times to predict"),
    (lambda t, u: (t.flip(0), u), "got 1.97906 to 0"),
    (lambda t, u: (t, 0 * u), "zero everywhere"),
    (lambda t, u: (t, u * torch.nan), "not finite"),
])  # fmt: skip
def test_windows_that_no_training_has_are_refused(change, message, runs):
    model, t, u = new(Windows(3), V, "small", length=96, seed=1), runs.t[:64], runs.u[:1, :64]
    with pytest.raises(ValueError, match=message):
        model.write(*change(t, u), torch.tensor([3]))
    with pytest.raises(ValueError, match=message):
        model.predict(*change(t, u), runs.t[-1:])


@pytest.mark.parametrize("options", [{"components": [0]}, {"components": [7]}, {"components": [3, 3]}, {"beams": 0},
                                     {"tokens": torch.tensor([0])}])  # fmt: skip
def test_writing_refuses_options_without_sense(options, runs):
    model = new(Windows(3), V, "small", length=96, seed=1)
    with pytest.raises(ValueError, match=next(iter(options))):
        model.write(runs.t[:64].numpy(), runs.u[:1, :64].double().numpy(), **{"components": [3], **options})
    assert model.predict(runs.t[:64].numpy(), runs.u[:1, :64].double().numpy(), runs.t[64:].double()).shape == (
        1,
        128,
        3,
    )
