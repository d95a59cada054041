"""What a kernel is: inputs, parameters, outputs, one of four forms, and its scalar functions.

A kernel is written once, as a class holding plain scalar functions, under a decorator that names
its form (``map_``, ``fold``, ``step``, ``rank``) or under ``composite`` when it is defined through
other kernels. The decorator turns the class into a :class:`Kernel` and registers it; calling the
kernel gives a feature expression. The forms (``gpukern/forms``) own loops, symbols, windows,
warm-up, nulls and state, so nothing of that appears in a kernel file.

Scalar functions ask for what they need by argument name:

========================  ==========================================================================
``x`` (an input's name)   the current row
``window`` (a parameter)  the parameter's value; a choice is the index into its options
``t``, ``k``              the row's time (int64 ns); the row's number among the valid rows, from 0
``prev_x``, ``prev2_x``   the previous valid row, the one before (``prev_t`` likewise); rows that
                          lack them do not exist for the kernel
``lag_x``                 map only: the row that the parameter ``k`` points back to
``null``                  the null of float outputs, for warm-up (step, total and value only)
``dx``, ``cx``            fold only: the input minus the block's centre; the centre (a row in the
                          window, so differences of nearby prices are exact)
========================  ==========================================================================

and by form:

* map: ``value(...) -> outputs``.
* fold: ``lift(...) -> acc`` makes one row an element of a monoid, ``join(a, b)`` combines two
  (default: field-wise sum), ``zero`` is its identity (default: zeros). ``inner(...)`` may first
  turn rows into the rows of a derived series, named by ``series``. With a window:
  ``value(n, <acc fields>, ...) -> outputs``. Without: ``absorb(<base fields>, n, <acc>, ...)``
  takes n more rows into what all earlier blocks left, ``empty`` is that before the first row, and
  ``total(<base fields>, ...) -> outputs``. ``segment(t, ...)`` restarts it when its value changes.
* step: ``init(...) -> state``; ``step(<state fields>, ...) -> (state, outputs)``.
* rank: ``value(s, n, ...) -> outputs`` where ``s[0:n]`` is the window in ascending order. If
  ``reach(n, ...)`` says that it reads that many of the lowest values at most, the others need not
  be kept in order; ``reach`` is then that number, ``within`` how many values are not above the last
  of those.

Write ``NAN`` for a result that does not exist (null under nan_policy='skip', NaN under
'propagate'), ``null`` for warm-up (null under both), ``NULL`` for a null flag, category or count.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

from gpukern.durations import parse_duration
from gpukern.errors import PlanError

NAN = float("nan")
# Null of the integer-like outputs inside the engine; turned into an Arrow null at the border.
NULL = -(2**63)

# Parameters whose type chooses the loop that is compiled: one type for all symbols.
ONE_FORM = ("window", "lag", "duration", "half_life")

# Every symbol keeps the rows of its windows; beyond this a duration or bars are meant.
MOST_ROWS = 1 << 24


@dataclass(frozen=True)
class Input:
    """One input column: its name, its type and the domain outside which a value is missing."""

    name: str
    dtype: str = "f64"
    domain: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Output:
    """One output column: a name (may use ``{x}``, ``{w}``, ``{k}`` …), a type, a unit."""

    name: str
    dtype: str = "f64"
    unit: str = ""


@dataclass(frozen=True)
class Param:
    """A parameter: its default and what values are allowed."""

    name: str
    default: Any = None
    kind: str = "number"  # number integer boolean choice duration window lag periods half_life
    low: float | None = None
    high: float | None = None
    above: float | None = None  # exclusive bounds
    below: float | None = None
    optional: bool = False
    required: bool = False
    options: tuple[str, ...] = ()
    rows_only: bool = False
    minimum: str = "1"  # periods: the statistic's own minimum, an expression of the parameters
    doc: str = ""

    def check(self, kernel: str, value: Any) -> Any:
        """Return the value in canonical form or raise PlanError naming kernel, parameter, value."""
        where = f"{kernel}: {self.name}"
        if isinstance(value, np.generic):
            value = value.item()
        if value is None:
            if self.optional:
                return None
            raise PlanError(f"{where} must be given" + (f"; {self.doc}" if self.doc else ""))
        if isinstance(value, Mapping):
            if not value:
                raise PlanError(f"{where} is an empty mapping; give {{symbol: value}}")
            each = {symbol: self.check(kernel, v) for symbol, v in value.items()}
            if self.kind in ONE_FORM and len({type(v) for v in each.values()}) > 1:
                raise PlanError(
                    f"{where} must be rows, a duration or None for all symbols alike, got {value!r}"
                )
            return each
        return getattr(self, f"_check_{self.kind}")(where, value)

    def _bounds(self, where: str, value: Any) -> Any:
        rules = []
        if self.low is not None:
            rules.append((value >= self.low, f">= {self.low:.12g}"))
        if self.high is not None:
            rules.append((value <= self.high, f"<= {self.high:.12g}"))
        if self.above is not None:
            rules.append((value > self.above, f"> {self.above:.12g}"))
        if self.below is not None:
            rules.append((value < self.below, f"< {self.below:.12g}"))
        if not all(ok for ok, _ in rules):
            raise PlanError(f"{where} must be {' and '.join(r for _, r in rules)}, got {value!r}")
        return value

    def _check_number(self, where: str, value: Any) -> float | str:
        if isinstance(value, str) and value in self.options:
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            words = "".join(f" or {word!r}" for word in self.options)
            raise PlanError(f"{where} must be a number{words}, got {value!r}")
        value = float(value)
        if value - value != 0.0:
            raise PlanError(f"{where} must be finite, got {value!r}")
        return self._bounds(where, value)

    def _check_integer(self, where: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise PlanError(f"{where} must be an integer, got {value!r}")
        return self._bounds(where, value)

    _check_periods = _check_integer

    def _check_half_life(self, where: str, value: Any) -> float | str:
        if not isinstance(value, str):
            return self._check_number(where, value)
        if parse_duration(value, what=where) <= 0:
            raise PlanError(f"{where} must be longer than zero, got {value!r}")
        return value

    def _check_boolean(self, where: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise PlanError(f"{where} must be True or False, got {value!r}")
        return value

    def _check_choice(self, where: str, value: Any) -> str:
        if value not in self.options:
            raise PlanError(f"{where} must be one of {', '.join(self.options)}, got {value!r}")
        return value

    def _check_duration(self, where: str, value: Any) -> str:
        if not isinstance(value, str):
            raise PlanError(f"{where} must be a duration such as '60s', got {value!r}")
        parse_duration(value, what=where)
        return value

    def _check_window(self, where: str, value: Any) -> int | str:
        if isinstance(value, str):
            if self.rows_only:
                raise PlanError(f"{where} must be a number of rows, got {value!r}")
            if parse_duration(value, what=where) <= 0:
                raise PlanError(f"{where} must be longer than zero, got {value!r}")
            return value
        if isinstance(value, bool) or not isinstance(value, int):
            raise PlanError(
                f"{where} must be an integer number of rows"
                + ("" if self.rows_only else " or a duration such as '60s'")
                + f", got {value!r}"
            )
        return self._bounds(where, value)

    _check_lag = _check_window


def window(
    default: int | str | None = 20, *, low: int = 1, rows_only: bool = False, optional: bool = False
) -> Param:
    """The window: a number of valid rows or a duration."""
    return Param(
        "window", default, "window", low=low, high=MOST_ROWS, rows_only=rows_only, optional=optional
    )


def min_periods(minimum: str = "1", default: int | None = None) -> Param:
    """``min_periods``; None is the full window of rows, or ``minimum`` for a duration."""
    return Param("min_periods", default, "periods", low=1, optional=True, minimum=minimum)


def number(name: str, default: float | None = None, **kw: Any) -> Param:
    """A float parameter with bounds ``low high above below``."""
    return Param(name, default, "number", **kw)


def integer(name: str, default: int | None = None, **kw: Any) -> Param:
    """An integer parameter with bounds ``low high above below``."""
    return Param(name, default, "integer", **kw)


def boolean(name: str, default: bool) -> Param:
    """A yes/no parameter."""
    return Param(name, default, "boolean")


def choice(name: str, default: str, *options: str) -> Param:
    """A parameter with named options; the first listed is index 0 in the scalar functions."""
    return Param(name, default, "choice", options=options)


def duration(name: str, default: str | None, *, optional: bool = False) -> Param:
    """A duration parameter, int64 ns in the scalar functions (None: 0)."""
    return Param(name, default, "duration", optional=optional)


def half_life() -> Param:
    """A half-life in rows (a number) or in time (a duration); for composites."""
    return Param("half_life", None, "half_life", above=0, optional=True)


def per_symbol(function: Callable[..., Any], *values: Any) -> Any:
    """``function(*values)``, done for each symbol if any of the values is a mapping of symbols."""
    mappings = [v for v in values if isinstance(v, Mapping)]
    if not mappings:
        return function(*values)
    symbols = [s for s in mappings[0] if all(s in m for m in mappings)]
    return {s: function(*(v[s] if isinstance(v, Mapping) else v for v in values)) for s in symbols}


def lag(default: int = 1, *, low: int = 1, rows_only: bool = False) -> Param:
    """The lag ``k`` of a map kernel: a number of valid rows or a duration."""
    return Param("k", default, "lag", low=low, high=MOST_ROWS, rows_only=rows_only)


_INPUT = re.compile(r"(\w+?)(\?)?(?::(f64|i64|i8))?(>0|>=0)?(\?)?")
_OUTPUT = re.compile(r"([\w{}]+)(?::(f64|i64|i8|b))?")


def parse_inputs(text: str) -> tuple[Input, ...]:
    """``'price>0, volume>=0, side?'`` → inputs (``?`` = optional, ``:i64`` = integer)."""
    found = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        match = _INPUT.fullmatch(part)
        if match is None:
            raise PlanError(f"input {part!r} is not of the form name[:type][>0|>=0][?]")
        optional = bool(match[2] or match[5])
        found.append(Input(match[1], match[3] or "f64", match[4] or "", optional))
    return tuple(found)


def parse_outputs(text: str, units: str) -> tuple[Output, ...]:
    """``'cusum_stat, cusum_alarm:b'`` and matching units → outputs."""
    names = [p.strip() for p in text.split(",")]
    unit_list = [u.strip() for u in units.split(",")] if units else [""] * len(names)
    if len(unit_list) == 1:
        unit_list = unit_list * len(names)
    if len(unit_list) != len(names):
        raise PlanError(f"{len(unit_list)} units for the {len(names)} outputs {text!r}")
    found = []
    for part, unit in zip(names, unit_list, strict=True):
        match = _OUTPUT.fullmatch(part)
        if match is None:
            raise PlanError(f"output {part!r} is not of the form name[:f64|i64|i8|b]")
        found.append(Output(match[1], match[2] or "f64", unit))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A registered kernel. Call it with column names or expressions to get an expression."""

    name: str
    form: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    params: tuple[Param, ...]
    functions: Mapping[str, Callable[..., Any]]
    fields: dict[str, tuple[str, ...]] = field(default_factory=dict)  # acc base state series
    constants: dict[str, tuple[float, ...]] = field(default_factory=dict)  # zero empty
    first: tuple[str, ...] = ()
    source: str = ""
    family: str = ""
    doc: str = ""
    scale: tuple[int | None, ...] = ()
    guard: bool = False
    hidden: bool = False
    needs_time: bool = False
    exclude_current: str = ""
    ring: str = ""
    segment_by: str = ""
    counting: tuple[str, ...] = ()

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        from gpukern.expr import call

        return call(self, inputs, named)

    def __reduce__(self) -> tuple[Any, ...]:
        function = next(iter(self.functions.values()))
        return find, (self.name, function.__module__)

    def __repr__(self) -> str:
        return f"<kernel {self.name}: {self.form}>"

    @property
    def units(self) -> dict[str, str]:
        """Unit of each output."""
        return {o.name: o.unit for o in self.outputs}

    @property
    def signature(self) -> str:
        """The call as it is documented: inputs with domains; parameters with defaults."""
        ins = ", ".join(i.name + i.domain + ("?" if i.optional else "") for i in self.inputs)
        pars = ", ".join(p.name if p.required else f"{p.name}={p.default!r}" for p in self.params)
        return f"{self.name}({ins}{'; ' + pars if pars else ''})"

    def bind(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Check and complete the parameters; raise PlanError for unknown or invalid ones."""
        known = {p.name: p for p in self.params}
        for name in params:
            if name not in known:
                raise PlanError(
                    f"{self.name}: unknown parameter {name!r}; it takes "
                    + (", ".join(known) if known else "none")
                )
        bound = {}
        for p in self.params:
            if p.required and p.name not in params:
                raise PlanError(
                    f"{self.name}: {p.name} must be given" + (f"; {p.doc}" if p.doc else "")
                )
            bound[p.name] = p.check(self.name, params.get(p.name, p.default))
            if p.name == self.exclude_current and isinstance(bound[p.name], dict):
                raise PlanError(
                    f"{self.name}: {p.name} must be True or False for all symbols, not a mapping"
                )
        if "validate" in self.functions:
            problem = self.functions["validate"](bound)
            if problem:
                raise PlanError(f"{self.name}: {problem}")
        return bound


_registry: dict[str, Kernel] = {}


def kernels(*, hidden: bool = False) -> dict[str, Kernel]:
    """All registered kernels by name; ``hidden=True`` adds the building blocks of composites."""
    import gpukern.kernels  # noqa: F401  (registers the shipped kernels)

    return {n: k for n, k in sorted(_registry.items()) if hidden or not k.hidden}


def find(name: str, module: str) -> Kernel:
    """The kernel of this name; the module that registers it is imported if need be."""
    import gpukern.kernels  # noqa: F401

    if name not in _registry:
        try:
            import_module(module)
        except ImportError as error:
            raise _not_here(name, module) from error
        if name not in _registry:
            raise _not_here(name, module)
    return _registry[name]


def _not_here(name: str, module: str) -> PlanError:
    return PlanError(
        f"kernel {name!r} is not known in this process, and importing {module!r}, where it was "
        f"defined, does not make it known; define it in a module that every process can import"
    )


def unregister(name: str) -> None:
    """Forget a kernel that was registered from outside the package."""
    _registry.pop(name, None)


FUNCTIONS = {
    "map": {"value"},
    "fold": {"inner", "lift", "join", "value", "absorb", "total", "segment"},
    "step": {"init", "step"},
    "rank": {"value", "reach"},
    "composite": {"build"},
}


def _expressions(text: str) -> tuple[str, ...]:
    """``'slow, max(slow, signal)'`` → its expressions; commas inside calls do not divide."""
    parsed = ast.parse(f"[{text}]", mode="eval").body
    assert isinstance(parsed, ast.List)
    return tuple(ast.unparse(e) for e in parsed.elts)


def _counting(
    kernel: str, functions: Mapping[str, Any], outputs: tuple[Output, ...], given: str
) -> tuple[str, ...]:
    """The outputs that depend on ``within``: those that are named, else all if it is asked for."""
    names, known = given.replace(",", " ").split(), [o.name for o in outputs]
    for name in names:
        if name not in known:
            raise PlanError(f"kernel {kernel}: counting={given!r}: it has no output {name!r}")
    asked = "value" in functions and "within" in inspect.signature(functions["value"]).parameters
    if names and not asked:
        raise PlanError(f"kernel {kernel}: counting={given!r}: value() does not ask for 'within'")
    return tuple(names or known) if asked else ()


def _register(form: str, cls: type, spec: dict[str, Any]) -> Kernel:
    body = vars(cls)
    functions = {n: f for n, f in body.items() if inspect.isfunction(f)}
    extra = set(functions) - FUNCTIONS[form] - {"validate", "needs"}
    if extra:
        raise PlanError(
            f"kernel {cls.__name__}: a {form} kernel has no function {sorted(extra)[0]}()"
        )
    fields = {
        key: tuple(body[key].replace(",", " ").split())
        for key in ("acc", "base", "state", "series")
        if key in body
    }
    constants = {key: body[key] for key in ("zero", "empty") if key in body}
    outputs = parse_outputs(spec["out"], spec.get("units", ""))
    first = spec.get("first", "1")
    firsts = _expressions(first) if isinstance(first, str) else tuple(first)
    scale = spec.get("scale")
    scales = tuple(scale) if isinstance(scale, Sequence) else (scale,)
    arity = len(outputs)
    kernel = Kernel(
        name=cls.__name__,
        form=form,
        inputs=parse_inputs(spec["inputs"]),
        outputs=outputs,
        params=tuple(spec.get("params", ())),
        functions=functions,
        constants=constants,
        fields=fields,
        first=tuple(f.strip() for f in (firsts * arity if len(firsts) == 1 else firsts)),
        source=spec.get("source", ""),
        family=cls.__module__.rsplit(".", 1)[-1],
        doc=inspect.cleandoc(cls.__doc__ or ""),
        scale=scales * arity if len(scales) == 1 else scales,
        guard=spec.get("guard", False),
        hidden=spec.get("hidden", False),
        needs_time=spec.get("needs_time", False),
        exclude_current=spec.get("exclude_current", ""),
        ring=spec.get("ring", ""),
        segment_by=spec.get("segment_by", ""),
        counting=_counting(cls.__name__, functions, outputs, spec.get("counting", "")),
    )
    if not kernel.doc:
        raise PlanError(f"kernel {kernel.name} has no docstring")
    old = _registry.get(kernel.name)
    if old is not None and old.family != kernel.family:
        raise PlanError(
            f"kernel {kernel.name} is already registered by {old.family}; choose another name"
        )
    _registry[kernel.name] = kernel
    return kernel


def _decorator(form: str) -> Callable[..., Callable[[type], Kernel]]:
    def decorate(inputs: str, *, out: str, **spec: Any) -> Callable[[type], Kernel]:
        return lambda cls: _register(form, cls, {"inputs": inputs, "out": out, **spec})

    decorate.__doc__ = f"""Register a class of scalar functions as a {form} kernel.

    ``inputs`` and ``out`` are comma lists (``'price>0, volume>=0'``, ``'stat, alarm:b'``);
    keywords: ``params``, ``first`` (the first valid row, from 1, that can be non-null, an
    expression of the parameters, one per output or one for all), ``units``, ``source``,
    ``scale`` (power with which outputs scale when all inputs are multiplied by 2**k),
    ``guard`` (sees missing values), ``needs_time``, ``exclude_current`` (a parameter that, when
    False, takes the current row out of the window), ``ring`` (step: the parameter that sizes the
    ring), ``segment_by`` (fold: the parameter that, when None, leaves ``segment`` out),
    ``counting`` (rank: the outputs that depend on ``within``; where none is read, nothing is
    counted), ``hidden``.
    """
    return decorate


map_ = _decorator("map")
fold = _decorator("fold")
step = _decorator("step")
rank = _decorator("rank")
composite = _decorator("composite")
