"""Plans: expressions resolved into ordered steps, equal sub-expressions computed once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpukern import backend, codegen, frame
from gpukern.errors import PlanError, StateError
from gpukern.expr import Column, Expr
from gpukern.forms import cpu, rows
from gpukern.job import Job
from gpukern.kernel import Kernel, kernels
from gpukern.state import check_periods, parameter_words, unpack

POLICIES = ("skip", "propagate")
DOMAINS = {"": rows.ANY, ">0": rows.POSITIVE, ">=0": rows.NON_NEGATIVE}
Ref = tuple[str, str] | tuple[int, int]  # ("column", name) or (step, output)


# What must be present on a row, or be made dense: a column (None: time) and its domain.
Need = tuple[Ref | None, int]


@dataclass(frozen=True)
class Step:
    """One kernel to run: where its inputs come from and how deep it stands in the plan.

    ``present`` says which rows exist for it, ``dense`` which columns its loop reads (None: an
    optional input that is not given), ``clock`` whether it reads the time.
    """

    kernel: Kernel
    params: dict[str, Any]
    inputs: tuple[tuple[str, Ref | None], ...]
    template: cpu.Template
    level: int
    present: tuple[Need, ...]
    dense: tuple[Need | None, ...]
    clock: bool
    kinds: tuple[type, ...]


@dataclass(frozen=True)
class Level:
    """Steps that need nothing from each other, and what has to be ready before them."""

    steps: tuple[int, ...]
    present: tuple[Need, ...]
    dense: tuple[tuple[tuple[Need, ...], Need], ...]  # (row class, column)


@dataclass(frozen=True)
class Output:
    """One output column of the plan."""

    name: str
    ref: Ref
    dtype: str


class Plan:
    """Feature expressions over one table layout.

    ``by`` names the key column(s), or None for one series; ``time`` the time column, or None if
    nothing needs it. ``nan_policy`` is ``'skip'`` (rows with a missing input do not exist for a
    kernel) or ``'propagate'`` (missing values enter the arithmetic as NaN).
    """

    def __init__(
        self,
        expressions: Iterable[Expr],
        *,
        by: str | Sequence[str] | None = "symbol",
        time: str | None = "ts",
        nan_policy: str = "skip",
    ) -> None:
        self.by = (by,) if isinstance(by, str) else tuple(by or ())
        self.time = time
        if nan_policy not in POLICIES:
            raise PlanError(f"nan_policy must be 'skip' or 'propagate', got {nan_policy!r}")
        self.nan_policy = nan_policy
        self.expressions = tuple(expressions)
        self.steps: list[Step] = []
        self.outputs: list[Output] = []
        self._known: dict[Any, list[Ref]] = {}
        self._parts: dict[Any, list[tuple[Expr, int]]] = {}
        self._columns: dict[str, None] = {}
        self._resolve()

    # -- resolution -----------------------------------------------------------------------

    def _resolve(self) -> None:
        if not self.expressions:
            raise PlanError("a plan needs at least one expression")
        names: dict[str, Expr] = {}
        for expr in self.expressions:
            if not isinstance(expr, Expr):
                raise PlanError(
                    f"a plan takes expressions such as gpukern.ewma('price'), got {expr!r}"
                )
            refs = self._refs(expr)
            for name, ref, pick in zip(expr.names, refs, expr.pick, strict=True):
                if name in names:
                    raise PlanError(
                        f"output {name!r} is given twice, by {names[name].kernel.name} and "
                        f"{expr.kernel.name}; rename one with .alias()"
                    )
                names[name] = expr
                self.outputs.append(Output(name, ref, expr.kernel.outputs[pick].dtype))
        self._leave_out()

    def _leave_out(self) -> None:
        """Have loops count nothing for outputs that nobody reads.

        Other outputs cost little where their kernel runs anyway; for every choice among them a loop
        would have to be compiled.
        """
        used = self.used()
        for n, step in enumerate(self.steps):
            outputs = [o.name for o in step.kernel.outputs]
            unread = {name for k, name in enumerate(outputs) if (n, k) not in used}
            if unread := unread.intersection(step.kernel.counting):
                template = cpu.template(step.kernel, step.params, frozenset(unread))
                self.steps[n] = replace(step, template=template)

    def _refs(self, expr: Expr) -> list[Ref]:
        """Where the picked outputs of an expression are computed, adding steps as needed."""
        key = expr.key
        if expr.kernel.form == "composite":
            return self._compose(expr, key)
        if key not in self._known:
            self._known[key] = self._add(expr)
        return [self._known[key][p] for p in expr.pick]

    def _compose(self, expr: Expr, key: Any) -> list[Ref]:
        """The parts of a composite that are asked for; the others are not computed."""
        if key not in self._parts:
            build = expr.kernel.functions["build"]
            check_periods(expr.kernel, dict(expr.params))  # errors name it rather than its parts
            given = {**dict(expr.inputs), **dict(expr.params)}
            with _named(expr.kernel):
                built = build(**{n: given.get(n) for n in codegen.arguments(build)})
            parts = built if isinstance(built, tuple) else (built,)
            # One expression may stand for several outputs: take it apart.
            self._parts[key] = [(part, at) for part in parts for at in range(len(part.names))]
        asked = [self._parts[key][p] for p in expr.pick]
        with _named(expr.kernel):
            return [self._refs(part)[at] for part, at in asked]

    def _add(self, expr: Expr) -> list[Ref]:
        kernel, params = expr.kernel, dict(expr.params)
        template = cpu.template(kernel, params)
        uses_time = template.uses_time or kernel.needs_time
        if uses_time and self.time is None:
            raise PlanError(f"{kernel.name} needs time; name the time column with time=")
        sources = dict(expr.inputs)
        inputs: list[tuple[str, Ref | None]] = []
        level = 0
        for spec in kernel.inputs:
            source = sources.get(spec.name)
            if source is None:
                inputs.append((spec.name, None))
            elif isinstance(source, Column):
                self._columns[source.name] = None
                inputs.append((spec.name, ("column", source.name)))
            else:
                (ref,) = self._refs(source)
                assert isinstance(ref[0], int)
                level = max(level, self.steps[ref[0]].level + 1)
                inputs.append((spec.name, ref))
        if not any(isinstance(v, dict) for v in params.values()):
            parameter_words(kernel, params, None, self.nan_policy)  # raises if they do not fit
        skip = self.nan_policy == "skip"
        present: list[Need] = []
        dense: list[Need | None] = []
        for spec, (_, source_ref) in zip(kernel.inputs, inputs, strict=True):
            domain = DOMAINS[spec.domain]
            given = source_ref is not None
            dense.append((source_ref, rows.ANY if skip else domain) if given else None)
            if given and skip and not kernel.guard:
                present.append((source_ref, domain))
        if uses_time and not kernel.guard:
            present.append((None, rows.ANY))
        step = Step(
            kernel,
            params,
            tuple(inputs),
            template,
            level,
            tuple(dict.fromkeys(present)),
            tuple(dense),
            uses_time,
            tuple(np.float64 if o.dtype == "f64" else np.int64 for o in kernel.outputs),
        )
        self.steps.append(step)
        here = len(self.steps) - 1
        return [(here, n) for n in range(len(kernel.outputs))]

    def used(self) -> set[Ref]:
        """Results that are outputs of the plan or inputs of another step."""
        read = {ref for step in self.steps for _, ref in step.inputs if ref is not None}
        return read | {o.ref for o in self.outputs}

    def levels(self, row_wise: Collection[int] = ()) -> list[Level]:
        """The steps by depth; steps that run in row order need nothing made ready."""
        found = []
        for depth in range(max(s.level for s in self.steps) + 1):
            own = [n for n, s in enumerate(self.steps) if s.level == depth]
            steps = [self.steps[n] for n in own if n not in row_wise]
            dense = [(s.present, d) for s in steps for d in s.dense if d is not None]
            dense += [(s.present, (None, rows.ANY)) for s in steps if s.clock]
            present = tuple(dict.fromkeys(p for s in steps for p in s.present))
            found.append(Level(tuple(own), present, tuple(dict.fromkeys(dense))))
        return found

    # -- description ----------------------------------------------------------------------

    @property
    def output_names(self) -> list[str]:
        """Names of the columns the plan appends."""
        return [o.name for o in self.outputs]

    @property
    def value_columns(self) -> list[str]:
        """Input columns that kernels read."""
        return list(self._columns)

    @property
    def uses_time(self) -> bool:
        """Whether any kernel reads the time column."""
        return any(s.clock for s in self.steps)

    @property
    def input_columns(self) -> list[str]:
        """All columns the table must have: key, time, values."""
        names = [*self.by, *([self.time] if self.time is not None else []), *self._columns]
        return list(dict.fromkeys(names))

    @property
    def fingerprint(self) -> str:
        """Identity of the carried state: kernels with their code, parameters, wiring, key, time."""
        parts: list[Any] = [list(self.by), self.time, self.nan_policy]
        for step in self.steps:
            code = {n: codegen.source_of(f) for n, f in sorted(step.kernel.functions.items())}
            template = step.template
            if template.unread:  # the state is the same whatever is read of it
                template = cpu.template(step.kernel, step.params)
            digest = hashlib.sha256(json.dumps([template.text, code]).encode()).hexdigest()
            parts.append([step.kernel.name, digest, repr(sorted(step.params.items())), step.inputs])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return _plan, (self.expressions, self.by, self.time, self.nan_policy)

    def __repr__(self) -> str:
        return f"<plan of {len(self.steps)} steps → {', '.join(self.output_names)}>"

    # -- execution ------------------------------------------------------------------------

    def run(
        self,
        table: Any,
        *,
        device: str = "cpu",
        sort: bool = False,
        threads: int | None = None,
    ) -> Any:
        """Compute the features of a whole table.

        Takes a pyarrow Table or RecordBatch, a polars or a pandas DataFrame; returns the same kind
        with the outputs appended, rows and columns in their order. Time must not go backwards
        within a symbol (UnsortedError); ``sort=True`` computes in time order instead and still
        returns the rows where they were. Raises PlanError before any work if a column is missing
        or of the wrong type.
        """
        return self._job(device, threads).run(table, sort=sort)

    def start(self, *, device: str = "cpu", threads: int | None = 1) -> Job:
        """Begin a stream: a job whose ``push`` gives the same bits batch by batch."""
        return self._job(device, threads)

    def resume(self, blob: bytes, *, device: str = "cpu", threads: int | None = 1) -> Job:
        """Continue from ``Job.snapshot``; raise StateError if it belongs to another plan."""
        header, arrays = unpack(blob)
        if header["plan"] != self.fingerprint:
            raise StateError(
                "the snapshot belongs to another plan (its kernels, parameters, key, time or "
                "versions differ); resume with the plan that made it"
            )
        job = self._job(device, threads)
        job.restore(header, arrays)
        return job

    def _job(self, device: str, threads: int | None) -> Job:
        chosen = backend.choose(device)
        if chosen == "cpu":
            return Job(self, threads=threads)
        from gpukern.device_job import DeviceJob

        return DeviceJob(self, chosen)


@contextmanager
def _named(composite: Kernel) -> Iterator[None]:
    """Errors about a composite's hidden parts name the composite, which is what the user wrote."""
    try:
        yield
    except PlanError as error:
        part, colon, rest = str(error).partition(":")
        hidden = colon and getattr(kernels(hidden=True).get(part), "hidden", False)
        if not hidden:
            raise
        raise PlanError(f"{composite.name}:{rest}") from None


def _plan(expressions: Iterable[Expr], by: Any, time: str | None, nan_policy: str) -> Plan:
    return Plan(expressions, by=by, time=time, nan_policy=nan_policy)


def with_features(
    batch: Any,
    *expressions: Expr,
    by: str | Sequence[str] | None = "symbol",
    time: str | None = "ts",
    nan_policy: str = "skip",
) -> Any:
    """Append features to one batch; ``by`` and ``time`` are dropped if the batch lacks them."""
    names = frame.column_names(batch)
    if by == "symbol" and "symbol" not in names:
        by = None
    if time == "ts" and "ts" not in names:
        time = None
    return Plan(expressions, by=by, time=time, nan_policy=nan_policy).run(batch)
