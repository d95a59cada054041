"""Symbols are numbered; results return to the rows they came from, with nulls where none is."""

from __future__ import annotations

import numpy as np
import pytest

from gpukern.forms import cpu_back
from gpukern.forms.rows import (
    ANY,
    NON_NEGATIVE,
    NULL_INT,
    POSITIVE,
    all_present,
    mark_codes,
    number_symbols,
)
from gpukern.memory import empty

LENGTHS = [0, 1, 7, 8, 9, 1000, cpu_back.STREAMED - 1, cpu_back.STREAMED, cpu_back.STREAMED + 9]
PLACES = [0, 1]  # elements of the output from where a cache line begins


def places(rows: int) -> np.ndarray:
    """Positions of the rows in another order; one dense element belongs to none of them."""
    return np.random.default_rng(3).permutation(rows + 1)[:rows].astype(np.uint32)


def room(rows: int, at: int, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    return empty(rows + at, dtype)[at:], np.full((rows + 7) // 8, 255, np.uint8)


def brought_back(
    dense: np.ndarray, pos: np.ndarray | None, null: float, out: np.ndarray, bits: np.ndarray
) -> int:
    stream = cpu_back.worth_streaming(len(out), out)
    nulls = cpu_back.to_rows(dense, pos, null, stream, out, bits)
    cpu_back.settle()
    return nulls


@pytest.mark.parametrize("moved", [True, False], ids=["other order", "row order"])
@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("rows", LENGTHS)
def test_floats_that_are_not_finite_become_null(rows: int, at: int, moved: bool) -> None:
    rng = np.random.default_rng(4)
    special = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324, 1e308])
    dense = np.where(rng.random(rows + 1) < 0.3, rng.choice(special, rows + 1), rng.random())
    pos, (out, bits) = places(rows) if moved else None, room(rows, at, np.float64)
    nulls = brought_back(dense, pos, np.nan, out, bits)
    expected = np.where(np.isfinite(dense), dense, np.nan)
    expected = expected[:rows] if pos is None else expected[pos]
    assert np.array_equal(out.view(np.int64), expected.view(np.int64))
    assert np.array_equal(bits, np.packbits(np.isfinite(expected), bitorder="little"))
    assert nulls == np.isnan(expected).sum()


@pytest.mark.parametrize("moved", [True, False], ids=["other order", "row order"])
@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("rows", LENGTHS)
def test_only_one_word_is_null_among_integers(rows: int, at: int, moved: bool) -> None:
    dense = np.random.default_rng(5).choice([NULL_INT, NULL_INT + 1, -1, 0, 1], rows + 1)
    pos, (out, bits) = places(rows) if moved else None, room(rows, at, np.int64)
    nulls = brought_back(dense, pos, NULL_INT, out, bits)
    assert np.array_equal(out, dense[:rows] if pos is None else dense[pos])
    assert np.array_equal(bits, np.packbits(out != NULL_INT, bitorder="little"))
    assert nulls == (out == NULL_INT).sum()


@pytest.mark.parametrize("capacity", [8, 1000], ids=["most of them", "few of many"])
def test_symbols_of_a_batch_are_numbered_in_the_order_of_their_slots(capacity: int) -> None:
    slots = np.array([6, 2, 6, 7, 0, 2], np.int32)
    seen = np.full(capacity, -1, np.int32)
    local, touched = np.empty(6, np.int32), np.empty(6, np.int64)
    assert number_symbols(slots, seen, local, touched) == 4
    assert touched[:4].tolist() == [0, 2, 6, 7]
    assert local.tolist() == [2, 1, 2, 3, 0, 1]
    assert (seen == -1).all()


@pytest.mark.parametrize(
    ("codes", "alike", "occur"),
    [([], True, []), ([3, 3], True, [3]), ([1, 3, 0], False, [0, 1, 3]),
     ([2] * 5_000 + [1], False, [1, 2]), ([0, 3] * 50_000 + [1], False, [0, 1, 3]),
     ([0, 3, 2, 1] * 50_000, False, [0, 1, 2, 3])],
)  # fmt: skip
def test_codes_that_occur_are_found(codes: list[int], alike: bool, occur: list[int]) -> None:
    found = np.zeros(4, np.bool_)
    assert mark_codes(np.array(codes, np.int32), found) == alike
    assert np.flatnonzero(found).tolist() == occur


@pytest.mark.parametrize(
    ("domain", "inside", "outside"),
    [
        (ANY, [-1e308, -1.0, -0.0, 5e-324], [np.nan, np.inf, -np.inf]),
        (NON_NEGATIVE, [-0.0, 0.0, 5e-324, 1.7e308], [np.nan, np.inf, -np.inf, -5e-324]),
        (POSITIVE, [5e-324, 1.0, 1.7e308], [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0]),
    ],
    ids=["any", "not negative", "positive"],
)
def test_a_column_is_searched_for_values_outside_its_domain(
    domain: int, inside: list[float], outside: list[float]
) -> None:
    column = np.resize(np.array(inside), 3000)
    assert all_present(column, domain)
    for at in (0, 1023, 1024, 2999):
        for value in outside:
            wrong = column.copy()
            wrong[at] = value
            assert not all_present(wrong, domain)
