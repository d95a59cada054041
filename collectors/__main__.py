"""`python -m collectors …` is `gpukern collect …`."""

from collectors.command import collect

if __name__ == "__main__":
    collect(prog_name="python -m collectors")
