"""What a person can do about what a profile found: a pure function of it.

A rule is a function that yields advice only where it holds, each with the figure it was drawn from.
The thresholds stand, named, above the rules.
"""

from __future__ import annotations

from treadle.profile.advice import routes, server
from treadle.profile.record import Advice, Profile

__all__ = ["advise"]


def advise(profile: Profile) -> tuple[Advice, ...]:
    """All advice that holds, the most severe first."""
    found = [advice for rule in server.RULES for advice in rule(profile)]
    for rule in routes.RULES:
        found += [advice for route in profile.routes for advice in rule(profile, route)]
    return tuple(sorted(found, key=lambda advice: -advice.severity))
