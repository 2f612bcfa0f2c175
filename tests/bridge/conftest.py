"""Fixtures of the tests of the server as a whole."""

from support.hold import hold

__all__ = ["hold"]
