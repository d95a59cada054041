"""Every error the collectors raise on purpose; each message names the thing, value and remedy."""


class CollectorError(ValueError):
    """Base of all errors of this package."""


class SymbolError(CollectorError):
    """A symbol that cannot be named BASE/QUOTE, or is not known to the exchange."""


class DecodeError(CollectorError):
    """A received frame that is not what the exchange's protocol allows."""


class RawError(CollectorError):
    """A raw recording that cannot be read: names the file and the line."""


class SinkError(CollectorError):
    """An output that cannot be written."""


class ReplayError(CollectorError):
    """A replay that was asked for something impossible."""
