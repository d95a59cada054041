"""``python -m bench NAME [options]``; ``python -m bench all`` runs every benchmark in turn."""

import importlib
import subprocess
import sys

NAMES = ("features", "kernels", "stream", "cold", "memory", "joins", "collect", "bars")
GPU = "gpu"  # not part of all: it has a machine of its own (make gpu)


def main() -> int:
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in (*NAMES, GPU):
        importlib.import_module(f"bench.{name}").main(arguments)
        return 0
    if name == "all" and not arguments:
        # A process each: what one leaves in memory and in thread pools must not slow the next.
        return max(subprocess.run([sys.executable, "-m", "bench", n]).returncode for n in NAMES)
    print(f"usage: python -m bench {'|'.join((*NAMES, GPU, 'all'))} [--help]", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
