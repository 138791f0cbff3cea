"""The embedded broker: ``python -m remit.compose FD`` serves until idle; it says on FD when it is ready or gives up."""

from __future__ import annotations

import logging
import os
import sys

from remit.compose import planes
from remit.config.settings import load
from remit.errors import RemitError

IDLE = 5.0  # seconds


def main(ready: int) -> int:
    answer = os.fdopen(ready, "w", encoding="utf-8")
    try:
        planes.run(planes.Serving(load(os.environ), tcp=False, idle=IDLE), answer.close)
    except RemitError as error:
        if not answer.closed:  # else it has been ready, and nobody listens any more
            answer.write(f"{error.detail}\0{error.help or ''}")
            answer.close()
        return 1
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    sys.exit(main(int(sys.argv[1])))
