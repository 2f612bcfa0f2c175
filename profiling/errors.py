"""What ends a comparison early."""


class ComparisonError(Exception):
    """A comparison cannot go on; the text is the one sentence that the user reads."""


class UnavailableError(Exception):
    """A server cannot take part; the text says why, and the comparison goes on without it."""
