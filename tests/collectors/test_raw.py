"""Raw recordings: what was written is read; damage is named; an unfinished end is counted."""

import gzip

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.errors import RawError
from collectors.raw import RawReader, write_frames

FRAMES = [(1_700_000_000_000_000_000 + i, b'{"n":%d,"text":"a b"}' % i) for i in range(300)]
PLAIN = b"".join(b"%d %s\n" % frame for frame in FRAMES)
COMPRESS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_what_is_written_is_read(tmp_path, suffix):
    path = tmp_path / f"raw{suffix}"
    assert write_frames(path, FRAMES) == len(FRAMES)
    reader = RawReader(path)
    assert list(reader) == FRAMES
    assert (reader.line, reader.truncated) == (300, 0)
    assert reader.bytes_read == reader.bytes_total == path.stat().st_size


@pytest.mark.parametrize("suffix", COMPRESS)
def test_same_frames_give_the_same_bytes(tmp_path, suffix):
    paths = [tmp_path / f"{name}{suffix}" for name in ("one", "two")]
    for path in paths:
        write_frames(path, FRAMES)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_content_not_name_tells_the_compression(tmp_path):
    path = tmp_path / "renamed.txt"
    path.write_bytes(gzip.compress(PLAIN))
    assert list(RawReader(path)) == FRAMES


@pytest.mark.parametrize("suffix", COMPRESS)
def test_appended_streams_are_one_recording(tmp_path, suffix):
    path = tmp_path / "raw"
    half = PLAIN.index(b"\n", len(PLAIN) // 2) + 1
    path.write_bytes(COMPRESS[suffix](PLAIN[:half]) + COMPRESS[suffix](PLAIN[half:]))
    assert list(RawReader(path)) == FRAMES


def test_line_breaks_inside_a_frame_become_spaces(tmp_path):
    path = tmp_path / "raw"
    write_frames(path, [(1, b'{"a":\n1,\r\n"b":2}')])
    assert list(RawReader(path)) == [(1, b'{"a": 1,  "b":2}')]


def test_failed_write_leaves_nothing(tmp_path):
    def frames():
        yield FRAMES[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_frames(tmp_path / "raw.gz", frames())
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=80)
@given(cut=st.integers(0, len(PLAIN)))
def test_recording_cut_anywhere_keeps_every_whole_frame(tmp_path_factory, cut):
    path = tmp_path_factory.getbasetemp() / "cut"
    path.write_bytes(PLAIN[:cut])
    reader = RawReader(path)
    frames = list(reader)
    whole = PLAIN[:cut].count(b"\n")
    # A cut at the very end of a line loses its newline only: the frame is whole.
    if cut and PLAIN[cut - 1 : cut + 1] == b"}\n":
        whole += 1
    assert frames == FRAMES[:whole]
    assert reader.truncated == int(not (PLAIN[:cut] == b"" or PLAIN[cut - 1 : cut] in b"}\n"))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_recording_that_stops_keeps_what_is_whole(tmp_path, suffix):
    path = tmp_path / "raw"
    data = COMPRESS[suffix](PLAIN)
    for cut in range(4, len(data), 37):
        path.write_bytes(data[:cut])
        reader = RawReader(path)
        frames = list(reader)
        assert frames == FRAMES[: len(frames)]
        assert reader.truncated == 1


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"no stamp {}",
        b'1.5 {"a":1}',
        b"17000",
        b"-5 {}",
        b"99999999999999999999 {}",
        b"\x00 {}",
    ],
)
def test_damaged_line_is_named(tmp_path, damage):
    path = tmp_path / "bad.recv_ns"
    lines = PLAIN.split(b"\n")
    lines[41] = damage
    path.write_bytes(b"\n".join(lines))
    read = []
    with pytest.raises(RawError, match=r"bad\.recv_ns: line 42 is not '<recv_ns> <frame>'"):
        read.extend(RawReader(path))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_damaged_compression_is_named(tmp_path, suffix):
    path = tmp_path / f"bad{suffix}"
    checked = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor(write_checksum=True).compress}
    data = bytearray(checked[suffix](PLAIN))
    data[-1] ^= 0xFF
    data[-3] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(RawError, match=r"bad\..*: line \d+ cannot be decompressed.*is damaged"):
        list(RawReader(path))


def test_missing_recording_is_named(tmp_path):
    with pytest.raises(RawError, match=r"absent\.gz: cannot be read: No such file"):
        list(RawReader(tmp_path / "absent.gz"))


def test_empty_recording_has_no_frames(tmp_path):
    path = tmp_path / "empty"
    path.touch()
    assert list(RawReader(path)) == []


def test_line_without_end_is_not_collected_forever(tmp_path, monkeypatch):
    monkeypatch.setattr("collectors.raw._LONGEST_LINE", 1 << 20)
    path = tmp_path / "endless"
    path.write_bytes(b"1 {}\n2 " + b"x" * (3 << 20))
    with pytest.raises(RawError, match="line 2 is longer than 1 MiB"):
        list(RawReader(path))
