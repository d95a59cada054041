"""Recordings that the package ships; all of them simulated.

`python -m collectors.simulator FILE` writes the Binance one again.
"""

from pathlib import Path

BINANCE_DEMO = Path(__file__).with_name("binance_demo.recv_ns.gz")
"""Ten minutes of BTC/USDT, ETH/USDT and SOL/USDT: trades, best quotes, depth."""
