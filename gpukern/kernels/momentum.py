"""Moving averages and oscillators that are recurrences.

Smoothing e ← e + α(x − e) whose first p values are averaged instead (the seed) is the same
recurrence with α = 1/(k + 1) on row k < p. A block of rows maps the average before it to the one
after it; the map is kept relative to the block's latest row, e ↦ x + (b + a·(e − x)), which keeps
all digits of nearby prices and forgets a bad print as fast as the average does.
"""

from gpukern import scalar
from gpukern.kernel import NAN, choice, composite, fold, integer, number, per_symbol, step


@fold("x", out="ema", params=[number("alpha"), integer("seed_rows"), integer("min_periods", 1)],
      first="min_periods", units="x", scale=1, hidden=True)  # fmt: skip
class seeded_ema:
    """Smoothing with ``alpha`` after a mean of the first ``seed_rows`` rows."""

    acc = "a x b"
    base = "e"
    zero = (1.0, 0.0, 0.0)

    def lift(x, k, alpha, seed_rows):
        a = k / (k + 1.0) if k < seed_rows else 1.0 - alpha
        # -0.0 is what adding changes nothing to; the compiler leaves the addition out.
        return a, x, -0.0

    def join(before, after):
        a1, x1, b1 = before
        a2, x2, b2 = after
        return a1 * a2, x2, (b1 - (1.0 - a1) * (x2 - x1)) * a2 + b2

    def absorb(e, a, x, b):
        return x + (b + a * (e - x))

    def total(e, k, min_periods, null):
        return e if k + 1 >= min_periods else null


def _alpha_of_period(period):
    return 2.0 / (period + 1.0)


@composite("x", out="ema",
           params=[integer("period", 20, low=1),
                   number("alpha", None, above=0, high=1, optional=True),
                   number("half_life", None, above=0, optional=True),
                   choice("seed", "sma", "sma", "first"),
                   integer("min_periods", None, low=1, optional=True)],
           first="(min_periods or 1) if alpha or half_life else max(period, min_periods or 1) "
                 "if seed == 'sma' else (min_periods or period)",
           units="x", scale=1,
           source="TA-Lib EMA; pandas ewm(adjust=False) (seed='first')")  # fmt: skip
class ema:
    """Exponential moving average: e += α(x − e), α = 2/(period + 1).

    ``seed='sma'``: the value of row ``period`` is the mean of the first ``period`` rows; 'first':
    e₁ = x₁, null before row ``period`` (or ``min_periods``). With ``alpha`` or ``half_life`` (in
    rows; α = 1 − 2^(−1/half_life)) the period is not used: e₁ = x₁, from row 1 on.
    """

    def validate(params):
        if params["alpha"] is not None and params["half_life"] is not None:
            given = f"alpha={params['alpha']!r} and half_life={params['half_life']!r}"
            return f"give alpha or half_life, got {given}"
        return None

    def build(x, period, alpha, half_life, seed, min_periods):
        def from_first_row(value):
            return 1 if value is None else value

        if half_life is not None:
            alpha = per_symbol(lambda h: -scalar.expm1(-scalar.LN2 / h), half_life)
        if alpha is not None:
            first_row = per_symbol(from_first_row, min_periods)
            return seeded_ema(x, alpha=alpha, seed_rows=1, min_periods=first_row)
        return seeded_ema(
            x,
            alpha=per_symbol(_alpha_of_period, period),
            seed_rows=per_symbol(lambda p, s: p if s == "sma" else 1, period, seed),
            min_periods=per_symbol(_first_row, period, seed, min_periods),
        )


def _first_row(period, seed, min_periods):
    if min_periods is None:
        return period
    return max(period, min_periods) if seed == "sma" else min_periods


@step("price", out="macd, macd_signal, macd_hist",
      params=[integer("fast", 12, low=1), integer("slow", 26, low=1), integer("signal", 9, low=1),
              choice("seed", "talib", "talib", "sma", "first")],
      first="slow, slow + signal - 1, slow + signal - 1", units="price", scale=1,
      source="Appel; TA-Lib MACD")  # fmt: skip
class macd:
    """MACD: EMA_fast − EMA_slow, its own EMA_signal, and the difference of the two.

    ``seed='talib'``: the averages begin with plain means, the fast one with that of the ``fast``
    rows ending at row ``slow``, the signal with that of the first ``signal`` values of macd; 'sma':
    each price average begins with the mean of its own first rows; 'first': all begin with their
    first value at row 1, as in pandas. macd is null before row ``slow``, the others before row
    ``slow + signal − 1``.
    """

    state = "f s g"

    def validate(params):
        ordered = per_symbol(lambda f, s: f < s, params["fast"], params["slow"])
        if not all(ordered.values() if isinstance(ordered, dict) else [ordered]):
            return f"fast must be less than slow, got {params['fast']!r} and {params['slow']!r}"
        return None

    def init():
        return 0.0, 0.0, 0.0

    def step(f, s, g, price, k, fast, slow, signal, seed, null):
        if k >= slow + signal or (seed == 2 and k > 0):
            f += 2.0 / (fast + 1.0) * (price - f)
            s += 2.0 / (slow + 1.0) * (price - s)
            g += 2.0 / (signal + 1.0) * ((f - s) - g)
        else:  # the seeds: means of rows so far, counted from where each average begins
            rows = k - (slow - fast) if seed == 0 else k
            rate = 1.0 / (rows + 1.0) if rows > 0 else 1.0
            f += (2.0 / (fast + 1.0) if rows >= fast else rate) * (price - f)
            rate = 1.0 / (k + 1.0)
            s += (2.0 / (slow + 1.0) if k >= slow else rate) * (price - s)
            rows = k - (slow - 1)
            rate = 1.0 / (rows + 1.0) if rows > 0 else 1.0
            g += (2.0 / (signal + 1.0) if rows >= signal else rate) * ((f - s) - g)
        line = f - s
        late = k >= slow + signal - 2
        return (f, s, g), (
            line if k >= slow - 1 else null,
            g if late else null,
            line - g if late else null,
        )


@fold("price", out="rsi", params=[integer("period", 14, low=1)], first="period + 1", units="%",
      scale=0, source="Wilder 1978; TA-Lib RSI")  # fmt: skip
class rsi:
    """Relative strength index 100·G / (G + L), G and L the smoothed gains and losses.

    Smoothing is Wilder's: mean of the first ``period`` changes, then α = 1/period. Null where the
    price has not moved at all (TA-Lib: 0).
    """

    acc = "a gain loss"
    base = "g l"
    zero = (1.0, 0.0, 0.0)

    def lift(price, prev_price, k, period):
        change = price - prev_price
        rate = 1.0 / (k + 1.0) if k < period else 1.0 / period
        up = 0.0 if change < 0.0 else change
        down = 0.0 if change > 0.0 else -change
        return 1.0 - rate, rate * up, rate * down

    def join(before, after):
        a1, gain1, loss1 = before
        a2, gain2, loss2 = after
        return a1 * a2, gain1 * a2 + gain2, loss1 * a2 + loss2

    def absorb(g, l, a, gain, loss):  # noqa: E741
        return g * a + gain, l * a + loss

    def total(g, l, k, period, null):  # noqa: E741
        index = 100.0 * g / (g + l) if g + l > 0.0 else NAN
        return index if k + 1 >= period else null


@fold("high, low, close", out="atr, natr", params=[integer("period", 14, low=1)],
      first="period + 1", units="price, %", scale=(1, 0),
      source="Wilder 1978; TA-Lib ATR, NATR")  # fmt: skip
class atr:
    """Average true range and its percentage of the close.

    True range = max(high, previous close) − min(low, previous close), from row 2 on; smoothing is
    Wilder's: mean of the first ``period`` values, then α = 1/period.
    """

    acc = "a range"
    base = "e"
    zero = (1.0, 0.0)

    def lift(high, low, prev_close, k, period):
        top = prev_close if prev_close > high else high
        bottom = prev_close if prev_close < low else low
        true_range = top - bottom if prev_close == prev_close else NAN
        rate = 1.0 / (k + 1.0) if k < period else 1.0 / period
        return 1.0 - rate, rate * true_range

    def join(before, after):
        a1, range1 = before
        a2, range2 = after
        return a1 * a2, range1 * a2 + range2

    def absorb(e, a, range):
        return e * a + range

    def total(e, close, k, period, null):
        percent = 100.0 * e / close if close != 0.0 else NAN
        late = k + 1 >= period
        return e if late else null, percent if late else null
