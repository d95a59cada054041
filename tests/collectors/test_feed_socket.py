"""A socket that gives all messages at once: as sent, however they are framed and cut in transit."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import serve
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from websockets.frames import Close, Frame, Opcode
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from collectors.feed_socket import MAX_WAITING, MessageSocket

MAX_SIZE = 1 << 20
SIZES = st.sampled_from([0, 1, 2, 125, 126, 127, 1000, 65_535, 65_536, 70_000])


class Wire(asyncio.Transport):
    """The transport of a connection, without a socket; what is written is kept."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.is_reading = True

    def write(self, data):
        self.written += data

    def write_eof(self):
        pass

    def can_write_eof(self):
        return True

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def is_closing(self):
        return False

    def close(self):
        pass

    def abort(self):
        pass

    def pause_reading(self):
        self.is_reading = False

    def resume_reading(self):
        self.is_reading = True


def connecting():
    """A socket that waits for the answer to its handshake, and that answer."""
    socket = MessageSocket(ClientProtocol(parse_uri("ws://exchange/ws"), max_size=MAX_SIZE))
    socket.connection_made(Wire())
    socket.protocol.send_request(socket.protocol.connect())
    server = ServerProtocol()
    server.receive_data(b"".join(socket.protocol.data_to_send()))
    (request,) = server.events_received()
    server.send_response(server.accept(request))
    return socket, b"".join(server.data_to_send())


def frame(opcode, data, fin=True):
    return Frame(opcode, data, fin).serialize(mask=False)


def text(data):
    return frame(Opcode.TEXT, data)


def cut(data, places):
    """`data` in pieces, cut at these places as often as they occur."""
    ends = sorted({place % len(data) for place in places} - {0})
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


async def taken(socket):
    """(messages, the error that ended them)."""
    messages = []
    try:
        while True:
            messages += (await socket.messages())[0]
    except ConnectionClosed as error:
        return messages, error


def collected(pieces):
    """(messages, the error that ended them) of a connection that receives these pieces."""

    async def run():
        socket, answer = connecting()
        socket.data_received(answer)
        for piece in pieces:
            socket.data_received(piece)
        socket.eof_received()
        socket.connection_lost(None)
        return await taken(socket)

    return asyncio.run(run())


@st.composite
def conversations(draw):
    """Messages, and the bytes of an exchange that sends them: whole, in fragments, with pings."""
    messages, wire = [], []
    for number, size in enumerate(draw(st.lists(SIZES, min_size=1, max_size=8))):
        message = (b"%d:" % number * (size // 2 + 1))[:size]
        messages.append(message)
        middle = draw(st.one_of(st.none(), st.integers(0, size)))
        opcode = draw(st.sampled_from([Opcode.TEXT, Opcode.TEXT, Opcode.BINARY]))
        if middle is None:
            wire.append(frame(opcode, message))
        else:
            wire.append(frame(opcode, message[:middle], fin=False))
            wire += draw(st.sampled_from([[], [frame(Opcode.PING, b"there?")]]))
            wire.append(frame(Opcode.CONT, message[middle:]))
        wire += draw(st.sampled_from([[], [], [frame(Opcode.PING, b"")]]))
    return messages, b"".join(wire)


@given(conversations(), st.lists(st.integers(0, 1 << 20), max_size=12), st.booleans())
def test_messages_are_those_that_were_sent_in_their_order(conversation, places, is_trickle):
    messages, wire = conversation
    trickle = range(min(len(wire), 400)) if is_trickle else ()
    told, _ = collected(cut(wire, [*places, *trickle]))
    assert told == messages


@given(st.lists(st.integers(0, 1000), max_size=5))
def test_messages_may_come_together_with_the_answer_to_the_handshake(places):
    async def run():
        socket, answer = connecting()
        for piece in cut(answer + text(b"online") + text(b"again"), places):
            socket.data_received(piece)
        return (await socket.messages())[0]

    assert asyncio.run(run()) == [b"online", b"again"]


def test_pings_are_answered():
    async def run():
        socket, answer = connecting()
        socket.data_received(answer + text(b"one") + frame(Opcode.PING, b"42") + text(b"two"))
        return socket.transport.written, (await socket.messages())[0]

    written, messages = asyncio.run(run())
    assert written[0] & 0x0F == Opcode.PONG
    assert messages == [b"one", b"two"]


def test_reading_stops_while_too_many_messages_wait():
    async def run():
        socket, answer = connecting()
        socket.data_received(answer + text(b"1") * MAX_WAITING)
        states = [socket.transport.is_reading]
        socket.data_received(text(b"1"))
        states.append(socket.transport.is_reading)
        count = len((await socket.messages())[0])
        return count, [*states, socket.transport.is_reading]

    assert asyncio.run(run()) == (MAX_WAITING + 1, [True, False, True])


def test_messages_before_the_end_are_given_before_it_is_told():
    farewell = frame(Opcode.CLOSE, Close(1001, "maintenance").serialize())
    messages, error = collected([text(b"one") + farewell + text(b"too late")])
    assert messages == [b"one"]
    assert isinstance(error, ConnectionClosedOK)
    assert "maintenance" in str(error)


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (Frame(Opcode.TEXT, b"{}").serialize(mask=True), 1002),
        (b"\xf1\x02{}", 1002),
        (frame(Opcode.TEXT, b"half", fin=False) + text(b"{}"), 1002),
        (frame(Opcode.CONT, b"half"), 1002),
        (frame(Opcode.TEXT, b"x" * (MAX_SIZE + 1)), 1009),
    ],
    ids=["masked", "reserved bits", "amid fragments", "no beginning", "too large"],
)
def test_what_the_protocol_does_not_allow_ends_the_connection(wire, code):
    messages, error = collected([text(b"one") + wire, text(b"two")])
    assert messages == [b"one"]
    assert isinstance(error, ConnectionClosedError)
    assert error.sent.code == code


@pytest.mark.parametrize("size", [1, 3, 20])
def test_connection_that_breaks_amid_a_message_gives_those_before(size):
    messages, error = collected([text(b"one") + text(b"x" * 100)[:size]])
    assert messages == [b"one"]
    assert isinstance(error, ConnectionClosedError)


def test_messages_of_a_server_arrive():
    from websockets.asyncio.client import connect

    sent = [b"{%d}" % number * (number % 50 + 1) for number in range(3000)]

    async def talk(connection):
        for message in sent:
            await connection.send(message, text=True)

    async def run():
        async with serve(talk, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"ws://127.0.0.1:{port}"
            async with connect(url, create_connection=MessageSocket, compression=None) as socket:
                return await taken(socket)

    messages, error = asyncio.run(run())
    assert messages == sent
    assert isinstance(error, ConnectionClosedOK)


class Clock:
    """Counts how often it is asked."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        self.now += 1
        return self.now


async def opened(clock):
    socket, answer = connecting()
    socket._clock = clock
    socket.data_received(answer)
    return socket


def test_messages_have_the_times_of_their_arrival():
    async def run():
        socket = await opened(Clock())
        socket.data_received(text(b"a") + text(b"b"))
        socket.data_received(text(b"cc")[:3])
        socket.data_received(text(b"cc")[3:] + text(b"d"))
        return await socket.messages()

    assert asyncio.run(run()) == ([b"a", b"b", b"cc", b"d"], [1, 1, 2, 2])


def test_messages_wait_for_each_other_until_there_are_enough():
    async def run():
        socket = await opened(Clock())
        taking = asyncio.ensure_future(socket.messages(3, 3600.0))
        for sent in (b"a", b"b"):
            socket.data_received(text(sent))
            for _ in range(3):
                await asyncio.sleep(0)
            assert not taking.done()
        socket.data_received(text(b"c"))
        return await taking

    assert asyncio.run(run())[0] == [b"a", b"b", b"c"]


def test_messages_wait_for_each_other_only_so_long():
    async def run():
        socket = await opened(Clock())
        socket.data_received(text(b"a"))
        return await socket.messages(3, 0.001)

    assert asyncio.run(run())[0] == [b"a"]


def test_messages_do_not_wait_for_a_connection_that_is_lost():
    async def run():
        socket = await opened(Clock())
        taking = asyncio.ensure_future(socket.messages(3, 3600.0))
        socket.data_received(text(b"a"))
        await asyncio.sleep(0)
        socket.eof_received()
        socket.connection_lost(None)
        return await taking

    assert asyncio.run(run())[0] == [b"a"]
