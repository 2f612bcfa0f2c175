"""`mixed`: a realistic request, mostly waits and some work, under every way to serve it."""
