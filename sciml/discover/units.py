"""Units of terms, so that what is found is printed with its unit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from sciml.equation.expression import Apply, Coord, Expr, Number

Powers = Counter[str]
"""exponents by base unit"""
LENGTH = {"dx": -1, "dy": -1, "lap": -2, "J": -2}
"""what differential operators add to the exponent of the metre"""


def powers(unit: str) -> Powers:
    """Of a unit as CF writes it, ``m2 s-1``. Raises ``ValueError`` for other forms."""
    found: Powers = Counter()
    for part in unit.split():
        match = re.fullmatch(r"([a-zA-Z]+)(-?\d+)?", part)
        if match is None and part != "1":
            raise ValueError(f"the unit {unit!r} is not written as in 'm2 s-1'")
        if match is not None:
            found[match[1]] += int(match[2] or 1)
    return found


def text(unit: Powers) -> str:
    """As CF writes it."""
    return " ".join(f"{name}{'' if n == 1 else n}" for name, n in sorted(unit.items()) if n)


def of(e: Expr, units: Mapping[str, str]) -> Powers:
    """Unit of an expression from those of its fields and parameters."""
    if isinstance(e, Number):
        return Counter()
    if isinstance(e, Coord):
        return Counter({"s": 1} if e.name == "t" else {"m": 1})
    if not isinstance(e, Apply):
        return powers(units.get(e.name, "1"))
    own = [of(a, units) for a in e.args]
    total: Powers = Counter()
    if e.op == "pow":
        exponent = e.args[1]
        n = int(exponent.value) if isinstance(exponent, Number) else 1
        return Counter({name: n * p for name, p in own[0].items()})
    for part in own if e.op in ("mul", "J") else own[:1]:
        for name, n in part.items():
            total[name] += n
    total["m"] += LENGTH.get(e.op, 0)
    return total


def shown_unit(e: Expr, field: str, units: Mapping[str, str]) -> str:
    """Unit of the coefficient of a term of ``d field / dt``, with a space before it; nothing without units."""
    if field not in units:
        return ""
    rate = powers(units[field])
    rate["s"] -= 1
    for name, n in of(e, units).items():
        rate[name] -= n
    return f" {text(rate)}" if text(rate) else ""
