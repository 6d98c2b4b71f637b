"""`python -m support.forked_server`: starts API server processes quickly. It imports everything once and forks for each.

On stdin: `start ARGUMENTS`, answered by `pid N` (and `serving at URL` by the server itself); `reap`, answered by `reaped` when the
server of the last `start` is gone.
"""

from __future__ import annotations

import os
import sys

from sandlane.local.apiserver import __main__ as server


def main() -> None:
    """Serve orders until stdin ends."""
    pid = 0
    for line in sys.stdin:
        order, *arguments = line.split()
        if order == "reap":
            os.waitpid(pid, 0)
            print("reaped", flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            sys.argv[1:] = arguments
            server.main()
            os._exit(0)
        print(f"pid {pid}", flush=True)


if __name__ == "__main__":
    main()
