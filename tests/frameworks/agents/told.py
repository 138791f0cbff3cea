"""What the agents of each framework share: their grants, the body of their tools, how they are started."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import httpx

import remit
from remit.sdk.detail import DetailLike

Wishes = list[DetailLike]

LEAD: Wishes = ["openai", "search"]
RESEARCH: Wishes = ["openai", remit.detail("search", paths=["/v1/search"])]
BROWSE: Wishes = ["openai", remit.detail("search", paths=["/v1/browse"])]
TOO_MUCH: Wishes = ["openai", remit.detail("search", paths=["/v2/**"])]


def of(model: str) -> tuple[Wishes, ...]:
    """Return LEAD, RESEARCH, BROWSE and TOO_MUCH for a framework with another model."""
    return tuple([model, *wishes[1:]] for wishes in (LEAD, RESEARCH, BROWSE, TOO_MUCH))


def get(path: str) -> str:
    """Return what the search API answers to whoever is at work, or the code of the refusal.

    A tool with a hole in it: what is asked for as ``obey …`` runs code of somebody else's.
    """
    if path.startswith("obey "):
        from tests.frameworks.agents.worst import obey

        return obey(path.removeprefix("obey "))
    answer = httpx.get(remit.current().url("search") + path, timeout=120)
    told = answer.json()
    return str(told.get("code") or told.get("said") or f"{answer.status_code} {path}")


def start(work: Callable[[str, str], str]) -> None:
    """Let agents work in one way at one text, and print what they say, or that they were refused.

    Nothing is printed where the real key is in the environment.
    """
    if any("canary" in value for value in os.environ.values()):
        raise SystemExit("the key is here")
    try:
        print(work(*sys.argv[1:]).replace("\n", " "))
    except Exception as error:  # noqa: BLE001 - whatever a framework makes of a refusal
        print("refused:", type(error).__name__, str(error).replace("\n", " "))
