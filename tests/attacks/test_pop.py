from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from remit.core.principal import Holder
from remit.errors import RemitError
from remit.jose.proof import Nonces
from tests.attacks import forge
from tests.oauth.plane import Agent, Plane, later


async def _status(plane: Plane, headers: dict[str, str], method: str = "GET") -> int:
    return (await plane.web.request(method, "/v1/self", headers=headers)).status_code


@pytest.mark.attack("POP-01")
def test_a_copied_token_is_worth_nothing_without_its_key(tmp_path: Path) -> None:
    async def scene(plane: Plane, agent: Agent) -> None:
        thief = Agent(token=agent.token)
        attempts = [
            {"authorization": f"Bearer {agent.token}"},
            {"authorization": f"Bearer {agent.token}", "dpop": plane.proof(agent, "GET", "/v1/self")},
            {"authorization": f"DPoP {agent.token}"},
            {"authorization": f"DPoP {agent.token}", "dpop": ""},
            plane.headers(thief, "GET", "/v1/self"),
        ]
        for headers in attempts:
            answer = await plane.web.get("/v1/self", headers=headers)
            assert answer.status_code == 401
            tried = headers["authorization"].partition(" ")[0]
            assert answer.headers["www-authenticate"].startswith(f"{tried} ")  # the scheme that was tried, then DPoP
            assert "DPoP " in answer.headers["www-authenticate"]

    forge.walk(tmp_path, scene)


@pytest.mark.attack("POP-02")
def test_a_proof_passes_once_however_many_arrive_together(tmp_path: Path) -> None:
    async def scene(plane: Plane, agent: Agent) -> None:
        for _ in range(4):
            headers = plane.headers(agent, "GET", "/v1/self")
            together = await asyncio.gather(*(_status(plane, headers) for _ in range(50)))
            assert sorted(together) == [200] + [401] * 49
            assert await _status(plane, headers) == 401

    forge.walk(tmp_path, scene)


@pytest.mark.attack("POP-02")
def test_a_proof_passes_once_in_every_one_of_two_hundred_rounds(tmp_path: Path) -> None:
    async def scene(plane: Plane, agent: Agent) -> None:
        for _ in range(200):
            headers = plane.headers(agent, "GET", "/v1/self")
            calls = (plane.verifier.proven(headers, "GET", f"{plane.base}/v1/self", "v1") for _ in range(50))
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert [answer.grant for answer in answers if isinstance(answer, Holder)] == [agent.grant]

    forge.walk(tmp_path, scene)


@pytest.mark.attack("POP-03")
def test_only_targets_equal_after_normalisation_pass(tmp_path: Path) -> None:
    url = "https://gw.test/v1/x~"
    good = ["HTTPS://gw.test/v1/x~", "https://GW.test/v1/x~", "https://gw.test:443/v1/x~", "https://gw.test/v1/x%7e"]
    good += [
        "https://gw.test/v1/./x~",
        "https://gw.test/v1/x~?",
        "https://gw.test/v1/x~?a=1",
        "https://gw.test/v1/x~#f",
    ]
    bad = ["https://gw.test./v1/x~", "https://gw.test//v1/x~", "http://gw.test/v1/x~", "https://other.test/v1/x~"]
    bad += ["https://gw.test/v1/y", "https://gw.test/v1/x~/", "https://gw.test:8443/v1/x~", "/v1/x~", ""]

    async def passes(plane: Plane, agent: Agent, htu: str) -> bool:
        try:
            await plane.verifier.proven(plane.headers(agent, "GET", "/v1/x", htu=htu), "GET", url, "v1")
        except RemitError:
            return False
        return True

    async def scene(plane: Plane, agent: Agent) -> None:
        assert [htu for htu in good if not await passes(plane, agent, htu)] == []
        assert [htu for htu in bad if await passes(plane, agent, htu)] == []

    forge.walk(tmp_path, scene)


@pytest.mark.attack("POP-04")
def test_a_proof_for_one_method_is_for_no_other(tmp_path: Path) -> None:
    async def scene(plane: Plane, agent: Agent) -> None:
        path = f"/v1/tasks/{agent.task}/close"
        headers = plane.headers(agent, "GET", path)
        assert (await plane.web.post(path, headers=headers)).status_code == 401
        assert await _status(plane, plane.headers(agent, "GET", "/v1/self", htm="get")) == 401

    forge.walk(tmp_path, scene)


@pytest.mark.attack("POP-04")
def test_no_header_or_parameter_changes_the_method(tmp_path: Path) -> None:
    async def scene(plane: Plane, agent: Agent) -> None:
        path = f"/v1/tasks/{agent.task}"
        override = {"x-http-method-override": "DELETE", "x-method-override": "POST"}
        answer = await plane.web.get(path, headers={**plane.headers(agent, "GET", path), **override})
        assert (answer.status_code, answer.json()["closed"]) == (200, False)
        query = await plane.web.get(f"{path}?_method=DELETE", headers=plane.headers(agent, "GET", path))
        assert query.status_code == 400

    forge.walk(tmp_path, scene)


@pytest.mark.attack("POP-05")
def test_a_proof_is_good_inside_its_window_alone(tmp_path: Path) -> None:
    async def scene(plane: Plane, agent: Agent) -> None:
        now = int(plane.world.now.timestamp())
        inside: list[object] = [now - 61, now - 70, now + 4, now + 10]
        outside: list[object] = [now - 71, now + 11, 0, 2**53, "now", 1.5, True, None]
        given = [await _status(plane, plane.headers(agent, "GET", "/v1/self", iat=iat)) for iat in inside]
        refused = [await _status(plane, plane.headers(agent, "GET", "/v1/self", iat=iat)) for iat in outside]
        assert (given, refused) == ([200] * 4, [401] * 8)

    forge.walk(tmp_path, scene)


@pytest.mark.attack("POP-06")
def test_proofs_made_ahead_die_with_the_grant_and_with_their_nonce(tmp_path: Path) -> None:
    async def accepted(plane: Plane, hoard: list[dict[str, str]]) -> int:
        calls = (plane.verifier.proven(headers, "GET", f"{plane.base}/v1/self", "v1") for headers in hoard)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        return sum(isinstance(answer, Holder) for answer in answers)

    async def scene(plane: Plane, agent: Agent) -> None:
        now = int(plane.world.now.timestamp())
        hoard = [plane.headers(agent, "GET", "/v1/self", iat=now + second) for second in range(1_000)]
        kept, good = [hoard[150], hoard[300], hoard[599]], hoard[:5]
        assert await accepted(plane, good) == 5
        for second in (150, 300, 599):
            later(plane, now + second - plane.world.now.timestamp())
            assert await accepted(plane, kept) == 0
        child = Agent()
        await plane.opened(child)
        fresh = [plane.headers(child, "GET", "/v1/self") for _ in range(1_000)]
        assert (await plane.control.post(f"/v1/tasks/{child.task}/close")).status_code == 200
        assert await accepted(plane, fresh) == 0

    forge.walk(tmp_path, scene)


def test_proofs_made_before_a_restart_are_void_after_it(tmp_path: Path) -> None:
    async def scene(plane: Plane, agent: Agent) -> None:
        headers = plane.headers(agent, "GET", "/v1/self")
        plane.verifier.nonces = Nonces(b"another process's key.")
        answer = await plane.web.get("/v1/self", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "use-nonce")

    forge.walk(tmp_path, scene)
