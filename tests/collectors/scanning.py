"""Frames of every exchange, and decoders that take them one by one, together, or have learned."""

from hypothesis import strategies as st

from collectors.errors import DecodeError
from collectors.exchanges import make_adapter
from collectors.scan.frames import Scanner
from collectors.scan.together import FEW

RECV = 1_790_757_176_000_000_000
SPOT = [
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT",'
    b'"t":3735683259,"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}',
    b'{"stream":"ethusdt@trade","data":{"e":"trade","E":1723161255343,"s":"ETHUSDT",'
    b'"t":12,"p":"2500.1","q":"3.0","T":1723161255342,"m":false,"M":true}}',
    b'{"stream":"btcusdt@bookTicker","data":{"u":50093239212,"s":"BTCUSDT","b":"61837.63000000",'
    b'"B":"3.78826000","a":"61837.64000000","A":"1.54698000"}}',
    b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1723161255308,"s":"BTCUSDT",'
    b'"U":50093239203,"u":50093239207,"b":[["55653.87000000","0.00000000"]],"a":[]}}',
    b'{"stream":"ethusdt@depth@100ms","data":{"e":"depthUpdate","E":1723161255308,"s":"ETHUSDT",'
    b'"U":3,"u":7,"b":[],"a":[["2500.30000000","1.5"],["2500.31000000","0.00000000"]]}}',
    b'{"stream":"btcusdt@kline_1m","data":{"e":"kline"}}',
    b'{"result":null,"id":1}',
]
FUTURES = [
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161256322,"T":1723161256322,'
    b'"s":"BTCUSDT","t":5266583935,"p":"61800.30","q":"0.006","X":"MARKET","m":false}}',
    b'{"stream":"ethusdt@aggTrade","data":{"e":"aggTrade","E":1723161256322,"s":"ETHUSDT","a":7,'
    b'"p":"2500.30","q":"0.006","f":1,"l":2,"T":1723161256322,"m":true}}',
    b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":5123107839020,"s":"BTCUSDT",'
    b'"b":"61800.20","B":"2.507","a":"61800.30","A":"2.510","T":1723161256313,"E":1723161256313}}',
    b'{"stream":"btcusdt@markPrice@1s","data":{"e":"markPriceUpdate","E":1790757176000,'
    b'"s":"BTCUSDT","p":"83003.10000000","ap":"83003.1","P":"83198.80343841",'
    b'"i":"83045.69043478","r":"-0.00001012","T":1790784000000,"st":1}}',
    b'{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":1723161256313,"T":1723161256303,'
    b'"s":"BTCUSDT","U":5123107836883,"u":5123107837063,"pu":5123107836672,'
    b'"b":[["100.00","20.000"],["61799.90","0.000"]],"a":[["61800.30","2.510"],["63000","0.1"]]}}',
]
COINBASE = [
    b'{"channel":"l2_data","client_id":"","timestamp":"2026-09-30T02:39:53.84361Z",'
    b'"sequence_num":13,"events":[{"type":"update","product_id":"BTC-USD","updates":['
    b'{"side":"offer","event_time":"2026-09-30T02:39:53.788Z","price_level":"83003.1",'
    b'"new_quantity":"0"},'
    b'{"side":"bid","event_time":"2026-09-30T02:39:53.788Z","price_level":"82999.51",'
    b'"new_quantity":"0.25"},'
    b'{"side":"offer","event_time":"2026-09-30T02:39:53.788Z","price_level":"83003.2",'
    b'"new_quantity":"1.5"}]}]}',
    b'{"channel":"market_trades","client_id":"","timestamp":"2025-12-31T06:00:12.516946132Z",'
    b'"sequence_num":1851,"events":[{"type":"update","trades":['
    b'{"product_id":"BTC-USD","trade_id":"929248658","price":"88355.59","size":"0.00136573",'
    b'"time":"2025-12-31T06:00:12.44524Z","side":"SELL"},'
    b'{"product_id":"ETH-USD","trade_id":"929248657","price":"2666.07","size":"0.5",'
    b'"time":"2025-12-31T06:00:12Z","side":"BUY"}]}]}',
    b'{"channel":"ticker","client_id":"","timestamp":"2026-09-30T02:39:53.84361Z",'
    b'"sequence_num":14,"events":[{"type":"update","tickers":[{"type":"ticker",'
    b'"product_id":"BTC-USD","price":"83000.01","volume_24_h":"5401.1","best_bid":"83000",'
    b'"best_bid_quantity":"0.5","best_ask":"83000.01","best_ask_quantity":"0.1"}]}]}',
    b'{"channel":"heartbeats","client_id":"","timestamp":"2026-09-30T02:39:53.84361Z",'
    b'"sequence_num":15,"events":[{"current_time":"2026","heartbeat_counter":7}]}',
]
KRAKEN = [
    b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"sell","price":62710.3,'
    b'"qty":0.5,"ord_type":"limit","trade_id":102,"timestamp":"2026-07-08T05:24:41.204829Z"},'
    b'{"symbol":"BTC/USD","side":"buy","price":62710.4,"qty":0.00000001,"ord_type":"market",'
    b'"trade_id":101,"timestamp":"2026-07-08T05:24:41.204828Z"}]}',
    b'{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":62703.4,'
    b'"bid_qty":0.0318498,"ask":62710.3,"ask_qty":0.00191335,"last":62702.9,"volume":1947.83637005,'
    b'"vwap":63392.2,"change":-239.4,"timestamp":"2026-07-08T05:24:41.204829Z"}]}',
    b'{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":62703.4,'
    b'"qty":0.10}],"asks":[],"checksum":1,"timestamp":"2026-07-08T05:24:41.204829Z"}]}',
    b'{"channel":"heartbeat"}',
]
GOLDEN = {
    "binance": SPOT, "binance-futures": FUTURES, "coinbase": COINBASE, "kraken": KRAKEN,
}  # fmt: skip
TRADE, QUOTE, DEPTH = SPOT[0], SPOT[2], FUTURES[-1]
CHANGES, TRADES, TICKER = COINBASE[:3]

ZEROS = [b"0", b"0.00"]
NUMBERS = [
    *ZEROS,
    *(b"-1", b"", b"1e3", b"1.", b".5", b"00.1", b"+1", b" 1", b"nan", b"Infinity"),
    *(b"9007199254740993", b"0.12345678901234567", b"1234567890123456789", b"1_0", b"1,0"),
]
"""Texts that are no decimals above 0, or whose last digit a float does not keep."""
DECIMALS = st.from_regex(rb"-?[0-9]{1,19}(\.[0-9]{1,19})?", fullmatch=True)


def told(decoded):
    """Events, or what the error says."""
    return str(decoded) if isinstance(decoded, DecodeError) else decoded


def one_by_one(adapter, frames):
    for frame in frames:
        try:
            yield adapter.decode(frame, RECV)
        except DecodeError as error:
            yield str(error)


def together(adapter, frames):
    return [told(decoded) for decoded in adapter.decode_many(frames, [RECV] * len(frames))]


def assert_same(exchange, frames):
    """Also where an adapter has learned from the frames before: the second time."""
    alone, many = make_adapter(exchange), make_adapter(exchange)
    for _ in range(2):
        expected = list(one_by_one(alone, frames))
        assert repr(together(many, frames)) == repr(expected)  # tells 0.0 from -0.0


def learned(exchange):
    """An adapter that has learned the golden frames."""
    adapter = make_adapter(exchange)
    together(adapter, GOLDEN[exchange] * FEW)
    return adapter


def read(kind, row, frames):
    """How many of `frames` are read by who has learned from the first of them."""
    scanner = Scanner(b'{"stream":"')
    scanner.learn(frames[0], kind, {"data": row}, b"BTCUSDT", "BTC/USDT")
    return sum(len(rows.frames) for rows in scanner.read(frames))


def read_by(exchange, frames):
    """How many of `frames` are read by who has learned the golden ones."""
    scanner = learned(exchange)._together._scanner
    return sum(len(rows.frames) for rows in scanner.read(frames))
