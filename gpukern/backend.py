"""Devices: which one a plan runs on."""

from __future__ import annotations

import logging

from gpukern.errors import PlanError

log = logging.getLogger("gpukern")
_announced = False


def choose(device: str) -> str:
    """Return the device to use for ``'cpu'`` or ``'auto'``; no choice is ever silent."""
    global _announced
    if device == "cpu":
        return "cpu"
    if device == "auto":
        if not _announced:
            log.info("device auto: cpu (this version has no GPU backend)")
            _announced = True
        return "cpu"
    if device == "cuda":
        raise PlanError("device 'cuda': this version has no GPU backend; use device='cpu'")
    raise PlanError(f"device must be 'cpu' or 'auto', got {device!r}")
