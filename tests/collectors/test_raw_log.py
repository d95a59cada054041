"""The raw log: every flushed frame can be read, wherever the process died."""

import random

import pytest
import zstandard
from crash import killed_after, killed_at_every_step
from crash_scenarios import SCENARIOS

from collectors.errors import SinkError
from collectors.raw import RawLog, RawReader
from collectors.recordings import BINANCE_DEMO

FRAMES = [(1_700_000_000_000_000_000 + i, b'{"n":%d,"text":"a b"}' % i) for i in range(300)]


class Clock:
    def __init__(self, now=1_700_000_000_000_000_000):
        self.now = now

    def __call__(self):
        return self.now


def written(path, frames, **options):
    log = RawLog(path, **options)
    for frame in frames:
        log.append(*frame)
    log.close()
    return log


@pytest.mark.parametrize("name", ["raw", "raw.zst"])
def test_frames_come_back_as_they_were_received(tmp_path, name):
    frames = list(RawReader(BINANCE_DEMO))[:2000]
    log = written(tmp_path / name, frames)
    reader = RawReader(tmp_path / name)
    assert list(reader) == frames
    assert (log.frames, reader.truncated) == (2000, 0)


def test_line_breaks_inside_a_frame_become_spaces(tmp_path):
    written(tmp_path / "raw.zst", [(1, b'{"a":\n1}'), (2, b'{"b":\r\n2}')])
    assert list(RawReader(tmp_path / "raw.zst")) == [(1, b'{"a": 1}'), (2, b'{"b":  2}')]


@pytest.mark.parametrize("name", ["raw", "raw.zst"])
def test_second_process_goes_on_in_the_same_file(tmp_path, name):
    written(tmp_path / name, FRAMES[:100])
    written(tmp_path / name, FRAMES[100:])
    assert list(RawReader(tmp_path / name)) == FRAMES


def test_flushed_frames_can_be_read_while_the_log_is_open(tmp_path):
    log = RawLog(tmp_path / "raw.zst")
    for frame in FRAMES[:50]:
        log.append(*frame)
    log.flush()
    log.append(*FRAMES[50])
    assert list(RawReader(tmp_path / "raw.zst")) == FRAMES[:50]
    log.close()


def test_parts_are_cut_by_size_and_their_names_sort_by_time(tmp_path):
    log = RawLog(tmp_path / "btc.recv_ns.zst", rotate_bytes=500)
    for frame in FRAMES:
        log.append(*frame)
        log.flush()
    log.close()
    parts = sorted(tmp_path.glob("btc-*.recv_ns.zst"))
    assert parts == log.files
    assert len(parts) > 5
    assert all(part.stat().st_size >= 500 for part in parts)
    frames = [frame for part in [*parts, log.path] for frame in RawReader(part)]
    assert frames == FRAMES


def test_part_ends_when_its_time_has_come(tmp_path):
    clock = Clock()
    log = RawLog(tmp_path / "raw.zst", rotate_s=60, clock=clock)
    log.append(*FRAMES[0])
    clock.now += 59_999_999_999
    log.flush()
    assert log.files == []
    clock.now += 1
    log.flush()
    assert [part.name for part in log.files] == ["raw-20231114T221420.000000000Z.zst"]
    clock.now += 60_000_000_000
    log.flush()
    assert len(log.files) == 1  # an empty part is no part
    log.close()


def test_clock_that_stands_still_overwrites_no_part(tmp_path):
    log = RawLog(tmp_path / "raw", rotate_bytes=1, clock=Clock())
    for frame in FRAMES[:5]:
        log.append(*frame)
        log.flush()
    log.close()
    assert [f for part in log.files for f in RawReader(part)] == FRAMES[:5]


@pytest.mark.parametrize("name", ["raw", "raw.zst"])
def test_unfinished_end_is_removed_its_whole_lines_are_kept(tmp_path, name):
    written(tmp_path / "whole" if name == "raw" else tmp_path / "whole.zst", FRAMES[:100])
    data = next(tmp_path.glob("whole*")).read_bytes()
    more = b"".join(b"%d %s\n" % frame for frame in FRAMES[100:])
    if name == "raw.zst":
        more = zstandard.ZstdCompressor().compress(more)
    for cut in range(0, len(more), max(1, len(more) // 60)):
        path = tmp_path / name
        path.write_bytes(data + more[:cut])
        before = list(RawReader(path))
        log = written(path, [(2**62, b"{}")])
        reader = RawReader(path)
        frames = list(reader)
        assert frames[-1] == (2**62, b"{}")
        assert frames[:-1] in (before, before[:-1])  # a plain last line may lack only its newline
        assert frames[:100] == FRAMES[:100]
        assert reader.truncated == 0
        assert log._file.mended_bytes <= cut


def test_killed_at_any_step_every_flushed_frame_is_there_once(tmp_path):
    crashes = killed_at_every_step("raw", tmp_path)
    assert len(crashes) > 20
    for found in crashes:
        assert found["rows"] == list(range(len(found["rows"])))
        assert len(found["rows"]) >= found["acked"]


def test_killed_at_random_again_and_again(tmp_path):
    chance = random.Random(11)
    for _ in range(6):
        safe = killed_after(chance.randint(1, 40), "raw", tmp_path)
        rows = SCENARIOS["raw"].rows(tmp_path)
        assert rows == list(range(len(rows)))
        assert len(rows) >= safe


def test_two_processes_cannot_share_a_file(tmp_path):
    log = RawLog(tmp_path / "raw.zst")
    with pytest.raises(SinkError, match=r"raw\.zst: another process writes to it; choose another"):
        RawLog(tmp_path / "raw.zst")
    log.close()
    RawLog(tmp_path / "raw.zst").close()


def test_compression_that_cannot_be_appended_to_is_refused(tmp_path):
    with pytest.raises(SinkError, match=r"raw\.gz: cannot append .* name it \.zst, or plainly"):
        RawLog(tmp_path / "raw.gz")


def test_file_that_is_no_recording_is_not_touched(tmp_path):
    path = tmp_path / "raw.zst"
    path.write_bytes(b"holiday pictures")
    with pytest.raises(SinkError, match=r"raw\.zst: is damaged after byte 0 .*move it away"):
        RawLog(path)
    assert path.read_bytes() == b"holiday pictures"


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(SinkError, match=r"raw\.zst: cannot write there: No such file"):
        RawLog(tmp_path / "absent" / "raw.zst")


def test_full_disk_is_a_clear_and_lasting_error(tmp_path, monkeypatch):
    log = RawLog(tmp_path / "raw.zst")

    def full(_):
        raise OSError(28, "No space left on device")

    log.append(*FRAMES[0])
    with monkeypatch.context() as patch:
        patch.setattr("collectors.rotated.os.fsync", full)
        with pytest.raises(SinkError, match="No space left on device; what was flushed is safe"):
            log.flush()
    with pytest.raises(SinkError, match="No space left on device"):
        log.flush()
    with pytest.raises(SinkError, match="No space left on device"):
        log.close()


def test_closed_log_says_so(tmp_path):
    log = RawLog(tmp_path / "raw.zst")
    log.close()
    log.close()
    with pytest.raises(SinkError, match="is closed; open it again"):
        log.flush()
