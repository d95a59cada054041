"""What a Parquet dataset shows of the runs before."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.errors import SinkError

_ROWS = 2_000_000  # of the newest files are looked at: a symbol that is not there begins anew


def last_trades(folder: Path) -> dict[str, tuple[int, int]]:
    """By symbol, the highest trade id in the newest files of `folder`/date=…, and when it came."""
    days = sorted(folder.glob("date=*"), reverse=True)
    files = [file for day in days for file in sorted(day.glob("*.parquet"), reverse=True)]
    last: dict[str, tuple[int, int]] = {}
    left = _ROWS
    for path in files:
        if left <= 0:
            break
        try:
            table = pq.read_table(
                path, columns=["symbol", "trade_id", "recv_ts"], partitioning=None
            )
        except (OSError, pa.ArrowInvalid) as error:
            raise SinkError(
                f"{path}: cannot be read: {error}; move it away, or write to another directory"
            ) from error
        left -= table.num_rows
        # Row groups have dictionaries of their own, which cannot be grouped by.
        table = table.set_column(0, "symbol", table["symbol"].cast(pa.string()))
        table = table.set_column(2, "recv_ts", table["recv_ts"].cast(pa.int64()))
        highest = table.group_by("symbol").aggregate([("trade_id", "max"), ("recv_ts", "max")])
        for symbol, trade_id, recv_ns in zip(
            *(c.to_pylist() for c in highest.columns), strict=True
        ):
            if trade_id is not None and trade_id > last.get(symbol, (-1, 0))[0]:
                last[symbol] = trade_id, recv_ns
    return last
