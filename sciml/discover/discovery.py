"""What a model lacks, as an equation with units and error bars: printed, added to the model, saved as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path as File

import numpy as np

from sciml.discover.library import Library
from sciml.discover.sparse import Fit, Path
from sciml.discover.units import shown_unit
from sciml.equation.base import Term
from sciml.equation.expression import Expr, parts
from sciml.files import refusing, replacing


@dataclass(frozen=True)
class Discovery:
    """What a model lacks: by field a fit of the library, the path on which it was chosen and the low-pass."""

    library: Library
    fits: dict[str, Fit]
    paths: dict[str, Path]
    cuts: dict[str, float]
    units: dict[str, str]
    explained: str = "increments"
    """what the terms explain a share of"""

    @property
    def terms(self) -> tuple[Term, ...]:
        """As further terms of an equation: ``model + discovery``."""
        return tuple(
            Term(field, f"found {self.library.names[i]}", float(fit.coefficients[i]) * self.library.terms[i])
            for field, fit in self.fits.items()
            for i in fit.active
        )

    def coefficients(self) -> np.ndarray:
        """``(n, p)``."""
        return np.stack([fit.coefficients for fit in self.fits.values()])

    def std(self) -> np.ndarray:
        """Their standard errors, ``(n, p)``."""
        return np.stack([fit.std for fit in self.fits.values()])

    def __str__(self) -> str:
        lines = []
        for field, fit in self.fits.items():
            found = [
                f"{rounded(float(fit.coefficients[i]), float(fit.std[i]))}"
                f"{shown_unit(self.library.terms[i], field, self.units)} {factor(self.library.terms[i])}"
                for i in fit.active
            ]
            share = f"   (explains {1 - fit.unexplained:.1%} of {self.explained})" if found else ""
            lines.append(f"d {field}/dt lacks {'  '.join(found) or 'nothing'}{share}")
        return "\n".join(lines)

    def distance(self, truth: np.ndarray) -> dict[str, float]:
        r"""By field how far coefficients are from true ones ``(n, p)``, false terms apart:

        .. math:: |c / c^* - 1| / \sqrt{n}, \qquad \text{over the n terms with } c^* \ne 0;

        infinite where a term is false, 0 where nothing lacks and nothing was found.
        """
        found = {}
        for (field, fit), own in zip(self.fits.items(), truth, strict=True):
            there = own != 0
            off = fit.coefficients[there] / own[there] - 1
            false = bool((fit.coefficients[~there] != 0).any())
            found[field] = np.inf if false else float(np.sqrt((off**2).mean())) if there.any() else 0.0
        return found

    def save(self, path: File, truth: np.ndarray | None = None) -> None:
        """Write as JSON, which :meth:`load` reads; with true coefficients ``(n, p)``, where they are known, and the
        :meth:`distance` from them."""
        about = {
            field: {
                "coefficients": {self.library.names[i]: float(fit.coefficients[i]) for i in fit.active},
                "std": {self.library.names[i]: float(fit.std[i]) for i in fit.active},
                "units": {
                    self.library.names[i]: shown_unit(self.library.terms[i], field, self.units).strip()
                    for i in fit.active
                },
                "unexplained": fit.unexplained,
                "cut": self.cuts[field] if np.isfinite(self.cuts[field]) else None,
            }
            for field, fit in self.fits.items()
        }
        if truth is not None:
            for (field, off), own in zip(self.distance(truth).items(), truth, strict=True):
                about[field]["truth"] = {self.library.names[i]: float(own[i]) for i in np.flatnonzero(own)}
                about[field]["distance"] = off if np.isfinite(off) else None
        whole = {"library": self.library.names, "found": about, "units": self.units, "explained": self.explained}
        with replacing(path) as partial:
            partial.write_text(json.dumps(whole, indent=1) + "\n")

    @classmethod
    def load(cls, path: File) -> Discovery:
        """What :meth:`save` wrote: coefficients with their errors, without the paths on which they were chosen.

        Raises ``ValueError`` for a damaged file.
        """
        with refusing(File(path)):
            whole = json.loads(File(path).read_text())
            library, found = Library(tuple(whole["library"])), whole["found"]

            def column(values: dict[str, float]) -> np.ndarray:
                if unknown := values.keys() - set(library.names):
                    raise ValueError(f"{min(unknown)} is not in its library")
                return np.array([float(values.get(n, 0.0)) for n in library.names])

            fits = {
                f: Fit(library.names, column(own["coefficients"]), np.diag(column(own["std"])) ** 2, own["unexplained"])
                for f, own in found.items()
            }
            cuts = {f: np.inf if own["cut"] is None else own["cut"] for f, own in found.items()}
            return cls(library, fits, {}, cuts, dict(whole.get("units", {})), whole.get("explained", "increments"))


def factor(e: Expr) -> str:
    """Its text as a factor: a sum in brackets."""
    return f"({e})" if len(parts(e, "add")) > 1 else str(e)


def rounded(value: float, std: float) -> str:
    """``-5.83(2)e-07``: a number and its standard error in units of its last digit."""
    if not (np.isfinite(std) and std > 0 and value):
        return f"{value:+.6g}"
    exponent = int(np.floor(np.log10(abs(value))))
    shown = max(0, min(12, exponent - int(np.floor(np.log10(std)))))
    exponent += abs(round(value / 10.0**exponent, shown)) >= 10  # 9.999 is rounded to 10
    digits = max(0, min(12, exponent - int(np.floor(np.log10(std)))))
    error = round(std / 10.0 ** (exponent - digits))
    mantissa = f"{value / 10.0**exponent:+.{digits}f}({error})"
    return mantissa if exponent == 0 else f"{mantissa}e{exponent:+03d}"
