"""Whether two engines computed the same thing: no ratio is printed for different answers."""

from __future__ import annotations

import numpy as np


class Disagreement(AssertionError):
    """The rival's column is not the one that was to be timed."""


def require_agreement(
    name: str,
    ours: np.ndarray,
    theirs: np.ndarray,
    *,
    skip: np.ndarray | None = None,
    tolerance: float = 1e-4,
    share: float = 0.999,
) -> None:
    """Raises unless ``share`` of the values both have are within ``tolerance`` of the scale.

    Null is NaN in both arrays. ``skip`` marks rows to leave out, such as a seed that still fades.
    The question is whether the definition is the same, not who is more accurate: rivals keep
    running sums that drift (pandas' rolling variance of a price is off by 1e-6 after two million
    rows), and divide rounding errors where a window is constant.
    """
    finite = np.isfinite(ours) & np.isfinite(theirs)
    if skip is not None:
        finite &= ~skip
    wanted = np.isfinite(theirs) if skip is None else np.isfinite(theirs) & ~skip
    if finite.sum() < 0.98 * wanted.sum() or not finite.any():
        raise Disagreement(f"{name}: {finite.sum()} values where the rival has {wanted.sum()}")
    a, b = ours[finite], theirs[finite]
    near = np.abs(a - b) <= tolerance * (np.abs(b) + np.median(np.abs(b)))
    if near.mean() < share:
        worst = np.argmax(np.abs(a - b))
        raise Disagreement(
            f"{name}: only {near.mean():.2%} of the values agree; for example {a[worst]!r} here and"
            f" {b[worst]!r} in the rival"
        )
