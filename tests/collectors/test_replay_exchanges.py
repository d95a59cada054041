"""Replay of every exchange's recorded messages, and of what went missing in them."""

import gzip
from itertools import pairwise

import polars as pl
import pytest

from collectors.errors import CollectorError
from collectors.exchanges import EXCHANGES, make_adapter
from collectors.raw import RawReader, write_frames
from collectors.recordings import BINANCE_DEMO
from collectors.replay import replay
from collectors.scan import ready

START = 1_790_735_993_000_000_000


def written(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def stamped(lines):
    return [(START + 1_000_000 * i, line) for i, line in enumerate(lines)]


@pytest.fixture(scope="module")
def kraken_frames(captures):
    with gzip.open(captures / "kraken" / "book_v2_btcusd.jsonl.gz") as file:
        lines = file.read().splitlines()
    lines += (captures / "kraken" / "ticker_trade_v2.jsonl").read_bytes().splitlines()
    return stamped(lines)


@pytest.fixture(scope="module")
def coinbase_frames(captures):
    names = ("frames_seq9-22.jsonl", "frames_seq247-249.jsonl")
    pieces = [(captures / "coinbase" / name).read_bytes().splitlines() for name in names]
    return stamped(pieces[0] + pieces[1])


def test_every_exchange_is_known():
    assert set(EXCHANGES) == {"binance", "binance-futures", "coinbase", "kraken"}
    for exchange in EXCHANGES:
        assert make_adapter(exchange).exchange == exchange
    with pytest.raises(CollectorError, match="kraken needs no list of symbols"):
        make_adapter("kraken", "pairs.json")


def test_kraken(kraken_frames, tmp_path):
    path = tmp_path / "raw.zst"
    write_frames(path, kraken_frames)
    report = replay([path], "kraken", tmp_path / "a", strict=True)
    assert report.events == {
        "Status": 1,
        "Ack": 1,
        "Ignored": 50,
        "BookUpdate": 2052,
        "Quote": 3,
        "Trade": 2,
    }
    assert (report.gaps, report.duplicates, report.errors) == (0, 0, 0)
    assert (report.rows["trades"], report.rows["ticker"], report.rows["gaps"]) == (2, 5, 0)
    ticker = pl.read_parquet(tmp_path / "a" / "ticker")
    assert ticker["volume_24h"].to_list()[:3] == [1947.83637005, 4473.99704028, 144.457]
    replay([path], "kraken", tmp_path / "b")
    assert written(tmp_path / "a") == written(tmp_path / "b")


def test_coinbase_with_the_hole_in_its_ledger(coinbase_frames, tmp_path):
    path = tmp_path / "raw"
    write_frames(path, coinbase_frames)
    report = replay([path], "coinbase", tmp_path / "out", strict=True)
    gaps = pl.read_parquet(tmp_path / "out" / "gaps")
    assert report.gaps == report.rows["gaps"] == gaps.height > 0
    books = gaps.filter(pl.col("channel") == "book").sort("symbol")
    assert books.select("symbol", "from_seq", "to_seq", "reason", "recovered_ts").rows() == [
        ("BTC/USD", 23, 246, "sequence", None),
        ("ETH/USD", 23, 246, "sequence", None),
    ]
    stamps = books.select(pl.col("start_ts", "end_ts", "recv_ts").dt.epoch("ns")).row(0)
    assert stamps == (START + 13_000_000, START + 14_000_000, START + 14_000_000)
    trades = pl.read_parquet(tmp_path / "out" / "trades")
    for _, ids in trades.group_by("symbol").agg("trade_id").rows():
        missed = sum(b - a - 1 for a, b in pairwise(ids))
        told = gaps.filter(pl.col("channel") == "trades")
        assert missed in (0, *(told["to_seq"] - told["from_seq"] + 1))


def test_binance_futures(usdm_capture, captures, tmp_path):
    with gzip.open(usdm_capture) as file:
        frames = [file.readline() for _ in range(4000)]
    marks = (captures / "binance_usdm" / "mark_price_1s_20260930.jsonl").read_bytes().splitlines()
    last = int(frames[-1].split(b" ")[0])
    raw = [tuple(line.strip().split(b" ", 1)) for line in frames]
    path = tmp_path / "raw"
    write_frames(path, [(int(t), f) for t, f in raw] + [(last + i, f) for i, f in enumerate(marks)])
    report = replay([path], "binance-futures", tmp_path / "out", strict=True)
    assert (report.gaps, report.duplicates, report.errors, report.ignored) == (0, 0, 0, {})
    assert report.rows["funding"] == len(marks)
    assert sum(report.events.values()) == 4000 + len(marks)
    funding = pl.read_parquet(tmp_path / "out" / "funding")
    assert funding["symbol"].unique().sort().to_list()[0] == "BTC/USDT:USDT"
    assert funding.select("funding_rate", "mark_price").null_count().row(0) == (0, 0)


@pytest.mark.parametrize("exchange", ["kraken", "coinbase", "binance-futures"])
def test_the_compiled_scanner_changes_nothing(exchange, request, tmp_path, monkeypatch):
    if exchange == "binance-futures":
        path = request.getfixturevalue("usdm_capture")
    else:
        path = tmp_path / "raw"
        frames = [frame for _, frame in request.getfixturevalue(f"{exchange}_frames")]
        write_frames(path, stamped(frames * 20))
    monkeypatch.setattr(ready, "WORTH_BYTES", 1 << 40)
    monkeypatch.setattr(ready, "_loading", ready.loading())
    replay([path], exchange, tmp_path / "without")
    ready.load()
    replay([path], exchange, tmp_path / "with")
    assert written(tmp_path / "with") == written(tmp_path / "without") != {}


def test_binance_recording_with_a_lost_piece(tmp_path):
    frames = list(RawReader(BINANCE_DEMO))[:3000]
    path = tmp_path / "raw"
    write_frames(path, frames[:2000] + frames[2060:])
    report = replay([path], "binance", tmp_path / "out")
    gaps = pl.read_parquet(tmp_path / "out" / "gaps")
    assert report.gaps == gaps.height > 0
    assert gaps["start_ts"].max() <= gaps["end_ts"].min()
    assert set(gaps["reason"]) == {"sequence", "trade_id"}
    assert gaps.select((pl.col("to_seq") - pl.col("from_seq") >= 0).all()).item()


def test_trades_of_an_overlapping_connection_are_kept_once(tmp_path):
    frames = list(RawReader(BINANCE_DEMO))[:2000]
    stop = frames[-1][0]
    path = tmp_path / "raw"
    write_frames(path, [*frames, *((stop, frame) for _, frame in frames[1500:])])
    report = replay([path], "binance", tmp_path / "out")
    ids = pl.read_parquet(tmp_path / "out" / "trades").select("symbol", "trade_id")
    assert ids.is_unique().all()
    assert (report.gaps, report.duplicates > 100) == (0, True)


def test_no_gap_is_told_about_the_shipped_recording(tmp_path):
    report = replay([BINANCE_DEMO], "binance", tmp_path)
    assert (report.gaps, report.duplicates, report.rows["gaps"]) == (0, 0, 0)
    assert not (tmp_path / "gaps").exists()
