"""``python -m benchmarks.dojo``: how far an agent gets that obeys whatever it reads, without remit and with it."""

from __future__ import annotations

import argparse
import json
import sys

from benchmarks.dojo.arrangements import ACTING, LEAKING
from benchmarks.dojo.measured import Tally, measured
from benchmarks.dojo.shown import as_json, table


def main(words: list[str]) -> int:
    """Measure, and print a table, or one JSON object alone."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dojo", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--suite", action="append", help="one suite, not all; may be said more than once")
    parser.add_argument("--tasks", type=int, help="of each suite, the first user tasks alone")
    parser.add_argument("--only", action="append", choices=[one.name for one in (*ACTING, *LEAKING)])
    asked = parser.parse_args(words)

    def on(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    tallies: list[Tally] = measured(asked.suite, asked.tasks, asked.only, on)
    print(json.dumps(as_json(tallies)) if asked.json else table(tallies))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
