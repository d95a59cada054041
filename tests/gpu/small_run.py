"""A small run of every kernel on a GPU, split and not split, for compute-sanitizer."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import checks
import samples

from gpukern import backend, kernel


def main() -> None:
    device = backend.get("cuda")
    table = samples.market()
    for split in (128, 1 << 62):
        device.split_rows, device.chunk_rows, device.speculate_rows = split, 32, 16
        for found in kernel.kernels().values():
            subject = checks.Subject(found)
            narrow = subject.narrow(table)
            made = subject.plan.run(narrow, device="cuda")
            samples.assert_same(made, subject.plan.run(narrow), subject.names)


if __name__ == "__main__":
    main()
