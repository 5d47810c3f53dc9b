"""What the network is told of equations, and what it must write: known, skeletons, corrupted ones, or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciml.equation.expression import Expr, Field, Number, Param, parts, wrap
from sciml.equation.tokens import BOS, EOS, Vocabulary, read, skeleton, write

KNOWN, SKELETON, CORRUPTED, NONE = range(4)
"""How much is told: the equation with its numbers, without them, with a term too many or too few, or nothing."""
GUESSES = ("known", "skeleton", "corrupted", "none")


def corrupted(system: Sequence[Expr], generator: torch.Generator, further: Callable[..., Expr]) -> tuple[Expr, ...]:
    """With probability 0.15 a term less, with 0.15 one more, else as it is; Liu et al. (2023), arXiv 2309.16816,
    section 4.2. ``further(components, generator)`` is a term without its constant."""
    u, which = torch.rand(2, generator=generator).tolist()
    i = int(which * len(system))
    if u < 0.15:
        terms = list(parts(system[i], "add"))
        terms.pop(_choice(len(terms), generator))
        new = sum(terms, wrap(0.0))
    elif u < 0.3:
        new = system[i] + Param("new") * further(len(system), generator)
    else:
        return tuple(system)
    return (*system[:i], new, *system[i + 1 :])


def polynomial(components: int, generator: torch.Generator) -> Expr:
    """1, a field, or a product of two of them."""
    term: Expr = wrap(1.0)
    for _ in range(_choice(3, generator)):
        term = term * Field(f"u_{_choice(components, generator)}")
    return term


def one_of(*terms: Expr) -> Callable[[int, torch.Generator], Expr]:
    """Any of these terms."""
    return lambda components, generator: terms[_choice(len(terms), generator)]


def _choice(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=generator))


@dataclass(frozen=True)
class Symbols:
    """Tokens of equations as tables, so that a batch is a matter of indexing.

    Parameters
    ----------
    written : tokens ``(equations, length)`` that the network shall write, padded with 0
    skeletons : the same without numbers
    pool : corrupted skeletons ``(families, variants, length)``
    family : of each equation
    """

    vocabulary: Vocabulary
    written: Tensor
    skeletons: Tensor
    pool: Tensor
    family: Tensor

    @classmethod
    def of(
        cls, vocabulary: Vocabulary, equations: Sequence[Sequence[Expr]], family: Tensor, *,
        further: Callable[..., Expr] = polynomial, variants: int = 200, seed: int = 0, length: int = 192,
    ) -> Symbols:  # fmt: skip
        """Tables of equations, and of each family's most common skeleton corrupted in so many ways.

        Raises ``ValueError`` for an equation of more than ``length - 1`` tokens.
        """
        tokens = [write(e) for e in equations]
        if (longest := max(map(len, tokens))) >= length:
            raise ValueError(
                f"an equation has {longest} tokens, and the network takes {length - 1}; choose a longer one"
            )
        known = {tuple(t) for t in tokens}
        ids = {t: vocabulary.encode(t) for t in known | {tuple(skeleton(t)) for t in known}}
        rows = [ids[tuple(t)] for t in tokens]
        bare = [ids[tuple(skeleton(t))] for t in tokens]
        generator = torch.Generator().manual_seed(seed)
        pool = []
        for f in range(int(family.max()) + 1 if len(family) else 0):
            own = Counter(tuple(skeleton(tokens[i])) for i in torch.nonzero(family == f).flatten().tolist())
            form = read(own.most_common(1)[0][0], vocabulary.fields) if own else (Number(0.0),)
            changed = [corrupted(form, generator, further) for _ in range(variants)]
            pool.append(padded([vocabulary.encode(write(c))[: length - 1] for c in changed], length))
        table = torch.stack(pool) if pool else torch.zeros(0, variants, length, dtype=torch.long)
        return cls(vocabulary, padded(rows, length), padded(bare, length), table, family)

    def to(self, device: torch.device | str) -> Symbols:
        moved = {n: getattr(self, n).to(device) for n in ("written", "skeletons", "pool", "family")}
        return replace(self, **moved)

    @property
    def lengths(self) -> Tensor:
        """Number of tokens of each equation."""
        return (self.written != 0).sum(-1)

    def told(self, equation: Tensor, guess: Tensor, variant: Tensor, length: int | None = None) -> Tensor:
        """What the network is told, ``(batch, length)`` from :data:`BOS` on, of equations by number.

        ``guess (batch,)`` is one of KNOWN, SKELETON, CORRUPTED, NONE, and ``variant`` chooses the corruption. Without
        a ``length`` it is that of the longest.
        """
        pool = self.pool[self.family[equation], variant % self.pool.shape[1]]
        tables = [self.written[equation], self.skeletons[equation], pool, torch.zeros_like(pool)]
        chosen = torch.stack(tables).gather(0, guess[None, :, None].expand(1, *pool.shape))[0]
        told = torch.cat([self._one(BOS, equation), chosen[:, :-1]], 1)
        return trimmed(told) if length is None else told[:, :length]

    def guesses(self, equation: Tensor, guess: int, seed: int = 0) -> list[list[str]]:
        """What :class:`~sciml.prose.model.PROSE` is told of equations by number: one of KNOWN to NONE for all."""
        generator = torch.Generator().manual_seed(seed)
        variant = torch.randint(1 << 20, (len(equation),), generator=generator).to(equation.device)
        rows = self.told(equation, torch.full_like(equation, guess), variant)
        return [self.vocabulary.decode(row) for row in rows.tolist()]

    def target(self, equation: Tensor, length: int | None = None) -> tuple[Tensor, Tensor]:
        """Input and output of the symbol decoder: the tokens from the beginning on, and each one's successor."""
        own = self.written[equation]
        given = torch.cat([self._one(BOS, equation), own[:, :-1]], 1)
        given = trimmed(given) if length is None else given[:, :length]
        following = torch.cat([own, torch.zeros_like(own[:, :1])], 1)
        following.scatter_(1, (own != 0).sum(-1, keepdim=True), self.vocabulary.number[EOS])
        return given, following[:, : given.shape[1]]

    def _one(self, token: str, like: Tensor) -> Tensor:
        return torch.full((len(like), 1), self.vocabulary.number[token], device=like.device)


def padded(rows: Sequence[Sequence[int]], length: int) -> Tensor:
    """Rows of different lengths in one table, with zeros after their ends."""
    return torch.tensor([[*row, *[0] * (length - len(row))] for row in rows], dtype=torch.long)


def trimmed(tokens: Tensor) -> Tensor:
    """Without the columns in which all rows are padding, up to a multiple of eight."""
    used = int((tokens != 0).any(0).sum())
    return tokens[:, : min(-(-used // 8) * 8, tokens.shape[1])]
