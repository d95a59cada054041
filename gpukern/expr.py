"""Feature expressions: a kernel applied to columns or to other expressions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gpukern.errors import PlanError
from gpukern.kernel import Kernel


@dataclass(frozen=True)
class Column:
    """A column of the input table."""

    name: str

    @property
    def key(self) -> tuple[Any, ...]:
        """Identity for common sub-expressions."""
        return ("column", self.name)


def col(name: str) -> Column:
    """A column of the input table, where a name alone would be ambiguous."""
    return Column(name)


Source = Any  # Column | Expr


@dataclass(frozen=True, eq=False)
class Expr:
    """A kernel with bound inputs and parameters; ``pick`` selects and ``names`` names outputs."""

    kernel: Kernel
    inputs: tuple[tuple[str, Source], ...]
    params: tuple[tuple[str, Any], ...]
    names: tuple[str, ...]
    pick: tuple[int, ...]

    @property
    def key(self) -> tuple[Any, ...]:
        """Identity for common sub-expressions; the names of the outputs are not part of it."""
        return (
            self.kernel.name,
            tuple((n, (*s.key, getattr(s, "pick", ()))) for n, s in self.inputs),
            tuple((n, _frozen(v)) for n, v in self.params),
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output columns."""
        return self.names

    def alias(self, *names: str) -> Expr:
        """The same outputs under other names, one per output in order."""
        if len(names) != len(self.names):
            raise PlanError(
                f"{self.kernel.name}: alias got {len(names)} names for "
                f"{len(self.names)} outputs ({', '.join(self.names)})"
            )
        return replace(self, names=tuple(names))

    def __getitem__(self, output: str | list[str]) -> Expr:
        """One output (or a list of them) of a kernel that has several."""
        wanted = [output] if isinstance(output, str) else list(output)
        own = [self.kernel.outputs[p].name for p in self.pick]
        where = []
        for name in wanted:
            if name in self.names:
                where.append(self.names.index(name))
            elif name in own:
                where.append(own.index(name))
            else:
                raise PlanError(
                    f"{self.kernel.name}: no output {name!r}; it has {', '.join(self.names)}"
                )
        return replace(
            self,
            names=tuple(self.names[w] for w in where),
            pick=tuple(self.pick[w] for w in where),
        )

    def __iter__(self) -> Any:
        raise TypeError("an expression is not iterable; select an output with expression['name']")

    def __repr__(self) -> str:
        ins = ", ".join(f"{n}={_show(s)}" for n, s in self.inputs)
        pars = ", ".join(f"{n}={v!r}" for n, v in self.params)
        return f"{self.kernel.name}({ins}{'; ' + pars if pars else ''}) → {', '.join(self.names)}"


def call(kernel: Kernel, inputs: tuple[Any, ...], named: dict[str, Any]) -> Expr:
    """Build the expression ``kernel(*inputs, **named)``; raise PlanError if it is not usable."""
    own = {i.name: i for i in kernel.inputs}
    sources: dict[str, Source] = {}
    given_inputs = len(own)
    for at, given in enumerate(inputs):  # inputs come first; a number can only be a parameter
        if not isinstance(given, (str, Column, Expr)):
            given_inputs = min(given_inputs, at)
    for name, given in zip(own, inputs[:given_inputs], strict=False):
        sources[name] = _source(kernel, name, given)
    positional = inputs[given_inputs:]
    if len(positional) > len(kernel.params):
        raise PlanError(
            f"{kernel.name}: {len(inputs)} arguments given, it takes {kernel.signature}"
        )
    for param, given in zip(kernel.params, positional, strict=False):
        if param.name in named:
            raise PlanError(f"{kernel.name}: parameter {param.name!r} is given twice")
        named[param.name] = given
    mapping = named.pop("inputs", {})
    if not isinstance(mapping, Mapping):
        raise PlanError(f"{kernel.name}: inputs must be a mapping, got {mapping!r}")
    output = named.pop("output", None)
    for name, given in [*mapping.items(), *((n, named.pop(n)) for n in list(named) if n in own)]:
        if name not in own:
            raise PlanError(f"{kernel.name}: unknown input {name!r}; it takes {', '.join(own)}")
        if name in sources:
            raise PlanError(f"{kernel.name}: input {name!r} is given twice")
        sources[name] = _source(kernel, name, given)
    for name, spec in own.items():
        if name not in sources and not spec.optional:
            sources[name] = Column(name)
    params = kernel.bind({**named})
    check_inputs = kernel.functions.get("needs")
    needed = check_inputs(params) if check_inputs else ()
    for name in needed:
        if name not in sources:
            raise PlanError(f"{kernel.name}: input {name!r} is needed with these parameters")
    ordered = tuple((n, sources[n]) for n in own if n in sources)
    names = tuple(_output_name(kernel, o.name, dict(ordered), params) for o in kernel.outputs)
    expr = Expr(kernel, ordered, tuple(params.items()), names, tuple(range(len(names))))
    if output is None:
        return expr
    return expr.alias(*([output] if isinstance(output, str) else output))


def _source(kernel: Kernel, name: str, given: Any) -> Source:
    if isinstance(given, str):
        return Column(given)
    if isinstance(given, Column):
        return given
    if isinstance(given, Expr):
        if len(given.names) != 1:
            raise PlanError(
                f"{kernel.name}: input {name!r} needs one column, {given.kernel.name} gives "
                f"{', '.join(given.names)}; select one with expression[name]"
            )
        return given
    raise PlanError(
        f"{kernel.name}: input {name!r} must be a column name or an expression, got {given!r}"
    )


def _output_name(
    kernel: Kernel, form: str, sources: dict[str, Source], params: dict[str, Any]
) -> str:
    fields: dict[str, Any] = {n: _name(s) for n, s in sources.items()}
    fields.update({n: _written(v) for n, v in params.items()})
    if "window" in params:
        fields["w"] = _written(params["window"])
    if isinstance(params.get("q"), float):
        fields["q100"] = f"{round(100 * params['q'], 10):g}"
    elif "q" in params:
        fields["q100"] = _written(params["q"])
    return form.format(**fields)


def _written(value: Any) -> str:
    return "_per_symbol" if isinstance(value, dict) else str(value)


def _name(source: Source) -> str:
    return source.name if isinstance(source, Column) else source.names[0]


def _show(source: Source) -> str:
    return repr(source.name) if isinstance(source, Column) else repr(source)


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return ("mapping", tuple(sorted((repr(k), v) for k, v in value.items())))
    return value
