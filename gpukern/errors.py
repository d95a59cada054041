"""The errors of the engine. Each message names the thing, the value and the remedy."""


class Error(ValueError):
    """Base of all errors that gpukern raises for wrong use or wrong input."""


class PlanError(Error):
    """A feature expression, a parameter or an input column is not usable."""


class UnsortedError(Error):
    """Time goes backwards within a symbol."""


class StateError(Error):
    """A snapshot is damaged or belongs to another plan."""


class DeviceError(Error):
    """A device is not there, not usable, or out of memory."""
