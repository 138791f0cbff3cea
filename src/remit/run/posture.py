"""How well a run is kept, as its authority believes it."""

from __future__ import annotations

from collections.abc import Iterable

from remit.core.grant import ISOLATION
from remit.core.task import Posture
from remit.errors import InvalidRequestError
from remit.ports.runs import LaunchRequest

MAX_FOLDER = 90  # characters; the path of a unix socket has at most 107


def posture(launch: LaunchRequest, around: Iterable[str]) -> Posture:
    """Return the posture of a run: no better than what is ``around`` its launcher, whatever that one says."""
    if launch.isolation not in ISOLATION:
        raise InvalidRequestError("`isolation` must say how the run is isolated")
    if not launch.folder.startswith("/") or len(launch.folder) > MAX_FOLDER:
        raise InvalidRequestError("`folder` must be where the run has its sockets")
    known = [each for each in around if each in ISOLATION]  # a grant that is held outside of runs promises nothing
    weakest = min(launch.isolation, *known, key=ISOLATION.index) if known else launch.isolation
    return Posture(isolation=weakest, custody="channel", at_rest="kek-file")
