r"""Operator splitting: parts of an equation advance one after the other, each in its own way.

With :math:`R = A + B` and flows :math:`e^{hA}, e^{hB}`, Lie's :math:`e^{hB} e^{hA}` is of first order, Strang's
:math:`e^{hA/2} e^{hB} e^{hA/2}` (1968, SIAM J. Numer. Anal. 5, 506) of second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from sciml.insr.step import Advance, NeuralStep
from sciml.insr.systems import System
from sciml.step import State

Part = tuple[System, Advance]
"""An equation's part, such as ``strong(equation, ["advection"])``, and how it advances."""


def lie(*parts: Part) -> Advance:
    """All parts over the whole step, the first one first."""
    return sequence([(system, advance, 0.0, 1.0) for system, advance in parts])


def strang(*parts: Part) -> Advance:
    """All but the last over half the step, the last over the whole, and the others over the second half, in reverse."""
    *others, (system, advance) = parts
    before = [(*part, 0.0, 0.5) for part in others]
    after = [(*part, 0.5, 0.5) for part in reversed(others)]
    return sequence([*before, (system, advance, 0.0, 1.0), *after])


def sequence(stages: Sequence[tuple[System, Advance, float, float]]) -> Advance:
    """Stages ``(part, advance, start, length)``, both in steps."""

    def advanced(step: NeuralStep, state: State, x: Tensor, root: Tensor) -> tuple[Tensor, list[float]]:
        if wrong := [s for s, *_ in stages if (s.fields, s.left) != (step.system.fields, step.system.left)]:
            raise ValueError(f"a part steps {wrong[0].left} of {wrong[0].fields}, not what the equation steps")
        theta, found = state.z, []
        for system, advance, start, length in stages:
            own = replace(step, system=system, dt=length * step.dt)
            notes = state.memory[1].new_tensor([0.0, own.dt, 0.0, 0.0])
            begun = State(theta, state.time + start * step.dt, (state.memory[0], notes), state.rng)
            theta, notes = advance(own, begun, x, root)
            found.append(notes)
        residuals, lengths, evaluations, errors = zip(*found, strict=True)
        return theta, [max(residuals), min(lengths), sum(evaluations), sum(errors)]

    return advanced
