"""The one exception of a conversion that cannot be done."""

__all__ = ["ConversionError"]


class ConversionError(ValueError):
    """Raised if the given files cannot become a checkpoint; the message names the file and what to do."""
