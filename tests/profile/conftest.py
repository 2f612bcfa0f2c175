"""A recorded profile, and the command as a process."""

from __future__ import annotations

import pytest
from support.profiles import made_profile

from treadle.profile.record import Profile


@pytest.fixture
def profile() -> Profile:
    return made_profile()
