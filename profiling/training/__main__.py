"""`python -m profiling.training`: serves the shop, asks it, runs the programs. About 20 seconds."""

import re
import signal
import subprocess
import sys

from profiling.training import client, programs

ROUNDS = 60
COUNT = 4000


def main() -> int:
    """Run all of it with the treadle that this interpreter has. Returns the exit status."""
    command = [sys.executable, "-m", "treadle", "run", "profiling.training.service:app"]
    command += ["--port", "0", "--lanes", "1", "--log-level", "error"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = re.search(r"http://(.*):(\d+)", server.stdout.readline())
        if found is None:
            print("training: the server did not start.", file=sys.stderr)
            return 1
        for number, answered in enumerate(client.ask((found[1], int(found[2])), ROUNDS), 1):
            if number % ROUNDS == 0:
                print(f"training: {answered:,} requests", file=sys.stderr, flush=True)
        server.send_signal(signal.SIGTERM)
    print("training: programs", file=sys.stderr)
    programs.run(COUNT)
    return server.returncode


if __name__ == "__main__":
    raise SystemExit(main())
