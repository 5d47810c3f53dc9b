"""Equations from the network: greedy and beam search, free or within the grammar of whole systems."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.equation.tokens import (
    BOS,
    COORDINATES,
    EOS,
    EXPONENTS,
    INTEGERS,
    MANTISSAS,
    OPERATORS,
    PAD,
    PLACEHOLDER,
    SEPARATOR,
    SIGNS,
    Vocabulary,
)  # fmt: skip
from sciml.nn.prose import KeysValues, Transformer

FREE, SIGN, MANTISSA = 0, 1, 2
"""What came last: anything, a sign or a mantissa, which only one kind of token may follow."""


@dataclass
class Progress:
    """How far each hypothesis has come, ``(n,)`` each: expressions still wanted, what came last, components begun."""

    wanted: Tensor
    last: Tensor
    components: Tensor
    ended: Tensor

    def select(self, rows: Tensor) -> Progress:
        return Progress(self.wanted[rows], self.last[rows], self.components[rows], self.ended[rows])


class Grammar:
    """Which token may follow, so that what is decoded is a whole system of ``components`` in some of the fields."""

    def __init__(self, vocabulary: Vocabulary, components: Tensor, fields: Tensor | None = None):
        """``components (n,)`` and ``fields (n, number of fields)``, true where a field may appear, of each system."""
        device = components.device
        kinds = dict.fromkeys(OPERATORS, "operator") | dict.fromkeys(SIGNS, "sign")
        kinds |= dict.fromkeys(MANTISSAS, "mantissa") | dict.fromkeys(EXPONENTS, "exponent")
        kinds |= dict.fromkeys((*INTEGERS, *COORDINATES, *vocabulary.fields), "leaf")
        kinds |= {SEPARATOR: "separator", EOS: "end", PAD: "pad"}
        self.kind = {
            k: torch.tensor([kinds.get(t) == k for t in vocabulary.tokens], device=device)
            for k in ("operator", "sign", "mantissa", "exponent", "leaf", "separator", "end", "pad")
        }
        grows = [OPERATORS.get(t, 1 if kinds.get(t) == "sign" else 0) - 1 for t in vocabulary.tokens]
        grows = [
            0 if kinds.get(t) in ("sign", "mantissa") else g for t, g in zip(vocabulary.tokens, grows, strict=True)
        ]
        self.grows = torch.tensor(grows, device=device)
        self.arity = torch.tensor([OPERATORS.get(t, 0) for t in vocabulary.tokens], device=device)
        self.stage = torch.zeros(len(vocabulary), dtype=torch.long, device=device)
        self.stage[self.kind["sign"]], self.stage[self.kind["mantissa"]] = SIGN, MANTISSA
        self.components = components
        own = len(vocabulary) - len(vocabulary.fields)
        self.usable = torch.ones(len(components), len(vocabulary), dtype=torch.bool, device=device)
        if fields is not None:
            self.usable[:, own:] = fields

    def start(self, rows: Tensor) -> Progress:
        n = len(rows)
        whole = torch.ones(n, dtype=torch.long, device=self.components.device)
        return Progress(whole, whole * FREE, whole.clone(), torch.zeros_like(whole, dtype=torch.bool))

    def allowed(self, at: Progress, rows: Tensor, left: int) -> Tensor:
        """``(n, vocabulary)``: tokens after which ``left - 1`` more can still make the system whole."""
        further = self.components[rows] - at.components
        kind, full = self.kind, (at.wanted == 0)[:, None]
        last = at.last[:, None]
        # a component that has not begun takes a separator and a token
        room = (left - 1 - 2 * further - 1 - at.wanted)[:, None]
        start = kind["leaf"] | (kind["sign"] & (room >= 1)) | (kind["operator"] & (room >= self.arity - 1))
        free = torch.where(
            full, kind["separator"] & (further > 0)[:, None] | kind["end"] & (further <= 0)[:, None], start
        )
        out = torch.where(last == SIGN, kind["mantissa"], torch.where(last == MANTISSA, kind["exponent"], free))
        return torch.where(at.ended[:, None], kind["pad"], out & self.usable[rows])

    def advance(self, at: Progress, token: Tensor) -> Progress:
        separated = self.kind["separator"][token]
        change = torch.where(self.kind["end"][token] | self.kind["pad"][token] | separated, 0, self.grows[token])
        return Progress(
            torch.where(separated, 1, at.wanted + change), self.stage[token], at.components + separated.long(),
            at.ended | self.kind["end"][token],
        )  # fmt: skip


class Cache:
    """The symbol decoder one token at a time, with the keys and values of all that came before."""

    def __init__(self, net: Transformer, fused: Tensor, mask: Tensor):
        self.net, self.mask = net, mask[:, None, None]
        self.memory = [layer.cross.keys_values(fused) for layer in net.decoder]
        self.past: list[list[KeysValues]] = [[] for _ in net.decoder]
        self.at = 0

    def step(self, tokens: Tensor) -> Tensor:
        """Log-probabilities ``(n, vocabulary)`` of what follows ``tokens (n,)``."""
        x = self.net.embed_symbols(tokens[:, None], self.at)
        for layer, memory, past in zip(self.net.decoder, self.memory, self.past, strict=True):
            x = layer(x, memory, self.mask, past=past)
        self.at += 1
        return self.net.scores(x)[:, 0].log_softmax(-1)

    def select(self, rows: Tensor, all_layers: bool = True) -> None:
        """Keep these hypotheses; the memory is shared by those of one system, so that it stays with ``all_layers``."""
        self.past = [[(k[rows], v[rows]) for k, v in past] for past in self.past]
        if all_layers:
            self.memory = [(k[rows], v[rows]) for k, v in self.memory]
            self.mask = self.mask[rows]


@torch.no_grad()
def search(
    net: Transformer, vocabulary: Vocabulary, fused: Tensor, mask: Tensor, *, beams: int = 1, length: int | None = None,
    grammar: Grammar | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Beam search of equations: tokens ``(batch, beams, length)``, padded, best first, and log-probability per token.

    With a ``grammar`` nothing but whole systems comes out. One beam is greedy search.
    """
    n, device = len(fused), fused.device
    length = length or net.config.length
    rows = torch.arange(n, device=device).repeat_interleave(beams)
    cache = Cache(net, fused, mask)
    cache.select(rows)
    special = vocabulary.encode([PAD, BOS, EOS, PLACEHOLDER])
    pad, bos, eos, placeholder = special
    tokens = torch.full((n * beams, 1), bos, device=device)
    score = torch.full((n, beams), -math.inf, device=device)
    score[:, 0] = 0.0
    at = grammar.start(rows) if grammar is not None else None
    ended = torch.zeros(n * beams, dtype=torch.bool, device=device)
    count = torch.zeros(n * beams, device=device)
    for left in range(length, 0, -1):
        logp = cache.step(tokens[:, -1])
        logp[:, [bos, placeholder]] = -math.inf
        if grammar is not None and at is not None:
            logp = logp.masked_fill(~grammar.allowed(at, rows, left), -math.inf)
        logp[:, pad] = torch.where(ended, 0.0, -math.inf)
        logp = torch.where(ended[:, None] & (torch.arange(len(vocabulary), device=device) != pad), -math.inf, logp)
        total, flat = (score.reshape(-1, 1) + logp).view(n, -1).topk(beams)
        score = total
        parent = (torch.arange(n, device=device)[:, None] * beams + flat // len(vocabulary)).reshape(-1)
        token = (flat % len(vocabulary)).reshape(-1)
        tokens = torch.cat([tokens[parent], token[:, None]], 1)
        count = count[parent] + ~ended[parent]
        ended = ended[parent] | (token == eos)
        cache.select(parent, all_layers=False)
        if grammar is not None and at is not None:
            at = grammar.advance(at.select(parent), token)
        if bool(ended.all()):
            break
    mean = score / count.view(n, beams).clamp(min=1)
    best = mean.argsort(-1, descending=True)
    return tokens[:, 1:].view(n, beams, -1).gather(1, best[..., None].expand(-1, -1, tokens.shape[1] - 1)), mean.gather(
        1, best
    )
