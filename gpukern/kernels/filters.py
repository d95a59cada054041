"""State-space filters of one series."""

from gpukern.kernel import number, step


@step("x", out="kalman_filtered, kalman_var",
      params=[number("q", 1e-3, low=0), number("r", 1e-1, above=0),
              number("x0", None, optional=True), number("p0", None, low=0, optional=True)],
      units="x, x^2", source="Kalman 1960")  # fmt: skip
class kalman_1d:
    """Kalman filter of a local level: a random walk of variance ``q`` seen with noise ``r``.

    Row 1: a = x₁, P = r; with a prior x0 (and its variance p0, default r) the update of the prior
    by x₁. Then P += q, K = P/(P + r), a += K(x − a), P = (1 − K)P. Outputs a and P.
    """

    state = "a p gain steady"

    def validate(params):
        if params["p0"] is not None and params["x0"] is None:
            return f"p0={params['p0']!r} is the variance of x0, which must be given too"
        return None

    def init(r, x0, p0):
        return (x0 if x0 == x0 else 0.0), (p0 if p0 == p0 else r), 1.0, 0.0

    def step(a, p, gain, steady, x, k, q, r, x0):
        if k == 0 and x0 != x0:
            return (x, r, gain, steady), (x, r)
        if steady == 0.0:
            # P depends on the row count only and soon repeats itself to the bit; so does the gain.
            before = p
            p = p + q if k > 0 else p
            gain = p / (p + r)
            p = (1.0 - gain) * p
            steady = 1.0 if p == before and k > 0 else 0.0
        a += gain * (x - a)
        return (a, p, gain, steady), (a, p)
