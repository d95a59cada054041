"""The CUDA template of steps: a thread takes its state through the rows of a run."""

from __future__ import annotations

from typing import Any

from gpukern.forms import cpu
from gpukern.forms.cuda import Loop, Template, scope_of, shift, under
from gpukern.forms.cuda_tile import over_tiles
from gpukern.forms.layout import Layout, invoke
from gpukern.kernel import Kernel


def template(kernel: Kernel, variant: str, layout: Layout, params: dict[str, Any]) -> Template:
    """The device code of a state machine."""
    fields = kernel.fields["state"]
    lags = cpu._lags(kernel, "step")
    loop = Loop(kernel, layout, sliced=bool(kernel.ring))
    kinds = {"run": loop.define("run")}
    scope = scope_of(kernel)
    states = ", ".join(f"s_{f}" for f in fields) + ("," if len(fields) == 1 else "")
    with loop.apart() as begin:
        if kernel.ring:
            begin(f"ring = st[base + {layout.size} : base + {layout.size} + p_{kernel.ring}]")
        call = invoke(kernel.functions["init"], "init", scope)
        under(begin, "if rows == 0:", f"{states} = {call}")
    scope.update({f: f"s_{f}" for f in fields})
    scope.update({f"{prefix}{c}": f"{prefix}{c}" for prefix, columns in lags for c in columns})
    scope.setdefault("k", f"rows - {len(lags)}")  # a parameter k goes before the row number
    scope["ring"] = "ring"
    with loop.apart() as s:
        if lags:
            s.block(f"if rows < {len(lags)}:")
            s.block("if i >= emit:")
            loop.emit_null()
            s.end(2)
            s.block("else:")
        s(f"new, v = {invoke(kernel.functions['step'], 'step', scope)}", f"{states} = new")
        s.block("if i >= emit:")
        if len(kernel.outputs) == 1:
            s("out_0[i] = v")
        else:
            s(*(f"out_{n}[i] = v[{n}]" for n in range(len(kernel.outputs))))
        s.end()
        if lags:
            s.end()
        s("rows += 1", *shift(lags))
    with loop.apart() as end:
        loop.store()
    return Template(kernel, variant, over_tiles(loop, begin, s, end), layout, kinds)
