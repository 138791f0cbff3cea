"""What is live and not served for now: it can be looked at and ended, and nothing under it is permitted."""

from __future__ import annotations

from remit.errors import UnavailableError

UNDECIDED = "this broker has started anew, and is yet to decide whether this grant is still allowed"
WAITING = "the run that holds this grant has lost the process that served it, and is yet to come back"


class Unserved:
    """Tasks that were loaded and are yet to be decided on by what holds now, and grants of runs that nobody serves."""

    def __init__(self) -> None:
        self.undecided: set[str] = set()
        self.waiting: set[str] = set()

    def error(self, task: str) -> UnavailableError:
        """Return why a grant of a task is not served."""
        return UnavailableError(UNDECIDED if task in self.undecided else WAITING, help="try again in a moment")
