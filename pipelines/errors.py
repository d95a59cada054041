"""The errors a user can cause and mend."""

from __future__ import annotations


class PipelineError(ValueError):
    """Bad input, option or plan: the message names the thing, the value and the remedy."""


def first_line(error: BaseException) -> str:
    """The first line of another library's message, without its trailing full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
