"""How fast Treadle is, beside its rivals: `python -m profiling compare`.

Nothing is imported here: every server of a comparison imports `profiling.apps` under its own
interpreter, and what this file costs would be measured with it.
"""
