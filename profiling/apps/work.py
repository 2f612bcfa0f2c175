"""What every app shares: the answer, and the CPU-bound work of `/cpu`.

Only plain Python: it is imported under each peer's interpreter.
"""

ROUNDS = 2_700
"""Turns of the loop in `burn`: about 130 us on one core of the machine it was set on."""


def hello() -> dict[str, object]:
    """Return the answer of every route: a new dict each time, so that nothing can be cached."""
    return {"message": "hello", "n": 1}


def burn() -> int:
    """Keep the interpreter busy for about 130 us, without a system call or a lock."""
    total = 0
    for turn in range(ROUNDS):
        total = (total * 31 + turn) & 0xFFFF
    return total
