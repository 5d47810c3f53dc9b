"""PROSE's two-modality transformer: values at any time and place, and an equation, from data and tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Config:
    """Sizes of the network.

    Parameters
    ----------
    features, queries, outputs : numbers in a data token, in a query, and in the answer to a query
    vocabulary : number of tokens
    width, heads, feedforward : of all layers
    data, symbol, fusion, operator, decoder : layers of the data encoder, the symbol encoder, the fusion, the operator
        decoder (cross-attention alone) and the symbol decoder
    length : largest number of tokens of an equation
    """

    features: int
    queries: int
    outputs: int
    vocabulary: int
    width: int = 128
    heads: int = 4
    feedforward: int = 512
    data: int = 1
    symbol: int = 1
    fusion: int = 2
    operator: int = 3
    decoder: int = 2
    length: int = 192

    def __post_init__(self):
        if self.width % (2 * self.heads):
            raise ValueError(f"width must be a multiple of twice the heads, got {self.width} and {self.heads}")

    def preset(self, name: str) -> Config:
        """With the sizes of a preset: ``small``, ``middle`` or ``published``."""
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
        return replace(self, **PRESETS[name])


PRESETS = {
    "small": {},
    "middle": {"width": 256, "heads": 8, "feedforward": 1024, "data": 2, "symbol": 2, "fusion": 4, "operator": 4,
               "decoder": 4},
    "published": {"width": 512, "heads": 8, "feedforward": 2048, "data": 2, "symbol": 4, "fusion": 8, "operator": 8,
                  "decoder": 8},
}  # fmt: skip
"""About 2, 14 and 104 million weights; ``published`` is the configuration of arXiv 2309.16816."""


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Scaled dot-product attention. The fused one's gradient takes half of all time for short sequences on a CPU."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(-1, dtype=v.dtype) @ v


class Attention(nn.Module):
    """Attention with normalised queries and keys (Henry et al. 2020), which high learning rates need."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.of_queries, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.of_memory = nn.Linear(width, 2 * width)
        self.norm_q, self.norm_k = (nn.LayerNorm(width // heads, bias=False) for _ in "qk")

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)

    def keys_values(self, memory: Tensor) -> KeysValues:
        k, v = (self.split(half) for half in self.of_memory(memory).chunk(2, -1))
        return self.norm_k(k).to(v.dtype), v

    def forward(self, x: Tensor, kv: KeysValues, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """``mask (batch, 1, 1, keys)`` is true where a key may be seen."""
        q = self.norm_q(self.split(self.of_queries(x))).to(kv[1].dtype)
        return self.out(attend(q, *kv, mask, causal).transpose(-2, -3).flatten(-2))


class Layer(nn.Module):
    """A pre-norm layer: attention to itself, to a memory, or to both, and two linear maps with GELU between them."""

    def __init__(self, config: Config, own: bool, memory: bool):
        super().__init__()
        width = config.width
        self.own = Attention(width, config.heads) if own else None
        self.cross = Attention(width, config.heads) if memory else None
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(1 + own + memory))
        self.up, self.down = nn.Linear(width, config.feedforward), nn.Linear(config.feedforward, width)

    def forward(
        self, x: Tensor, memory: KeysValues | None = None, mask: Tensor | None = None, causal: bool = False,
        past: list[KeysValues] | None = None,
    ) -> Tensor:  # fmt: skip
        """``mask`` is of the memory where there is one, else of x; ``past`` collects keys and values of earlier x."""
        norms = iter(self.norms)
        if self.own is not None:
            h = next(norms)(x)
            kv = self.own.keys_values(h)
            if past is not None:
                kv = kv if not past else (torch.cat([past[0][0], kv[0]], -2), torch.cat([past[0][1], kv[1]], -2))
                past[:] = [kv]
            x = x + self.own(h, kv, None if memory is not None else mask, causal)
        if self.cross is not None and memory is not None:
            x = x + self.cross(next(norms)(x), memory, mask)
        return x + self.down(F.gelu(self.up(next(norms)(x))))


def sinusoids(length: int, width: int) -> Tensor:
    """Positions as sines and cosines, (length, width); Vaswani et al. (2017), section 3.5."""
    angles = torch.arange(length)[:, None] * torch.exp(-math.log(1e4) * torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)


class Transformer(nn.Module):
    """Data tokens and an equation (or a guess of it, or none) to values at queries and to the tokens of the equation.

    Encoders of either, a fusion of both, an operator decoder whose queries see the fused tokens but not each other,
    so that any set of queries gives the same answers, and a causal decoder of tokens; Liu et al. (2023), arXiv
    2309.16816, with layers normalised before and not after, and decoders that see both modalities.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config, width = config, config.width
        self.embed_data = nn.Sequential(nn.Linear(config.features, width), nn.GELU(), nn.Linear(width, width))
        self.embed_token = nn.Embedding(config.vocabulary, width)
        self.embed_query = nn.Sequential(nn.Linear(config.queries, width), nn.GELU(), nn.Linear(width, width))
        self.modality = nn.Parameter(torch.zeros(2, width))
        self.data, self.symbol, self.fusion = (
            nn.ModuleList(Layer(config, own=True, memory=False) for _ in range(n))
            for n in (config.data, config.symbol, config.fusion)
        )
        self.operator: Any = nn.ModuleList(Layer(config, own=False, memory=True) for _ in range(config.operator))
        self.decoder: Any = nn.ModuleList(Layer(config, own=True, memory=True) for _ in range(config.decoder))
        self.norms = nn.ModuleDict({n: nn.LayerNorm(width) for n in ("memory", "operator", "decoder")})
        self.answer = nn.Linear(width, config.outputs)
        self.positions: Tensor
        self.register_buffer("positions", sinusoids(config.length, width), persistent=False)
        self.initialise()

    def initialise(self) -> None:
        depth = self.config.data + self.config.fusion + max(self.config.operator, self.config.decoder)
        for name, p in self.named_parameters():
            if p.ndim == 2 and name != "modality":
                last = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, std=p.shape[-1] ** -0.5 / (math.sqrt(2 * depth) if last else 1))
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        nn.init.normal_(self.embed_token.weight, std=self.config.width**-0.5)

    def encode(self, data: Tensor, seen: Tensor, symbols: Tensor) -> tuple[Tensor, Tensor]:
        """Fused tokens ``(batch, n, width)`` and whether each may be seen, of ``data (batch, m, features)`` with
        ``seen (batch, m)``, and of ``symbols (batch, k)`` padded with 0."""
        given = symbols != 0
        x = self.embed_data(data)
        for layer in self.data:
            x = layer(x, mask=seen[:, None, None])
        s = self.embed_symbols(symbols)
        for layer in self.symbol:
            s = layer(s, mask=given[:, None, None])
        fused, mask = torch.cat([x + self.modality[0], s + self.modality[1]], 1), torch.cat([seen, given], 1)
        for layer in self.fusion:
            fused = layer(fused, mask=mask[:, None, None])
        return self.norms["memory"](fused), mask

    def embed_symbols(self, symbols: Tensor, first: int = 0) -> Tensor:
        last = first + symbols.shape[1]
        if last > self.config.length:
            raise ValueError(f"an equation of {last} tokens; this network takes at most {self.config.length}")
        return self.embed_token(symbols) * math.sqrt(self.config.width) + self.positions[first:last]

    def values(self, fused: Tensor, mask: Tensor, queries: Tensor) -> Tensor:
        """Answers ``(batch, q, outputs)`` to ``queries (batch, q, queries)``."""
        x = self.embed_query(queries)
        for layer in self.operator:
            x = layer(x, layer.cross.keys_values(fused), mask[:, None, None])
        return self.answer(self.norms["operator"](x))

    def logits(self, fused: Tensor, mask: Tensor, tokens: Tensor) -> Tensor:
        """Logits of the token that follows each of ``tokens (batch, k)``, float32."""
        x = self.embed_symbols(tokens)
        for layer in self.decoder:
            x = layer(x, layer.cross.keys_values(fused), mask[:, None, None], causal=True)
        return self.scores(x)

    def scores(self, x: Tensor) -> Tensor:
        """Logits with the weights of the embedding."""
        return F.linear(self.norms["decoder"](x), self.embed_token.weight).float()

    def forward(
        self, data: Tensor, seen: Tensor, symbols: Tensor, queries: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Values at the queries, and logits of the next tokens."""
        fused, mask = self.encode(data, seen, symbols)
        return self.values(fused, mask, queries).float(), self.logits(fused, mask, tokens)
