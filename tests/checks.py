"""The contract that every kernel keeps, as checks on one kernel with all its parameter sets.

``tests/contract`` runs them over the registry, ``tests/test_new_kernel.py`` over a user's kernels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import samples
from parameter_sets import ABSOLUTE, cases, mapped_cases

import gpukern as gk
from gpukern.durations import parse_duration
from gpukern.kernel import Kernel

# Kernels whose first value comes when the data say so: a volume that fills enough buckets.
DATA_DECIDES = frozenset({"vpin"})


@dataclass
class Case:
    """One parameter set: its expression and the names of its output columns."""

    expr: Any
    given: dict[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        return self.expr.names

    @cached_property
    def params(self) -> dict[str, Any]:
        return dict(self.expr.params)

    @cached_property
    def columns(self) -> list[str]:
        """The input columns of the case."""
        return [source.name for _, source in self.expr.inputs]

    @cached_property
    def plan(self) -> gk.Plan:
        return gk.Plan([self.expr])

    @property
    def finite_memory(self) -> bool:
        """Whether rows leave the kernel's sight: windows and lags, no recurrence."""
        return all(s.template.lookback in ("window", "lag") for s in self.plan.steps)

    def first(self, output: int) -> int | None:
        """The declared first valid row, where it is a number of rows."""
        if any(isinstance(self.params.get(n), str) for n in ("window", "k", "half_life")):
            return None
        if (
            self.params.get("min_periods") is not None
            and "min_periods" not in (self.expr.kernel.first[output])
        ):
            return None
        names = {"__builtins__": {}, "min": min, "max": max}
        return int(eval(self.expr.kernel.first[output], names, dict(self.params)))


def label(given: dict[str, Any]) -> str:
    return ", ".join(f"{n}={v}" for n, v in given.items()) or "defaults"


class Subject:
    """A kernel, its cases and plans of all of them."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.cases = []
        for given in cases(kernel):
            expr = kernel(**given)
            names = [f"{o.name} ({label(given)})" for o in kernel.outputs]
            self.cases.append(Case(expr.alias(*names), given))
        exprs = [c.expr for c in self.cases]
        self.plan = gk.Plan(exprs)
        self.propagating = gk.Plan(exprs, nan_policy="propagate")
        self.names = self.plan.output_names
        inputs = [self.plan.input_columns.index(n) for n in ("symbol", "ts")]
        assert inputs == [0, 1]

    def narrow(self, table: pa.Table) -> pa.Table:
        """Only the columns that the kernel needs."""
        return table.select(self.plan.input_columns)


def push_all(job: gk.Job, table: pa.Table, cuts: Iterable[int]) -> pa.Table:
    """The table pushed in pieces; an empty piece is a batch too."""
    edges = [0, *sorted(cuts), table.num_rows]
    pieces = [job.push(table.slice(a, b - a)) for a, b in pairwise(edges)]
    return pa.concat_tables(pieces)


# ------------------------------------------------------------------------------- same bits


def check_cuts(subject: Subject, table: pa.Table, cuts: list[int]) -> None:
    """Any cut into batches gives the bits of the whole."""
    table = subject.narrow(table)
    for plan in (subject.plan, subject.propagating):
        samples.assert_same(push_all(plan.start(), table, cuts), plan.run(table), subject.names)


def check_interleaving(subject: Subject, seed: int) -> None:
    """Mixed symbols give each symbol's own bits."""
    parts, holes = samples.symbol_parts(rows=120, long_rows=150)
    order = np.concatenate([[s] * len(p["ts"]) for s, p in parts.items()])
    np.random.default_rng(seed).shuffle(order)
    mixed = subject.narrow(samples.table(parts, order=order, holes=holes))
    for plan in (subject.plan, subject.propagating):
        together = plan.run(mixed)
        for symbol, part in parts.items():
            alone = samples.table({symbol: part}, holes=holes)
            rows = np.flatnonzero(order == symbol)
            samples.assert_same(plan.run(subject.narrow(alone)), together, subject.names, rows)


def check_causality(subject: Subject, table: pa.Table, row: int) -> None:
    """What comes after a row does not change it."""
    table = subject.narrow(table)
    for plan in (subject.plan, subject.propagating):
        whole, start = plan.run(table), plan.run(table.slice(0, row))
        samples.assert_same(start, whole, subject.names, np.arange(row))


def check_snapshot(subject: Subject, table: pa.Table, at: int, cuts: list[int]) -> None:
    """A restart continues with the same bits; the snapshot does not show how rows were cut."""
    table = subject.narrow(table)
    for plan in (subject.plan, subject.propagating):
        straight = plan.start()
        straight.push(table.slice(0, at))
        blob = straight.snapshot()
        cut = plan.start()
        push_all(cut, table.slice(0, at), [c for c in cuts if c <= at])
        assert cut.snapshot() == blob
        resumed = plan.resume(blob)
        assert resumed.snapshot() == blob
        rest = resumed.push(table.slice(at))
        samples.assert_same(rest, plan.run(table), subject.names, np.arange(at, table.num_rows))


def check_plain_python(subject: Subject, table: pa.Table) -> None:
    """The generated loops and the scalar functions run as plain Python, to the same bits."""
    table = subject.narrow(table)
    for plan in (subject.plan, subject.propagating):
        slow = plan.start()
        slow.jit = False
        with np.errstate(all="ignore"):
            samples.assert_same(slow.push(table), plan.run(table), subject.names)


def check_mapping(kernel: Kernel, table: pa.Table) -> None:
    """A per-symbol parameter gives each symbol what it would get with its value alone.

    A parameter that decides which kernel it is, such as a method, may refuse a mapping.
    """
    for given, name, values in mapped_cases(kernel):
        outputs = [f"{o.name} ({name} mapped)" for o in kernel.outputs]
        chosen = {s: values[n % 2] for n, s in enumerate(samples.SYMBOLS)}
        try:
            plan = gk.Plan([kernel(**given, **{name: chosen}).alias(*outputs)])
        except gk.PlanError as error:
            refused = f"{kernel.name}: {name} must be" in str(error)
            if not refused or not isinstance(values[0], (str, bool)):
                raise
            continue
        narrow = table.select(plan.input_columns)
        together = plan.run(narrow)
        symbols = np.array(narrow.column("symbol").to_pylist())
        for value in values:
            alone = gk.Plan([kernel(**given, **{name: value}).alias(*outputs)]).run(narrow)
            rows = np.flatnonzero(np.isin(symbols, [s for s, v in chosen.items() if v == value]))
            samples.assert_same(together.take(pa.array(rows)), alone, outputs, rows)


# ---------------------------------------------------------------------------- missing values


def missing_rows(case: Case, table: pa.Table) -> np.ndarray:
    """Rows where an input of the case is null, not finite or outside its domain."""
    gone = np.zeros(table.num_rows, bool)
    domains = {i.name: i.domain for i in case.expr.kernel.inputs}
    for name, source in case.expr.inputs:
        column = table.column(source.name).cast(pa.float64(), safe=False)
        values = column.combine_chunks().fill_null(np.nan).to_numpy(zero_copy_only=False)
        gone |= ~np.isfinite(values)
        if domains[name] == ">0":
            gone |= ~(values > 0)
        elif domains[name] == ">=0":
            gone |= ~(values >= 0)
    return gone


def check_missing_rows_are_null(subject: Subject, table: pa.Table) -> None:
    """Under 'skip' a row with a missing input is null in every output, and floats are finite."""
    out = subject.plan.run(subject.narrow(table))
    for case in subject.cases:
        gone = missing_rows(case, table)
        for name, output in zip(case.names, subject.kernel.outputs, strict=True):
            column = out.column(name).combine_chunks()
            valid = np.asarray(column.is_valid())
            if not subject.kernel.guard:
                assert not (valid & gone).any(), f"{name}: a value where an input is missing"
            if output.dtype == "f64":
                values = column.drop_null().to_numpy()
                assert np.isfinite(values).all(), f"{name}: a value that is not finite"
            else:
                expected = {"b": pa.bool_(), "i8": pa.int8(), "i64": pa.int64()}[output.dtype]
                assert column.type == expected
            assert valid.any(), f"{name}: nothing but nulls"


def check_skip(subject: Subject, seed: int) -> None:
    """Rows with a missing input, put anywhere, change no other row."""
    random = np.random.default_rng(seed)
    table = subject.narrow(samples.clean(160, seed=3))
    doubled = np.sort(np.concatenate([np.arange(160), random.integers(0, 160, 40)]))
    inserted = np.concatenate([[False], doubled[1:] == doubled[:-1]])
    for case in subject.cases:
        target = case.columns[int(random.integers(len(case.columns)))]
        wider = table.take(pa.array(doubled))
        place = wider.schema.get_field_index(target)
        old = wider.column(place).combine_chunks()
        kind = samples.MISSING_VALUES[int(random.integers(4))] if pa.types.is_floating(old.type) \
            else None  # fmt: skip
        filler = pa.scalar(kind, old.type)
        column = pa.compute.if_else(pa.array(inserted), filler, old)
        wider = wider.set_column(place, target, column)
        got = case.plan.run(wider).filter(pa.array(~inserted))
        samples.assert_same(got, case.plan.run(table), case.names)


def check_recovery(subject: Subject) -> None:
    """Under 'propagate' a NaN shows at once and is forgotten when it leaves a window or lag."""
    row = 61
    good = samples.clean(240, seed=4)
    for case in subject.cases:
        if subject.kernel.guard:
            continue
        plan = gk.Plan([case.expr], nan_policy="propagate")
        for target in case.columns:
            place = good.schema.get_field_index(target)
            hole = pa.array(np.arange(240) == row)
            kind = good.schema.field(place).type
            column = pa.compute.if_else(hole, pa.scalar(None, kind), good.column(place))
            holed = good.set_column(place, target, column)
            got, expected = plan.run(subject.narrow(holed)), plan.run(subject.narrow(good))
            if not case.finite_memory:
                continue
            after = np.arange(leaves_sight(case, good, row), 240)
            samples.assert_same(got.slice(after[0]), expected, case.names, after)


# ------------------------------------------------------------------- declarations of the kernel


def leaves_sight(case: Case, table: pa.Table, row: int) -> int:
    """The first row whose value cannot depend on ``row`` any more."""
    firsts = [case.first(n) for n in range(len(case.names))]
    params = case.params
    window = params.get("window")
    rows = window if isinstance(window, int) else 1
    if all(f is not None for f in firsts):
        return row + max(rows, *(f for f in firsts if f is not None))
    if params.get("min_periods") is not None and isinstance(window, int):
        return row + window + 3
    spans = [v for n, v in params.items() if n in ("window", "k") and isinstance(v, str)]
    t = table.column("ts").cast(pa.int64()).to_numpy()
    limit = t[min(row + 3, len(t) - 1)] + sum(parse_duration(s) for s in spans)
    return int(np.searchsorted(t, limit)) + 3


def check_warm_up(subject: Subject) -> None:
    """Null before the declared first row; on some data a value there."""
    tables = [samples.clean(240, seed=s) for s in range(8)]
    results = [subject.plan.run(subject.narrow(t)) for t in tables]
    for case in subject.cases:
        for n, name in enumerate(case.names):
            first = case.first(n)
            if first is None:
                continue
            valid = [np.asarray(r.column(name).combine_chunks().is_valid()) for r in results]
            for v in valid:
                early = np.flatnonzero(v[: first - 1])
                assert not len(early), f"{name}: row {early[:1] + 1} has a value, first is {first}"
            if subject.kernel.name not in DATA_DECIDES:
                assert any(v[first - 1] for v in valid), f"{name}: row {first} is null everywhere"


def check_bad_print(subject: Subject) -> None:
    """After a print of 1e9 has left the window nothing of it remains, to the last bit."""
    row = samples.BAD_ROW
    values = samples.columns(240, seed=12, ties=False)
    good = samples.table({"BTC/USD": values})
    bad = samples.table({"BTC/USD": samples.with_print(values, row)})
    for case in subject.cases:
        if not case.finite_memory:
            continue
        got, expected = (case.plan.run(subject.narrow(t)) for t in (bad, good))
        after = np.arange(leaves_sight(case, good, row), 240)
        samples.assert_same(got.slice(after[0]), expected, case.names, after)


def check_scale(subject: Subject) -> None:
    """Prices times 2**k give outputs times 2**(k·p) exactly, p as declared."""
    kernel = subject.kernel
    values = samples.flatten(samples.columns(200, seed=13), range(60, 90))
    inputs = {i.name: i.dtype for i in kernel.inputs}
    levels = [n for n in inputs if n not in samples.AMOUNTS and n not in samples.INTEGERS]
    moved = levels or [n for n in inputs if n not in ("side", "signed_volume", "last_update")]
    for power in (-9, 14):
        scaled = {
            n: v * 2.0**power if n in moved and v.dtype == np.float64 else v
            for n, v in values.items()
        }
        plain, large = (
            subject.plan.run(subject.narrow(samples.table({"BTC/USD": v})))
            for v in (values, scaled)
        )
        for case in subject.cases:
            if any(case.params.get(n) is not None for n in ABSOLUTE):
                continue
            for name, p, output in zip(case.names, kernel.scale, kernel.outputs, strict=True):
                if p is None:
                    continue
                expected = plain.column(name)
                if output.dtype == "f64":
                    expected = pa.compute.multiply(expected, 2.0 ** (power * p))
                wanted = large.set_column(large.schema.get_field_index(name), name, expected)
                samples.assert_same(large, wanted, [name])


def check_description(kernel: Kernel) -> None:
    """What documentation, tests and the catalogue read is there."""
    assert kernel.doc
    assert kernel.doc.split("\n\n")[0].rstrip().endswith((".", ":", ")"))
    assert kernel.source, f"{kernel.name} names no source"
    assert len(kernel.first) == len(kernel.outputs)
    assert len(kernel.scale) == len(kernel.outputs)
    for output in kernel.outputs:
        if output.dtype == "f64":
            assert output.unit, f"{kernel.name}: {output.name} has no unit"
