"""Order statistics of a rolling window: quantiles, historical risk, robust outliers."""

from gpukern import order
from gpukern.kernel import (
    NAN,
    NULL,
    boolean,
    choice,
    composite,
    min_periods,
    number,
    rank,
    window,
)


@rank("x", out="{x}_median{w}", params=[window(20), min_periods()], first="window", units="x",
      scale=1, source="pandas rolling.median")  # fmt: skip
class rolling_median:
    """Median of the window."""

    def value(s, n):
        return order.median(s, n)


@rank("x", out="{x}_q{q100}_{w}",
      params=[window(20), number("q", 0.5, low=0.0, high=1.0), min_periods()], first="window",
      units="x", scale=1,
      source="pandas rolling.quantile; polars rolling_quantile('linear')")  # fmt: skip
class rolling_quantile:
    """Quantile of the window, linear between order statistics.

    With x₍₀₎ ≤ … ≤ x₍ₙ₋₁₎, h = (n−1)q and j = ⌊h⌋: x₍ⱼ₎ + (h−j)(x₍ⱼ₊₁₎ − x₍ⱼ₎).
    """

    def reach(n, q):
        return order.quantile_reach(n, q)

    def value(s, n, q, reach):
        return order.quantile(s, n, q, reach)


@rank("pnl", out="var, cvar",
      params=[number("alpha", 0.05, above=0.0, below=1.0), window(250), min_periods(),
              choice("method", "tail_mean", "tail_mean", "acerbi")],
      first="window", units="pnl", scale=1, counting="cvar", hidden=True,
      source="Acerbi–Tasche 2002")  # fmt: skip
class loss_tail:
    """Value at risk and expected shortfall of one sorted window."""

    def reach(n, alpha):
        return order.quantile_reach(n, alpha)

    def value(s, n, reach, within, alpha, method):
        level = order.quantile(s, n, alpha, reach)
        # Offsets from the lowest value, so that the tail of a level keeps its digits.
        total = 0.0
        if method == 0:
            below = reach - 1
            for j in range(below):
                total += s[j] - s[0]
            # The value above the level's place is in the tail only if it equals the level. No
            # branch: with prices in ticks nobody could predict it.
            equal = s[below] <= level
            total += (within - below) * (s[below] - s[0]) if equal else 0.0
            count = within if equal else below
            return -level, -(s[0] + total / count)
        size = alpha * n
        count = int(size)
        partly = 0.0
        for j in range(reach):
            total += s[j] - s[0] if j < count else 0.0
            partly = s[j] - s[0] if j == count else partly
        total += (size - count) * partly
        return -level, -(s[0] + total / size)


@composite("pnl", out="var",
           params=[number("alpha", 0.05, above=0.0, below=1.0), window(250), min_periods()],
           first="window", units="pnl", scale=1, source="−pandas rolling.quantile")  # fmt: skip
class historical_var:
    """Historical value at risk: −quantile_alpha of the window, a loss being positive."""

    def build(pnl, alpha, window, min_periods):
        return loss_tail(pnl, alpha=alpha, window=window, min_periods=min_periods)["var"]


@composite("pnl", out="cvar",
           params=[number("alpha", 0.05, above=0.0, below=1.0), window(250), min_periods(),
                   choice("method", "tail_mean", "tail_mean", "acerbi")],
           first="window", units="pnl", scale=1, source="Acerbi–Tasche 2002")  # fmt: skip
class historical_cvar:
    """Historical expected shortfall, a loss being positive: −mean of the x ≤ quantile_alpha.

    'acerbi': −(Σ_{i≤⌊αn⌋} x₍ᵢ₎ + (αn − ⌊αn⌋) x₍⌊αn⌋₊₁₎) / (αn).
    """

    def build(pnl, alpha, window, min_periods, method):
        tail = loss_tail(pnl, alpha=alpha, window=window, min_periods=min_periods, method=method)
        return tail["cvar"]


@rank("x", out="outlier_flag:b, outlier_score",
      params=[window(100), number("k", 3.0, low=0.0), min_periods(),
              boolean("include_current", False)],
      first="window if include_current else window + 1", units="1, 1", scale=(0, 0),
      exclude_current="include_current",
      source="Iglewicz–Hoaglin 1993; SciPy median_abs_deviation")  # fmt: skip
class outlier_flag_mad:
    """Distance of the row from the median in robust standard deviations, flagged above ``k``.

    score = abs(x − median) / (1.4826·MAD) over the ``window`` rows before (include_current=True:
    up to the row). If the MAD is 0, its place is taken by 1.2533 · mean abs(x − median), the
    normal-consistent scale from the mean deviation; if that is 0 too, the score is 0.
    """

    def value(s, n, x, k):
        centre = order.median(s, n)
        distance = abs(x - centre)
        spread = 1.4826 * order.median_deviation(s, n, centre)
        if spread == 0.0 and distance > 0.0:
            # More than half of the rows equal the median: only the ends contribute.
            total = 0.0
            j = 0
            while s[j] < centre:
                total += centre - s[j]
                j += 1
            j = n - 1
            while s[j] > centre:
                total += s[j] - centre
                j -= 1
            spread = 1.2533 * total / n
        score = distance / spread if spread > 0.0 else 0.0
        if x != x:
            return NULL, NAN
        return 1 if score > k else 0, score
