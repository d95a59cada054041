"""Change detection."""

import math

from gpukern.kernel import NAN, NULL, boolean, integer, number, step


@step("x", out="cusum_stat, cusum_pos, cusum_neg, cusum_alarm:b, cusum_dir:i8",
      params=[number("k", 0.5, low=0), number("h", 5.0, low=0), number("mu", None, optional=True),
              number("sigma", None, above=0, optional=True), integer("calib", 100, low=2),
              boolean("reset", True), boolean("recalibrate", False)],
      first="1 if mu is not None and sigma is not None else calib + 1", units="1, 1, 1, flag, sign",
      source="Page 1954, tabular two-sided")  # fmt: skip
class cusum:
    """Two-sided CUSUM: S⁺ = max(0, S⁺ + z − k), S⁻ = max(0, S⁻ − z − k), z = (x − μ)/σ.

    Alarm where one of them exceeds ``h``; dir +1 for S⁺, −1 for S⁻, 0 without alarm; stat is the
    larger, before the reset. ``reset``: both return to 0 after an alarm. What is not given of
    ``mu`` and ``sigma`` is estimated (ddof 1) from the first ``calib`` rows, which emit null, and
    with ``recalibrate`` again from the ``calib`` rows after each alarm. Null while σ = 0.
    """

    state = "pos neg n mean spread"

    def init():
        return 0.0, 0.0, 0.0, 0.0, 0.0

    def step(pos, neg, n, mean, spread, x, k, h, mu, sigma, calib, reset, recalibrate, null):
        estimates = mu != mu or sigma != sigma
        if estimates and n < calib:
            n += 1.0
            gap = x - mean if n > 1.0 else 0.0
            mean = mean + gap / n if n > 1.0 else x
            spread = spread + gap * (x - mean) if n > 1.0 else 0.0
            # From the last of these rows on, ``spread`` is σ itself.
            spread = math.sqrt(spread / (calib - 1.0)) if n == calib else spread
            return (pos, neg, n, mean, spread), (null, null, null, NULL, NULL)
        centre = mean if mu != mu else mu
        scale = spread if sigma != sigma else sigma
        if scale == 0.0:
            return (pos, neg, n, mean, spread), (NAN, NAN, NAN, NULL, NULL)
        z = (x - centre) / scale
        pos = max(pos + (z - k), 0.0)
        neg = max(neg - (z + k), 0.0)
        stat = max(neg, pos)
        if stat <= h:
            return (pos, neg, n, mean, spread), (stat, pos, neg, 0, 0)
        if stat != stat:
            return (pos, neg, n, mean, spread), (stat, pos, neg, NULL, NULL)
        out = (stat, pos, neg, 1, 1 if pos >= neg else -1)
        pos = 0.0 if reset == 1 else pos
        neg = 0.0 if reset == 1 else neg
        n = 0.0 if recalibrate == 1 else n
        return (pos, neg, n, mean, spread), out
