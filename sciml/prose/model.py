"""A trained PROSE network with its vocabulary and its view of the data, in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciml.equation.tokens import BOS, Vocabulary
from sciml.files import load_tensors, refusing, save_tensors
from sciml.nn.prose import Config, Transformer
from sciml.prose.decode import Grammar, search
from sciml.prose.symbols import padded, trimmed
from sciml.prose.windows import Lines, Maps, View, Windows

KIND = "PROSE network"
VIEWS: dict[str, Any] = {"Windows": Windows, "Lines": Lines, "Maps": Maps}
"""Views of the data that files may name; each is made of its own fields."""


@dataclass(frozen=True)
class Written:
    """A decoded equation: its tokens, and their mean log-probability."""

    tokens: list[str]
    score: float


@dataclass(frozen=True)
class PROSE:
    """Predicts the values of a trajectory and writes its equation.

    Parameters
    ----------
    view : how data become tokens and times queries (:class:`sciml.prose.windows.Windows`)
    about : whatever shall be known of the training, such as ``names`` of the families

    Examples
    --------
    >>> from sciml.equation.tokens import read
    >>> from sciml.prose.ordinary import SYSTEMS
    >>> from sciml.prose.trajectories import generate
    >>> prose = sm.PROSE.load("data/weights/prose_ode.safetensors")
    >>> runs = generate([SYSTEMS["thomas"]], 1, 1, seed=0)
    >>> t, u = runs.t[:64], runs.u[:, :64]
    >>> ahead = prose.predict(t, u, runs.t[64:])  # values at later times
    >>> bool((ahead - runs.u[:, 64:]).norm() < 0.2 * runs.u[:, 64:].norm())
    True
    >>> best, *others = prose.write(t, u, runs.dims)[0]  # its equation as tokens, likeliest first
    >>> len(read(best.tokens, prose.vocabulary.fields))
    3
    """

    net: Transformer
    vocabulary: Vocabulary
    view: View
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.net.modality.device

    @torch.no_grad()
    def encode(
        self, t: Tensor, u: Tensor, told: Sequence[Sequence[str]] | None = None, tokens: Tensor | None = None,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Fused tokens, which may be seen, and scales of windows ``u (n, points, ...)`` at times ``t (points,)``.

        Raises ``ValueError`` for windows that the network was not trained for: other times than ``view.dt`` apart from
        0 on, values that are not finite or all zero, none that may be seen.

        Parameters
        ----------
        told : tokens of an equation, or of a guess of it, for each window; nothing is told without it
        tokens : how many of the last parts of the windows may be seen ``(n,)``
        context : what is known of each system beside, such as maps of topography ``(n, y, x)``
        """
        t, u = torch.as_tensor(t), torch.as_tensor(u)
        if not bool(torch.isfinite(u).all()):
            raise ValueError("the window is not finite everywhere; leave out such trajectories, or fill the gaps")
        expected = self.view.dt * torch.arange(self.view.points)
        if t.shape == expected.shape and not bool((t.cpu() - expected).abs().max() <= 1e-3 * self.view.span):
            raise ValueError(
                f"the network sees {len(expected)} times from 0 to {float(expected[-1]):g}, {self.view.dt:g} apart, "
                f"got {float(t[0]):g} to {float(t[-1]):g}; interpolate to these, time in a unit that makes them fit"
            )
        if len(u) and bool((u == 0).flatten(1).all(1).any()):
            raise ValueError("a window is zero everywhere")
        if tokens is not None and not bool(((tokens >= 1) & (tokens <= self.view.steps)).all()):
            raise ValueError(f"tokens, the parts of each window that may be seen, must be from 1 to {self.view.steps}")
        if told is not None and len(told) != len(u):
            raise ValueError(
                f"{len(told)} equations for {len(u)} windows; give one for each, empty where none is known"
            )
        data, seen, scale = self.view.see(t.float().to(self.device), u.float().to(self.device), tokens, context)
        rows = [self.vocabulary.encode([BOS, *(e or ())]) for e in (told or [[]] * len(u))]
        longest = max(map(len, rows))
        symbols = trimmed(padded(rows, -(-longest // 8) * 8).to(self.device))
        return *self.net.encode(data, seen, symbols), scale

    @torch.no_grad()
    def predict(
        self, t: Tensor, u: Tensor, times: Tensor, told=None, tokens: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Values at ``times (q,)`` after windows ``u (n, points, ...)`` at ``t (points,)``, in units of u.

        Raises ``ValueError`` for times outside those that the network was trained for.
        """
        t, u, times = torch.as_tensor(t), torch.as_tensor(u), torch.as_tensor(times)
        first, last = float(t[-1]), self.view.span
        if bool((times < first - 1e-6).any()) or bool((times > last + 1e-6).any()):
            raise ValueError(f"times to predict must be from {first:g} to {last:g}, which the network was trained for")
        fused, mask, scale = self.encode(t, u, told, tokens, context)
        queries = self.view.ask(times.float().to(self.device), u.float().to(self.device), context)
        return self.view.values(self.net.values(fused, mask, queries) * scale)

    def write(
        self, t: Tensor, u: Tensor, components: Tensor, told=None, *, tokens: Tensor | None = None, beams: int = 1,
        constrained: bool = True, context: Tensor | None = None, fields: Tensor | None = None,
    ) -> list[list[Written]]:  # fmt: skip
        """Equations of windows, best first: ``beams`` for each.

        Parameters
        ----------
        components : number of expressions of each system ``(n,)``
        fields : which of the vocabulary's fields each may use ``(n, fields)``; by default as many as it has components
        constrained : only whole systems are written; without it, whatever is most probable
        """
        fused, mask, _ = self.encode(t, u, told, tokens, context)
        components = torch.as_tensor(components).to(self.device)
        if components.shape != (len(u),) or not bool((components >= 1).all()) or beams < 1:
            raise ValueError(f"components must be the number of expressions of each of {len(u)} systems, from 1 on, "
                             f"and beams at least 1; got {components.tolist()} and {beams}")  # fmt: skip
        if fields is None and bool((components > len(self.vocabulary.fields)).any()):
            raise ValueError(f"the network knows the fields {', '.join(self.vocabulary.fields)}; components must be at "
                             f"most {len(self.vocabulary.fields)}, got {components.tolist()}")  # fmt: skip
        if fields is None:
            fields = torch.arange(len(self.vocabulary.fields), device=self.device) < components[:, None]
        grammar = Grammar(self.vocabulary, components, fields) if constrained else None
        ids, scores = search(self.net, self.vocabulary, fused, mask, beams=beams, grammar=grammar)
        return [
            [Written(self.vocabulary.decode(row), s) for row, s in zip(r, scores[i].tolist(), strict=True)]
            for i, r in enumerate(ids.tolist())
        ]

    def save(self, path: Path, **about: Any) -> None:
        """Write everything (safetensors), weights in half precision."""
        header = {
            "kind": KIND, "config": asdict(self.net.config), "fields": list(self.vocabulary.fields),
            "view": type(self.view).__name__, "of_view": asdict(self.view),  # type: ignore[call-overload]
            "about": {**self.about, **about},
        }  # fmt: skip
        save_tensors(path, {n: p.half() for n, p in self.net.named_parameters()}, header)

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> PROSE:
        """What :meth:`save` wrote; raises ``ValueError`` for other files."""
        tensors, header = load_tensors(path, finite=True)
        if header.get("kind") != KIND:
            raise ValueError(f"{path} holds weights of another kind, {header.get('kind')}, not of PROSE")
        with refusing(path):
            net, vocabulary = Transformer(Config(**header["config"])), Vocabulary(tuple(header["fields"]))
            if net.config.vocabulary != len(vocabulary):
                known = f"{net.config.vocabulary} tokens, and equations have {len(vocabulary)} now"
                raise ValueError(f"it was trained with {known}; train it again")
            net.load_state_dict({n: t.float() for n, t in tensors.items()})
            view = VIEWS[header["view"]](**header["of_view"])
        return cls(net.to(device).eval(), vocabulary, view, header["about"])


def new(view: View, vocabulary: Vocabulary, preset: str, *, length: int, seed: int) -> PROSE:
    """An untrained model of a preset of :class:`~sciml.nn.prose.Config`, with weights drawn from a seed."""
    sizes = Config(view.features, view.queries, view.outputs, len(vocabulary), length=length).preset(preset)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PROSE(Transformer(sizes), vocabulary, view)
