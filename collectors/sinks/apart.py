"""A sink in a process of its own: what it does in Python for every row holds up no feed.

    sink = SinkProcess("kafka", "localhost:9092")

It is called as the sink itself would be: each call goes through a pipe and returns when the sink's
has, with what that returned or raised. The process ends by `close`, or at once when this one ends.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any, BinaryIO

import pyarrow as pa

from collectors.errors import CollectorError, SinkError
from collectors.process import dedicate_process
from collectors.sinks import Sink, make_sink

START, LAST_TRADES, WRITE, FLUSH, CLOSE = range(5)
_REQUEST = struct.Struct("<BIQ")  # what to do, bytes of a name, bytes of what follows it
_REPLY = struct.Struct("<Q")
_Request = tuple[int, str, bytes]
_PIPE = 1 << 20  # bytes: a request that fits wakes the other process up once
_END_S = 5.0  # of a process that has closed its sink


class SinkProcess(Sink):
    """The sink called `kind` (see `make_sink`), built and used in another process."""

    def __init__(self, kind: str, *arguments: Any, **options: Any) -> None:
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            # -P: what lies in the current directory must not stand for a module of Python's.
            [sys.executable, "-P", "-m", "collectors.sinks.apart"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pipesize=_PIPE,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            },
        )
        self.name = kind  # type: ignore[misc]
        self._failure: Exception | None = None
        told = self._ask(START, kind, pickle.dumps((arguments, options)))
        self.name, self.flush_s, self.merge_rows = told  # type: ignore[misc]

    @property
    def pid(self) -> int | None:
        """Of the process; None once it is closed."""
        return None if self._process is None else self._process.pid

    def last_trades(self, exchange: str) -> dict[str, tuple[int, int]]:
        last: dict[str, tuple[int, int]] = self._ask(LAST_TRADES, exchange)
        return last

    def write(self, channel: str, batch: pa.RecordBatch) -> None:
        self.write_all([(channel, batch)])

    def write_all(self, batches: Sequence[tuple[str, pa.RecordBatch]]) -> None:
        """All by one request: to wake the other process takes as long as a batch."""
        told = []
        for channel, batch in batches:
            content = pa.BufferOutputStream()
            with pa.ipc.new_stream(content, batch.schema) as stream:
                stream.write_batch(batch)
            told.append((channel, content.getvalue().to_pybytes()))
        self._ask(WRITE, content=pickle.dumps(told))

    def flush(self) -> None:
        self._ask(FLUSH)

    def close(self) -> None:
        if self._process is None:
            return
        try:
            if self._failure is None:
                self._ask(CLOSE)
        finally:
            self._end()

    def _ask(self, what: int, name: str = "", content: bytes = b"") -> Any:
        """What the sink's method returned; raises what it raised, on every later call too."""
        if self._failure is not None:
            raise self._failure
        if self._process is None:
            raise SinkError(f"{self.name}: the sink is closed; make a new one")
        requests, replies = self._process.stdin, self._process.stdout
        assert requests is not None
        assert replies is not None
        encoded = name.encode()
        try:
            requests.write(_REQUEST.pack(what, len(encoded), len(content)) + encoded + content)
            requests.flush()
            head = replies.read(_REPLY.size)
            error, result, self.failed_rows = pickle.loads(replies.read(*_REPLY.unpack(head)))
        except (BrokenPipeError, struct.error, EOFError, pickle.UnpicklingError):
            error = self._died()
        if error is not None:
            self._failure = error
            if what == START:
                self._end()
            raise error
        return result

    def _died(self) -> SinkError:
        assert self._process is not None
        status = self._process.wait()
        return SinkError(
            f"{self.name}: the sink's process {self._process.pid} has ended, exit status {status}; "
            f"what was flushed is safe, rows after that may be missing"
        )

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with process:  # closes the pipes, which ends it
            try:
                process.communicate(timeout=_END_S)
            except subprocess.TimeoutExpired:
                process.kill()


class _Server:
    """In the sink's process: does what it is asked."""

    def __init__(self) -> None:
        self._sink: Sink | None = None

    def reply(self, what: int, name: str, content: bytes) -> tuple[Exception | None, Any, int]:
        """(error, result, rows that failed so far)."""
        error, result = None, None
        try:
            result = self._do(what, name, content)
        except (CollectorError, OSError) as raised:
            error = raised
        return error, result, 0 if self._sink is None else self._sink.failed_rows

    def _do(self, what: int, name: str, content: bytes) -> Any:
        if what == START:
            arguments, options = pickle.loads(content)
            self._sink = make_sink(name, *arguments, **options)
            dedicate_process()
            return self._sink.name, self._sink.flush_s, self._sink.merge_rows
        assert self._sink is not None
        if what == LAST_TRADES:
            return self._sink.last_trades(name)
        if what == WRITE:
            return self._sink.write_all([_batch(*told) for told in pickle.loads(content)])
        return self._sink.flush() if what == FLUSH else self._sink.close()


def _batch(channel: str, content: bytes) -> tuple[str, pa.RecordBatch]:
    with pa.ipc.open_stream(content) as stream:
        return channel, stream.read_next_batch()


def main() -> None:
    """Serve the process at the other end of the pipes, until it closes them or ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they mean that one, which then closes this
        signal.signal(number, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no reply
    requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests,), daemon=True).start()
    server, what = _Server(), START
    while what != CLOSE:
        what, name, content = requests.get()
        answer = pickle.dumps(server.reply(what, name, content))
        replies.write(_REPLY.pack(len(answer)) + answer)
        replies.flush()


def _receive(requests: queue.SimpleQueue[_Request]) -> None:
    """In a thread of its own, which notices the end of the other process whatever the sink does."""
    # Not Python's own stdin: while it is being read, an interpreter that ends – by an error that no
    # sink should raise – cannot close it and aborts instead of telling.
    stream = os.fdopen(os.dup(0), "rb")
    while (request := _read(stream)) is not None:
        requests.put(request)
        if request[0] == CLOSE:
            return
    # Nobody waits any more; another run may have begun, and nothing of this one may come after it.
    os._exit(1)


def _read(requests: BinaryIO) -> _Request | None:
    head = requests.read(_REQUEST.size)
    if len(head) < _REQUEST.size:
        return None
    what, name_size, size = _REQUEST.unpack(head)
    content = requests.read(name_size + size)
    if len(content) < name_size + size:
        return None
    return what, content[:name_size].decode(), content[name_size:]


if __name__ == "__main__":
    main()
