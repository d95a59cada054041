"""The report: one page that needs nothing else."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from pipelines.errors import PipelineError
from pipelines.figures import price_figure, typed
from pipelines.research import Research, research
from pipelines.sources import ParquetSource


class Page(HTMLParser):
    """The tags of a page, the text of its style sheets and its data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("id") or tag

    def handle_data(self, data: str) -> None:
        self.texts[self._inside] = self.texts.get(self._inside, "") + data


def make(ticker_file: Path, **options: object) -> tuple[Research, Page]:
    path = ticker_file.with_name("report.html")
    output = ticker_file.with_name("out.parquet")
    result = research(ParquetSource(ticker_file), output, report=path, **options)  # type: ignore[arg-type]
    return result, Page(path.read_text(encoding="utf-8"))


def test_the_page_loads_nothing(ticker_file: Path) -> None:
    _, page = make(ticker_file)
    loading = ("src", "srcset", "href", "data", "action", "poster", "background", "xlink:href")
    for tag, attributes in page.tags:
        assert not set(loading) & set(attributes), (tag, attributes)
        assert tag not in {"link", "iframe", "object", "embed", "base"}
    assert "@import" not in page.texts["style"]
    assert "url(" not in page.texts["style"]
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_the_page_has_every_plot_and_table(ticker_file: Path) -> None:
    result, page = make(ticker_file, features="default")
    figures = json.loads(page.texts["figures"])
    assert {f"price-{n}" for n in range(3)} < set(figures)
    assert {f"volatility-{n}" for n in range(3)} < set(figures)
    assert {"spread", "imbalance", "returns", "features"} < set(figures)
    names = [trace.get("name", "") for trace in figures["price-0"]["data"]]
    assert "Bollinger bands (20, 2)" in names
    assert any(name.startswith("outliers (MAD): ") for name in names)
    places = {attributes.get("id") for _, attributes in page.tags}
    assert {"price", "volatility", "spread", "imbalance", "returns", "features"} < places
    assert set(figures["features"]["data"][0]["x"]) < set(result.features)


def test_without_quotes_the_page_has_no_empty_plots(ticker_file: Path) -> None:
    table = pq.read_table(ticker_file).select(["recv_ts", "price", "size"])
    pq.write_table(table, ticker_file)
    _, page = make(ticker_file)
    figures = json.loads(page.texts["figures"])
    assert "price-0" in figures
    assert not {"spread", "imbalance", "returns"} & set(figures)
    assert not {"spread", "imbalance"} & {attributes.get("id") for _, attributes in page.tags}


def test_names_from_the_data_are_text_not_markup(ticker_file: Path) -> None:
    table = pq.read_table(ticker_file)
    evil = "</script><img src=x onerror=alert(1)>"
    names = [evil if name == "BTC/USDT" else name for name in table.column("symbol").to_pylist()]
    pq.write_table(table.set_column(3, "symbol", [names]), ticker_file)
    result, page = make(ticker_file)
    assert evil in result.summary.labels
    assert "img" not in {tag for tag, _ in page.tags}


def test_the_page_stays_small_for_long_inputs(ticker_file: Path) -> None:
    result, _ = make(ticker_file)
    assert result.summary.plots is not None
    assert result.summary.plots.group_by("code").len()["len"].max() <= 2048
    assert result.report is not None
    assert result.report.stat().st_size < 8_000_000


@pytest.mark.parametrize(("events", "kind"), [(150, "scatter"), (151, "bar")])
def test_many_events_move_from_the_price_to_a_strip_below(events: int, kind: str) -> None:
    alarms = pl.Series([2] * events + [0] * 200)
    buckets = pl.DataFrame(
        {
            "code": pl.repeat(0, len(alarms), eager=True),
            "bucket": range(len(alarms)),
            "time": [number * 10**9 for number in range(len(alarms))],
            "close": 1.0,
            "low": 1.0,
            "high": 1.0,
            "alarms": alarms,
            "alarm_price": 1.0,
        }
    )
    figure = price_figure(buckets, gap_s=60.0)
    assert figure["data"][-1]["type"] == kind
    assert figure["data"][-1]["name"] == f"change alarms (CUSUM): {2 * events}"
    assert ("yaxis2" in figure["layout"]) == (kind == "bar")


def test_no_line_is_drawn_across_a_silence() -> None:
    seconds = [0, 1, 2, 500, 501]
    buckets = pl.DataFrame({"code": 0, "bucket": seconds, "time": [s * 10**9 for s in seconds]})
    ones = [pl.lit(1.0).alias(name) for name in ("close", "low", "high")]
    figure = price_figure(buckets.with_columns(ones), gap_s=60.0)
    line = np.frombuffer(base64.b64decode(figure["data"][-1]["y"]["bdata"]), "f8")
    np.testing.assert_array_equal(line, [1, 1, 1, np.nan, 1, 1])


def test_arrays_are_written_exactly() -> None:
    values = np.array([[1.0, np.nan], [1e-300, 3.0]])
    encoded = typed(values)
    assert encoded["shape"] == "2, 2"
    back = np.frombuffer(base64.b64decode(encoded["bdata"]), encoded["dtype"]).reshape(2, 2)
    np.testing.assert_array_equal(back, values)


def test_a_missing_extra_is_told_before_any_work(
    ticker_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "plotly" else real(name)
    )
    with pytest.raises(PipelineError, match=r'pip install "gpukern\[report\]"'):
        make(ticker_file)
    assert [file.name for file in ticker_file.parent.iterdir()] == ["ticker.parquet"]


def test_the_styles_follow_the_readers_theme(ticker_file: Path) -> None:
    _, page = make(ticker_file)
    dark = re.search(r"prefers-color-scheme: dark\) \{(.*?)\n\}", page.texts["style"], re.DOTALL)
    assert dark is not None
    light = set(re.findall(r"--[\w-]+:", page.texts["style"].split("@media")[0]))
    assert light - set(re.findall(r"--[\w-]+:", dark.group(1))) == set()
