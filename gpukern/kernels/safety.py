"""Guards: whether a row may be trusted. They answer for missing input too."""

from gpukern.kernel import NAN, NULL, map_, number


@map_("last_update:i64", out="is_stale:b, quote_age_ms",
      params=[number("max_age_ms", 1000.0, low=0.0), number("max_skew_ms", 1000.0, low=0.0)],
      units="1, ms", guard=True, needs_time=True, source="own definition")  # fmt: skip
class stale_quote_detector:
    """Whether a quote is too old: age = t − last_update, stale above max_age_ms.

    A quote from more than max_skew_ms in the future is not trusted either. If the time or
    last_update (ns since 1970 or a timestamp) is missing the row is stale and its age null.
    """

    def value(t, last_update, max_age_ms, max_skew_ms):
        if t == NULL or last_update == NULL:
            return 1, NAN
        age_ms = (t - last_update) / 1e6
        return 1 if age_ms > max_age_ms or age_ms < -max_skew_ms else 0, age_ms
