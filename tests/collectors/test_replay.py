"""Replay: every frame once, in order, to the same bytes."""

import gzip
import json
import os
import signal
import subprocess
import sys
from collections import Counter

import polars as pl
import pytest

from collectors.errors import CollectorError, DecodeError, RawError, ReplayError, SinkError
from collectors.raw import RawReader, write_frames
from collectors.recordings import BINANCE_DEMO
from collectors.replay import replay
from collectors.scan import ready


def files(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def frames():
    return list(RawReader(BINANCE_DEMO))[:1500]


@pytest.fixture
def recording(tmp_path, frames):
    path = tmp_path / "raw.recv_ns.zst"
    write_frames(path, frames)
    return path


@pytest.fixture(scope="module")
def lines(spot_capture):
    with gzip.open(spot_capture, "rb") as file:
        pairs = [line.split(b" ", 1) for line in file]
    return [(int(stamp), json.loads(text)) for stamp, text in pairs]


@pytest.fixture(scope="module")
def replayed(spot_capture, tmp_path_factory):
    root = tmp_path_factory.mktemp("capture")
    report = replay([spot_capture], "binance", root)
    tables = {name: pl.read_parquet(root / name) for name in ("ticker", "trades", "book")}
    return report, tables


class TestRealCapture:
    """346 s of Binance Spot BTCUSDT as recorded, against an independent reading of its JSON."""

    def test_counts(self, replayed):
        report, tables = replayed
        assert report.events == {"BookUpdate": 3452, "Quote": 28_040, "Trade": 9_757}
        assert report.rows["trades"] == tables["trades"].height == 9_757
        assert report.rows["ticker"] == tables["ticker"].height == 28_040 + 9_757
        assert report.rows["book"] == tables["book"].height
        assert (report.errors, report.ignored, report.truncated) == (0, {}, 0)
        assert report.frames == 41_249

    def test_trades_are_the_recorded_ones(self, replayed, lines):
        expected = [
            (t, d["T"] * 1_000_000, d["t"], float(d["p"]), float(d["q"]), -1 if d["m"] else 1)
            for t, d in ((t, m["data"]) for t, m in lines if m.get("stream") == "btcusdt@trade")
        ]
        rows = replayed[1]["trades"].with_columns(pl.col("recv_ts", "ts").dt.epoch("ns"))
        assert rows.select("recv_ts", "ts", "trade_id", "price", "size", "side").rows() == expected
        assert rows["symbol"].unique().to_list() == ["BTC/USDT"]
        ids = rows["trade_id"].to_list()
        assert ids == list(range(ids[0], ids[0] + len(ids)))

    def test_ticker_is_in_arrival_order_under_the_prevailing_quote(self, replayed, lines):
        expected, quote = [], (None, None, None, None)
        for recv, message in lines:
            d = message.get("data", message)
            if message.get("stream") == "btcusdt@bookTicker":
                quote = tuple(float(d[key]) for key in "bBaA")
                expected.append((recv, None, d["u"], None, None, None, *quote))
            elif message.get("stream") == "btcusdt@trade":
                side = -1 if d["m"] else 1
                row = (recv, d["T"] * 1_000_000, d["t"], float(d["p"]), float(d["q"]), side)
                expected.append((*row, *quote))
        rows = replayed[1]["ticker"].with_columns(pl.col("recv_ts", "ts").dt.epoch("ns"))
        columns = ("recv_ts", "ts", "seq", "price", "size", "side")
        assert rows.select(*columns, "bid", "bid_size", "ask", "ask_size").rows() == expected
        assert rows["recv_ts"].is_sorted()

    def test_book_rows_are_every_level_of_every_message(self, replayed, lines):
        expected = []
        for recv, message in lines:
            d = message.get("data", message)
            if message.get("stream") == "btcusdt@depth@100ms":
                head, sides = (recv, d["U"], d["u"], False), (d["b"], d["a"])
            elif "lastUpdateId" in d:
                head, sides = (recv, None, d["lastUpdateId"], True), (d["bids"], d["asks"])
            else:
                continue
            for side, levels in zip((1, -1), sides, strict=True):
                expected += [(*head, side, float(p), float(q)) for p, q in levels]
        rows = replayed[1]["book"].with_columns(pl.col("recv_ts").dt.epoch("ns"))
        columns = ("recv_ts", "first_seq", "seq", "is_snapshot", "side", "price", "size")
        assert rows.select(*columns).rows() == expected

    def test_again_gives_the_same_bytes(self, spot_capture, tmp_path):
        for name in ("one", "two"):
            replay([spot_capture], "binance", tmp_path / name)
        assert files(tmp_path / "one") == files(tmp_path / "two")


def test_shipped_recording_replays_without_loss(tmp_path):
    frames = list(RawReader(BINANCE_DEMO))
    kinds = Counter(json.loads(frame).get("stream", "@").split("@", 1)[1] for _, frame in frames)
    report = replay([BINANCE_DEMO], "binance", tmp_path)
    assert report.frames == len(frames)
    assert report.rows["trades"] == kinds["trade"]
    assert report.rows["ticker"] == kinds["trade"] + kinds["bookTicker"]
    assert report.events["BookUpdate"] == kinds["depth@100ms"] + kinds["depth@snapshot"]
    assert (report.errors, report.ignored) == (0, {})
    assert (report.first_recv_ns, report.last_recv_ns) == (frames[0][0], frames[-1][0])
    assert sorted(report.files) == sorted(p for p in tmp_path.rglob("*") if p.is_file())


def test_replaying_twice_into_one_directory_changes_nothing(tmp_path, recording):
    out = tmp_path / "out"
    replay([recording], "binance", out)
    before = files(out)
    replay([recording], "binance", out)
    assert files(out) == before


def test_copy_in_another_compression_is_the_same_recording(tmp_path, recording, frames):
    out = tmp_path / "out"
    replay([recording], "binance", out)
    before = files(out)
    write_frames(tmp_path / "copy.gz", frames)
    replay([tmp_path / "copy.gz"], "binance", out)
    assert files(out) == before


def test_recording_that_has_grown_replaces_its_rows(tmp_path, frames):
    path, out = tmp_path / "raw", tmp_path / "out"
    write_frames(path, frames[:700])
    replay([path], "binance", out)
    write_frames(path, frames)
    report = replay([path], "binance", out)
    assert pl.read_parquet(out / "ticker").height == report.rows["ticker"]


def test_rotated_recordings_give_the_rows_of_the_whole(tmp_path, frames):
    write_frames(tmp_path / "whole", frames)
    parts = [tmp_path / "part1", tmp_path / "part2"]
    write_frames(parts[0], frames[:700])
    write_frames(parts[1], frames[700:])
    replay([tmp_path / "whole"], "binance", tmp_path / "a")
    replay(parts, "binance", tmp_path / "b")
    for channel in ("ticker", "trades", "book"):
        whole, cut = (pl.read_parquet(tmp_path / name / channel) for name in "ab")
        assert whole.equals(cut)


def test_interleaved_symbols_keep_their_own_quotes(tmp_path):
    replay([BINANCE_DEMO], "binance", tmp_path, channels=["ticker"])
    rows = pl.read_parquet(tmp_path / "ticker")
    assert sorted(rows["symbol"].unique()) == ["BTC/USDT", "ETH/USDT", "SOL/USDT"]
    ranges = {"BTC/USDT": (8e4, 9e4), "ETH/USDT": (2500, 2900), "SOL/USDT": (130, 150)}
    for symbol, (low, high) in ranges.items():
        quotes = rows.filter(pl.col("symbol") == symbol).select("bid", "ask")
        assert quotes.null_count().row(0) == (0, 0)
        assert quotes.select(pl.all().is_between(low, high).all()).row(0) == (True, True)


def test_only_the_channels_asked_for_are_written(tmp_path, recording):
    report = replay([recording], "binance", tmp_path / "out", channels=["trades"])
    assert list(report.rows) == ["trades"]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["trades"]


def test_progress_ends_at_the_total(tmp_path):
    seen = []
    replay([BINANCE_DEMO], "binance", tmp_path, progress=lambda *step: seen.append(step))
    size = BINANCE_DEMO.stat().st_size
    assert seen == sorted(seen)
    assert seen[-1] == (size, size)
    assert len(seen) > 1


def test_undecodable_frame_is_counted_and_named(tmp_path, frames):
    path = tmp_path / "raw"
    write_frames(path, [*frames[:10], (frames[9][0], b'{"stream":"btcusdt@tra'), *frames[10:]])
    report = replay([path], "binance", tmp_path / "out")
    assert report.errors == 1
    assert report.error_examples[0].startswith(f"{path}: line 11: binance: ")
    assert report.frames == len(frames) + 1
    replay([path], "binance", tmp_path / "out")


def test_undecodable_frame_is_an_error_when_strict(tmp_path, frames):
    path, out = tmp_path / "raw", tmp_path / "out"
    write_frames(path, [*frames[:10], (frames[9][0], b"{}")])
    with pytest.raises(DecodeError, match="line 11: binance: neither a stream"):
        replay([path], "binance", out, strict=True)
    assert files(out) == {}


def test_an_undecodable_frame_before_the_damage_is_told_first_when_strict(tmp_path, frames):
    path = tmp_path / "raw"
    lines = [b"%d %s" % frame for frame in frames[:30]]
    lines[10], lines[20] = lines[10][:60], b"damaged"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(DecodeError, match="line 11"):
        replay([path], "binance", tmp_path / "out", strict=True)


def test_the_compiled_scanner_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(ready, "_loading", ready.loading())
    assert ready.loaded([]) is None
    replay([BINANCE_DEMO], "binance", tmp_path / "without")
    ready.load()
    replay([BINANCE_DEMO], "binance", tmp_path / "with")
    assert files(tmp_path / "with") == files(tmp_path / "without") != {}


def test_damaged_recording_is_named_and_leaves_nothing(tmp_path, frames):
    path, out = tmp_path / "raw", tmp_path / "out"
    lines = [b"%d %s" % frame for frame in frames]
    lines[1200] = b"\x00\x00\x00"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(RawError, match="raw: line 1201 is not '<recv_ns> <frame>'"):
        replay([path], "binance", out)
    assert files(out) == {}


def test_unfinished_last_line_is_left_out_and_counted(tmp_path, frames):
    path = tmp_path / "raw"
    write_frames(path, frames)
    path.write_bytes(path.read_bytes()[:-20])
    report = replay([path], "binance", tmp_path / "out")
    assert (report.frames, report.truncated, report.errors) == (len(frames) - 1, 1, 0)


def test_frames_of_other_streams_are_counted_by_stream(tmp_path, frames):
    path = tmp_path / "raw"
    other = (frames[0][0], b'{"stream":"btcusdt@kline_1m","data":{"e":"kline"}}')
    write_frames(path, [other, other, *frames])
    assert replay([path], "binance", tmp_path / "out").ignored == {"kline_1m": 2}


def test_small_step_back_of_the_clock_is_held_and_counted(tmp_path, frames):
    path = tmp_path / "raw"
    moved = [(recv - 500_000_000 * (i == 400), frame) for i, (recv, frame) in enumerate(frames)]
    write_frames(path, moved)
    report = replay([path], "binance", tmp_path / "out")
    assert report.clock_steps_back == 1
    for channel in ("ticker", "trades", "book"):
        assert pl.read_parquet(tmp_path / "out" / channel)["recv_ts"].is_sorted()


def test_recordings_in_the_wrong_order_are_refused(tmp_path, frames):
    write_frames(tmp_path / "late", frames[700:])
    write_frames(tmp_path / "early", frames[:700])
    with pytest.raises(ReplayError, match=r"early: line 1 was received .* s before the frame that"):
        replay([tmp_path / "late", tmp_path / "early"], "binance", tmp_path / "out")


def test_arguments_that_make_no_sense_are_refused_before_anything_is_written(tmp_path, recording):
    out = tmp_path / "out"
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(ReplayError, match="no recordings to replay"):
        replay([], "binance", out)
    with pytest.raises(ReplayError, match=r"absent\.gz: no such recording"):
        replay([recording, tmp_path / "absent.gz"], "binance", out)
    with pytest.raises(ReplayError, match="empty: no frames in it"):
        replay([empty], "binance", out)
    with pytest.raises(ReplayError, match="channel 'funding' does not come from binance"):
        replay([recording], "binance", out, channels=["funding"])
    with pytest.raises(CollectorError, match="exchange 'mtgox' is not known"):
        replay([recording], "mtgox", out)
    assert not out.exists()
    with pytest.raises(SinkError, match="cannot write there"):
        replay([recording], "binance", recording)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_kill_during_replay_leaves_no_partial_file_and_the_next_run_is_complete(tmp_path):
    out, reference = tmp_path / "out", tmp_path / "reference"
    script = (
        "import os, signal, sys\n"
        "from collectors.replay import replay\n"
        "def kill(done, total): os.kill(os.getpid(), signal.SIGKILL)\n"
        "replay([sys.argv[1]], 'binance', sys.argv[2], progress=kill)\n"
    )
    command = [sys.executable, "-c", script, str(BINANCE_DEMO), str(out)]
    killed = subprocess.run(command, check=False, timeout=600)
    assert killed.returncode == -signal.SIGKILL
    assert not list(out.glob("*/exchange=*/date=*/*"))
    replay([BINANCE_DEMO], "binance", out)
    replay([BINANCE_DEMO], "binance", reference)
    assert files(out) == files(reference)
