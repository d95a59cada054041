"""The CPU template of maps that read the current row alone: no symbols, no grouping, no state.

Such a kernel gives the same value wherever its row stands, so it runs over the columns as they
came. One pass checks the inputs and computes the results of some rows, null where a row does not
exist for the kernel; while they are still in the cache, they go to their columns with their
validity. The loops have plain indices and no branches: they compile to vector code.
"""

from __future__ import annotations

from gpukern.forms.cpu import NULL, Source, parameters
from gpukern.forms.layout import invoke
from gpukern.kernel import Input, Kernel

# At the head of the module.
IMPORTS = "from gpukern.forms.cpu_back import settle, to_rows, worth_streaming\n\n"
CHUNK = 1024  # rows that are computed before they go to their columns: the first cache holds them


def fits(kernel: Kernel) -> bool:
    """Whether a map without lags can run in row order."""
    return not kernel.guard and all(i.dtype == "f64" for i in kernel.inputs)


def row_order(kernel: Kernel) -> str:
    """The source of::

        run_rows(par, absent, <inputs>, <outputs>, <validity bitmaps>, nulls)

    ``absent`` has a bit for every optional input that is not given; ``nulls`` receives how many
    each output has.
    """
    s = Source()
    outs = range(len(kernel.outputs))
    ins = "".join(f", in_{i.name}" for i in kernel.inputs)
    rooms = "".join(f", out_{n}" for n in outs) + "".join(f", bits_{n}" for n in outs)
    s("", "", "@compile_loop")
    s.block(f"def run_rows(par, absent{ins}{rooms}, nulls):")
    s("pari = par.view(np.int64)", "null = par[0, 0]")
    for n, param in enumerate(kernel.params, start=1):
        s(f"p_{param.name} = {'par' if param.kind == 'number' else 'pari'}[0, {n}]")
    for n, column in enumerate(kernel.inputs):
        if column.optional:
            s(f"not_{column.name} = (absent >> {n}) & 1 == 1")
    for n, output in enumerate(kernel.outputs):
        s.room(f"room_{n}", str(CHUNK))
        s(f"now_{n} = room_{n}{'' if output.dtype == 'f64' else '.view(np.int64)'}")
        s(f"stream_{n} = worth_streaming(len(out_0), out_{n})")
    s.block(f"for lo in range(0, len(out_0), {CHUNK}):")
    s(f"size = min({CHUNK}, len(out_0) - lo)")
    s(*(f"a_{i.name} = in_{i.name}[lo : lo + size]" for i in kernel.inputs))
    s.block("for j in range(size):")
    s("there = " + (" & ".join(_present(i) for i in kernel.inputs) or "True"))
    scope = parameters(kernel)
    scope.update({i.name: f"a_{i.name}[j]" for i in kernel.inputs}, null="null")
    call = invoke(kernel.functions["value"], "value", scope)
    s(f"{', '.join(f'v_{n}' for n in outs)} = {call}")
    for n, output in enumerate(kernel.outputs):
        missing = "np.nan" if output.dtype == "f64" else NULL
        s(f"now_{n}[j] = v_{n} if there else {missing}")
    s.end()
    for n, output in enumerate(kernel.outputs):
        to = f"out_{n}[lo : lo + size], bits_{n}[lo >> 3 : (lo + size + 7) >> 3]"
        missing = "np.nan" if output.dtype == "f64" else NULL
        s(f"nulls[{n}] += to_rows(now_{n}, None, {missing}, stream_{n}, {to})")
    s.end()
    s("settle()", *(f"release({name})" for name in s.rooms))
    return "\n".join(s.lines) + "\n"


def _present(column: Input) -> str:
    """The test that an input is present and in its domain."""
    x = f"a_{column.name}[j]"
    test = {
        "": f"({x} - {x} == 0.0)",
        ">0": f"({x} > 0.0) & ({x} < np.inf)",
        ">=0": f"({x} >= 0.0) & ({x} < np.inf)",
    }[column.domain]
    return f"(not_{column.name} | ({test}))" if column.optional else test
