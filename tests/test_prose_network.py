"""PROSE's transformer and the search for equations: what may influence what, sizes, whole systems only."""

import pytest
import torch

from sciml.equation.tokens import EOS, PAD, PLACEHOLDER, Vocabulary, read
from sciml.nn.prose import PRESETS, Attention, Config, Transformer, attend, sinusoids
from sciml.prose.decode import Cache, Grammar, search

V = Vocabulary(tuple(f"u_{i}" for i in range(5)))
SIZES = Config(features=7, queries=3, outputs=2, vocabulary=len(V), width=32, heads=2, feedforward=64, length=48)
B = 4


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Transformer(SIZES).eval()


@pytest.fixture(scope="module")
def given():
    g = torch.Generator().manual_seed(1)
    data, queries = torch.randn(B, 6, 7, generator=g), torch.randn(B, 5, 3, generator=g)
    told, tokens = (torch.randint(1, len(V), (B, n), generator=g) for n in (9, 11))
    return data, torch.ones(B, 6, dtype=torch.bool), told, queries, tokens


# -- the network -----------------------------------------------------------------------------------------------------
def test_presets_have_the_sizes_they_promise():
    """104.4 million weights of the published one by the notes on its paper, with another vocabulary and embeddings."""
    small = Config(features=25, queries=33, outputs=5, vocabulary=1070)
    counts = {p: sum(w.numel() for w in Transformer(small.preset(p)).parameters()) / 1e6 for p in PRESETS}
    assert counts["published"] == pytest.approx(104.4, rel=0.01)
    assert counts["middle"] == pytest.approx(14, rel=0.05)
    assert counts["small"] < 2.5


def test_attention_is_that_of_torch():
    """On CPUs it is written out; the fused one of torch must say the same."""
    g = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(2, 3, 5, 8, generator=g) for _ in range(3))
    mask = torch.rand(2, 1, 1, 5, generator=g) < 0.7
    mask[..., 0] = True
    reference = torch.nn.functional.scaled_dot_product_attention
    torch.testing.assert_close(attend(q, k, v, mask, False), reference(q, k, v, attn_mask=mask))
    torch.testing.assert_close(attend(q, k, v, None, True), reference(q, k, v, is_causal=True))


def test_queries_do_not_see_each_other(net, given):
    data, seen, told, queries, _ = given
    fused, mask = net.encode(data, seen, told)
    together = net.values(fused, mask, queries)
    alone = torch.cat([net.values(fused, mask, queries[:, i : i + 1]) for i in range(5)], 1)
    torch.testing.assert_close(together, alone)


def test_later_tokens_do_not_influence_earlier_ones(net, given):
    data, seen, told, _, tokens = given
    fused, mask = net.encode(data, seen, told)
    changed = tokens.clone()
    changed[:, 7:] = 3
    a, b = net.logits(fused, mask, tokens), net.logits(fused, mask, changed)
    torch.testing.assert_close(a[:, :7], b[:, :7])
    assert (a[:, 7:] - b[:, 7:]).abs().max() > 1e-3


def test_what_may_not_be_seen_has_no_influence(net, given):
    data, _, told, queries, tokens = given
    seen = torch.arange(6).expand(B, -1) >= 2
    other = data.clone()
    other[:, :2] = 100.0
    padded = torch.nn.functional.pad(told, (0, 5))
    for a, b in zip(net(data, seen, told, queries, tokens), net(other, seen, padded, queries, tokens), strict=True):
        torch.testing.assert_close(a, b)


def test_the_equation_that_is_told_matters(net, given):
    data, seen, told, queries, tokens = given
    a, b = (net(data, seen, t, queries, tokens)[0] for t in (told, told.flip(1)))
    assert (a - b).abs().max() > 1e-4


def test_positions_are_sines_of_growing_periods():
    p = sinusoids(50, 8)
    n = torch.arange(50)
    torch.testing.assert_close(p[:, 0], n.float().sin())
    torch.testing.assert_close(p[:, 7], (n * 1e4**-0.75).cos())


def test_refuses_sizes_that_do_not_fit(net):
    with pytest.raises(ValueError, match="multiple of twice the heads"):
        Config(1, 1, 1, 10, width=30, heads=4)
    with pytest.raises(ValueError, match="unknown preset"):
        SIZES.preset("large")
    with pytest.raises(ValueError, match="at most 48"):
        net.embed_symbols(torch.ones(1, 49, dtype=torch.long))
    assert Attention(8, 2).heads == 2


# -- the search ------------------------------------------------------------------------------------------------------
def test_the_cache_gives_what_all_tokens_at_once_give(net, given):
    data, seen, told, _, tokens = given
    with torch.no_grad():
        fused, mask = net.encode(data, seen, told)
        whole = net.logits(fused, mask, tokens).log_softmax(-1)
        cache = Cache(net, fused, mask)
        steps = torch.stack([cache.step(tokens[:, i]) for i in range(tokens.shape[1])], 1)
    torch.testing.assert_close(steps, whole, atol=1e-5, rtol=1e-4)


def whole(tokens, fields) -> int | None:
    """Number of expressions in tokens; None where they are whole but have no value, such as a division by zero."""
    try:
        return len(read(tokens, fields))
    except ValueError as error:
        if "no value" in str(error):
            return None
        raise


@pytest.mark.parametrize("length", [12, 48])
@pytest.mark.parametrize("beams", [1, 3])
def test_within_the_grammar_even_an_untrained_network_writes_whole_systems(net, given, beams, length):
    data, seen, told, _, _ = given
    components = torch.tensor([1, 2, 3, 5])
    fields = torch.arange(5) < components[:, None]
    with torch.no_grad():
        fused, mask = net.encode(data, seen, told)
    tokens, scores = search(net, V, fused, mask, beams=beams, length=length, grammar=Grammar(V, components, fields))
    for rows, n in zip(tokens.tolist(), components.tolist(), strict=True):
        for row in rows:
            components = whole(V.decode(row), V.fields[:n])
            assert components in (n, None)
    assert (scores.diff(dim=1) <= 0).all()


def test_free_search_writes_no_placeholder_and_nothing_after_the_end(net, given):
    data, seen, told, _, _ = given
    with torch.no_grad():
        fused, mask = net.encode(data, seen, told)
    rows = search(net, V, fused, mask, beams=2, length=20)[0].flatten(0, 1)
    assert (rows != V.number[PLACEHOLDER]).all()
    for row in rows.tolist():
        if V.number[EOS] in row:
            assert set(row[row.index(V.number[EOS]) + 1 :]) <= {V.number[PAD]}


def test_more_beams_find_nothing_less_probable():
    """A network of which greedy search is misled: the best first token has no good successor."""
    torch.manual_seed(3)
    net = Transformer(SIZES).eval()
    with torch.no_grad():
        net.embed_token.weight.mul_(3.0)
        fused, mask = net.encode(torch.randn(8, 6, 7), torch.ones(8, 6, dtype=torch.bool), torch.ones(8, 3).long())
        total = {}
        for beams in (1, 8):
            tokens, mean = search(net, V, fused, mask, beams=beams, length=6)
            total[beams] = mean[:, 0] * (tokens[:, 0] != V.number[PAD]).sum(-1)
    assert (total[8] >= total[1] - 1e-4).float().mean() > 0.8
