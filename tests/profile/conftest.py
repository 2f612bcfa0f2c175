"""A recorded profile, and runs of the load generator."""

from __future__ import annotations

import pytest
from support.load import drive
from support.profiles import made_profile

from treadle.profile.record import Profile

__all__ = ["drive", "profile"]


@pytest.fixture
def profile() -> Profile:
    return made_profile()
