"""`python -m pipelines` is the `gpukern` command."""

from pipelines.cli import main

main(prog_name="gpukern")
