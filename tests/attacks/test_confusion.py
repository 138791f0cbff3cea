"""Every artefact at every place where one is taken: only the right one passes."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.oauth.plane import Agent, Plane, play

PLACES = ("bearer", "resource-proof", "subject", "token-proof", "child-proof")
ARTEFACTS = ("token", "resource-proof", "token-proof", "child-proof")
RIGHT = {
    ("token", "bearer"),
    ("resource-proof", "resource-proof"),
    ("token", "subject"),
    ("token-proof", "token-proof"),
    ("child-proof", "child-proof"),
}


def _made(plane: Plane, artefact: str, parent: Agent, child: Agent) -> str:
    match artefact:
        case "resource-proof":
            return plane.proof(parent, "GET", "/v1/self")
        case "token-proof":
            return parent.proof("POST", plane.endpoint, plane.world.now, plane.verifier.nonce())
        case "child-proof":
            return plane.confirmation(child, parent.token)["req_cnf_proof"]
    return parent.token


async def _presented(plane: Plane, artefact: str, place: str) -> httpx.Response:
    """Put one artefact at one place of an otherwise right request."""
    parent, child = Agent(), Agent()
    await plane.opened(parent)
    value = _made(plane, artefact, parent, child)
    if place in {"bearer", "resource-proof"}:
        headers = plane.headers(parent, "GET", "/v1/self")
        headers |= {"authorization": f"DPoP {value}"} if place == "bearer" else {"dpop": value}
        return await plane.web.get("/v1/self", headers=headers)
    form = plane.delegation(parent, child)
    form |= {"subject": {"subject_token": value}, "child-proof": {"req_cnf_proof": value}}.get(place, {})
    proof = value if place == "token-proof" else _made(plane, "token-proof", parent, child)
    return await plane.web.post("/oauth/token", data=form, headers={"dpop": proof})


@pytest.mark.attack("TOK-09")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_an_artefact_passes_where_it_belongs_and_nowhere_else(tmp_path: Path, artefact: str, place: str) -> None:
    async def scene(plane: Plane) -> None:
        answer = await _presented(plane, artefact, place)
        assert answer.is_success == ((artefact, place) in RIGHT), answer.text
        assert answer.is_success or answer.status_code in {400, 401}

    play(tmp_path, scene)
