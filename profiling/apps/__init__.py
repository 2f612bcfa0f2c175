"""One small app per server, with the same routes and the same answers (see ../scenarios.py)."""
