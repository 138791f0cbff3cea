"""Leases at a cabinet: the file says what the key opens, until when, and a digest of its secret."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from remit.core.scope import dump
from remit.core.secret import Secret
from remit.core.task import Plan, Revocation
from remit.errors import EngineError, EngineRefusedError
from remit.ports import Clock, Issued


class CabinetEngine:
    """Puts keys into one folder. A revoked key leaves an empty file, so that its name is never used again."""

    revocation = Revocation.BY_NAME

    def __init__(self, folder: Path, clock: Clock, random: Callable[[int], bytes]) -> None:
        self._folder, self._clock, self._random = folder, clock, random

    async def issue(self, plan: Plan, expires_at: datetime) -> Issued:
        """Write the key; a file that is there already is never written over."""
        if self._clock() >= plan.issue_by:
            raise EngineError("there was no time left to issue")
        secret = self._random(32).hex()
        opens = {"detail": dump((plan.detail,))[0], "until": expires_at.isoformat(), "digest": _digest(secret)}
        try:
            with (self._folder / plan.name).open("x", encoding="utf-8") as file:
                json.dump(opens, file)
        except FileExistsError as error:
            raise EngineRefusedError("this lease was issued before, or revoked") from error
        except OSError as error:
            raise EngineError("the cabinet cannot be reached") from error
        return Issued({"key": Secret(f"{plan.name}:{secret}")})

    async def revoke(self, plan: Plan, receipt: Mapping[str, str] | None) -> None:
        """Empty the file: nothing opens with it, whether it was there before or not."""
        try:
            (self._folder / plan.name).write_text("")
        except OSError as error:
            raise EngineError("the cabinet cannot be reached") from error


def opened(folder: Path, key: str, action: str, drawer: str, now: datetime) -> bool:
    """Whether a cabinet lets somebody with a key do something with a drawer: what stands for the target here."""
    name, _, secret = key.partition(":")
    try:
        opens = json.loads((folder / name).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    detail = opens["detail"]
    in_time = now < datetime.fromisoformat(opens["until"])
    permitted = action in detail["actions"] and drawer in detail["drawers"]
    return in_time and permitted and opens["digest"] == _digest(secret)


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
