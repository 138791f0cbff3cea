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

    def say(text: str) -> None:
        os.write(ready, text.encode())
        os.close(ready)

    try:
        planes.run(load(os.environ), lambda: say(""), idle=IDLE, tcp=False)
    except RemitError as error:
        say(error.detail)
        return 1
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    sys.exit(main(int(sys.argv[1])))
