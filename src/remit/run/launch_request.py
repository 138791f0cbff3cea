"""What a launcher asks for, read with care: inside a run, the agent writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from remit.core import request as requests
from remit.core.grant import ISOLATION
from remit.core.principal import Human, Operator
from remit.core.request import GrantRequest
from remit.core.task import Posture
from remit.errors import GrantTokenError, InvalidRequestError
from remit.ports.identity import Humans
from remit.run.handover import Message

MAX_FOLDER = 90  # characters; the path of a unix socket has at most 107

_FIELDS = requests.FIELDS | {"parent"}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a launcher says that its run is; ``posture`` is what the broker makes of it."""

    isolation: str
    folder: str
    posture: Posture


def surroundings(request: Message, around: Sequence[str]) -> Surroundings:
    """Read where a run is. Its posture is no better than what is ``around`` its launcher, whatever that one says."""
    said, folder = request.get("posture"), request.get("folder")
    isolation = said.get("isolation") if isinstance(said, dict) else None
    if not isinstance(isolation, str) or isolation not in ISOLATION:
        raise InvalidRequestError("`posture` must say how the run is isolated")
    if not isinstance(folder, str) or not folder.startswith("/") or len(folder) > MAX_FOLDER:
        raise InvalidRequestError("`folder` must be where the run has its sockets")
    known = [each for each in around if each in ISOLATION]  # a grant that is held outside of runs promises nothing
    weakest = min(isolation, *known, key=ISOLATION.index) if known else isolation
    return Surroundings(isolation, folder, Posture(isolation=weakest, custody="channel", at_rest="kek-file"))


def requested(message: Mapping[str, object]) -> GrantRequest:
    """Read the request of an open or a delegate."""
    for name in message.keys() - _FIELDS:
        raise InvalidRequestError(f"`{name}` is not a field of a launch")
    return requests.read(message)


async def opener(
    caller: Operator, asked: Mapping[str, object], humans: Humans | None
) -> tuple[Operator | Human, Mapping[str, object]]:
    """Return whose task an open is, and the rest of what is asked: a human's by ``id_token``, else the caller's."""
    rest = dict(asked)
    token = rest.pop("id_token", None)
    if token is None:
        return caller, rest
    if humans is None or not isinstance(token, str):
        raise GrantTokenError("this broker takes no ID tokens", help="configure `[[humans]]`, or open `--as-owner`")
    return await humans.id_token(token), rest
