"""What issuers push, on the wire: security event tokens and logout tokens, and how a refusal of each looks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from remit.broker import Broker
from remit.core.policy import Decision, Question
from remit.core.principal import Human
from remit.core.request import Bounds, GrantRequest
from remit.core.task import Grant, Subject
from remit.errors import GrantEndedError
from remit.sessions.delivery import MEDIA
from remit.sessions.events import CAEP, MAX_TOKEN, EventIssuer, IssuedSignals
from remit.sessions.events import LOGOUT as LOGOUT_EVENT
from remit.web.routes import Identity
from tests.broker.world import SEARCH, World, details
from tests.identity.issuing import URL, Clock, Site, ec, issuer, signed
from tests.oauth.plane import Plane, play

EVENTS, LOGOUT = "/v1/signals/events", "/v1/signals/logout"
REVOKED = f"{CAEP}session-revoked"
FORM = {"content-type": "application/x-www-form-urlencoded"}


def everybody(question: Question) -> Decision:
    """Allow whatever resources allow, to any human."""
    del question
    return Decision(allowed=True, reasons=("anybody may",), version="test-1")


@dataclass
class Scene:
    """A control plane that believes one issuer, and the issuer itself."""

    site: Site = field(default_factory=Site)
    clock: Clock = field(default_factory=Clock)
    world: World = field(default_factory=lambda: World(decide=everybody))
    count: int = 0

    def play(self, directory: Path, scene: Callable[[Plane], Awaitable[None]]) -> None:
        """Run a scene."""
        self.world.now = self.clock.now
        source = EventIssuer(issuer(self.site, self.clock), frozenset({"remit"}), about=URL)
        play(directory, scene, self.world, Identity(signals=IssuedSignals({URL: source}, self.clock)))

    def set(self, subject: str = "alice", **changes: object) -> str:
        """Return a security event token that says that all sessions of a human are revoked."""
        self.count += 1
        claims = {
            "iss": URL,
            "aud": "remit",
            "iat": self.clock.at(),
            "jti": f"event-{self.count}",
            "sub_id": {"format": "iss_sub", "iss": URL, "sub": subject},
            "events": {REVOKED: {"event_timestamp": self.clock.at()}},
            **changes,
        }
        kept = {name: value for name, value in claims.items() if value is not None}
        return signed(kept, typ="secevent+jwt")

    def logout_token(self, **changes: object) -> str:
        """Return a logout token of a session."""
        self.count += 1
        claims = {
            "iss": URL,
            "aud": "remit",
            "iat": self.clock.at(),
            "exp": self.clock.at(minutes=2),
            "jti": f"logout-{self.count}",
            "sub": "alice",
            "sid": "session-1",
            "events": {LOGOUT_EVENT: {}},
            **changes,
        }
        return signed({name: value for name, value in claims.items() if value is not None}, typ="logout+jwt")

    async def opened(self, broker: Broker, sub: str = "alice", sid: str = "session-1") -> Grant:
        """Open a task as a human."""
        self.count += 1
        now = self.world.now
        subject = Subject(f"{URL}#{sub}", "urn:test:password", sid=f"{URL}#{sid}")
        human = Human(subject, f"token-{self.count}", now, now + timedelta(minutes=5), "remit")
        return (
            await broker.open(human, GrantRequest(details(SEARCH), Bounds(timedelta(minutes=5)), purpose="draft"))
        ).grant


async def push(plane: Plane, token: str, media: str = MEDIA) -> httpx.Response:
    """Pusher a security event token."""
    return await plane.web.post(EVENTS, content=token, headers={"content-type": media})


def alive(plane: Plane, grant: Grant) -> bool:
    """Whether a grant is accepted."""
    try:
        plane.broker._tasks.check(grant.id)
    except GrantEndedError:
        return False
    return True


@pytest.fixture
def scene() -> Scene:
    """Return an issuer and a world."""
    return Scene()


# -- RFC 8935 ---------------------------------------------------------------------------------------------------------


def test_a_pushed_event_ends_the_tasks_of_its_human_before_it_is_acknowledged(scene: Scene, tmp_path: Path) -> None:
    async def played(plane: Plane) -> None:
        alice, bob = await scene.opened(plane.broker), await scene.opened(plane.broker, "bob")
        token = scene.set()
        for _ in range(2):  # delivered twice
            answer = await push(plane, token)
            assert (answer.status_code, answer.content) == (202, b"")
            assert answer.headers["cache-control"] == "no-store"
        assert (alive(plane, alice), alive(plane, bob)) == (False, True)
        taken = [event for event in await scene.world.events() if event.event == "signal.take"]
        assert [event.decision for event in taken] == ["done"]

    scene.play(tmp_path, played)


def test_an_event_that_says_nothing_against_a_login_is_taken_and_ends_nothing(scene: Scene, tmp_path: Path) -> None:
    async def played(plane: Plane) -> None:
        grant = await scene.opened(plane.broker)
        verification = "https://schemas.openid.net/secevent/ssf/event-type/verification"
        answer = await push(plane, scene.set(events={verification: {"state": "x"}}))
        assert answer.status_code == 202
        assert alive(plane, grant)

    scene.play(tmp_path, played)


@pytest.mark.parametrize(
    ("changes", "err"),
    [
        ({"aud": "somebody-else"}, "invalid_audience"),
        ({"iss": "https://other.test"}, "invalid_issuer"),
        ({"exp": 4_000_000_000}, "invalid_request"),
        ({"iat": 1}, "invalid_request"),
        ({"jti": None}, "invalid_request"),
        ({"events": {}}, "invalid_request"),
        ({"sub_id": None}, "invalid_request"),
        ({"sub_id": {"format": "email", "email": "alice@example.test"}}, "invalid_request"),
        ({"sub_id": {"format": "iss_sub", "iss": "https://other.test", "sub": "alice"}}, "invalid_request"),
    ],
)
def test_what_is_no_event_of_the_issuer_for_this_broker_is_refused(
    scene: Scene, tmp_path: Path, changes: dict[str, Any], err: str
) -> None:
    async def played(plane: Plane) -> None:
        grant = await scene.opened(plane.broker)
        answer = await push(plane, scene.set(**changes))
        assert (answer.status_code, answer.json()["err"]) == (400, err)
        assert answer.json()["description"]
        assert answer.headers["content-language"] == "en"
        assert alive(plane, grant)
        last = (await scene.world.events())[-1]
        assert (last.event, last.decision) == ("signal.take", "deny")

    scene.play(tmp_path, played)


def test_a_body_that_is_no_token_is_refused_unread(scene: Scene, tmp_path: Path) -> None:
    async def played(plane: Plane) -> None:
        asked = len(scene.site.asked)
        for token, media in (
            (scene.set(), "application/jwt"),
            ("", MEDIA),
            ("é", MEDIA),
            ("a" * (MAX_TOKEN + 1), MEDIA),
        ):
            answer = await push(plane, token, media)
            assert (answer.status_code, answer.json()["err"]) == (400, "invalid_request")
        assert (await push(plane, "a" * 70_000)).status_code == 413
        for token in ("a.b.c", "not a token", scene.set() + "x"):
            answer = await push(plane, token)
            assert (answer.status_code, answer.json()["err"]) == (400, "invalid_request")
        answer = await push(plane, signed({"iss": URL, "aud": "remit"}, ec("stranger"), typ="secevent+jwt"))
        assert (answer.status_code, answer.json()["err"]) == (400, "invalid_key")
        assert len(scene.site.asked) - asked <= 2

    scene.play(tmp_path, played)


def test_a_token_of_another_kind_is_no_event(scene: Scene, tmp_path: Path) -> None:
    async def played(plane: Plane) -> None:
        grant = await scene.opened(plane.broker)
        assert (await push(plane, scene.logout_token())).status_code == 400
        answer = await plane.web.post(LOGOUT, data={"logout_token": scene.set()})
        assert answer.status_code == 400
        assert alive(plane, grant)

    scene.play(tmp_path, played)


def test_while_the_issuers_keys_cannot_be_had_it_is_told_to_try_again(scene: Scene, tmp_path: Path) -> None:
    async def played(plane: Plane) -> None:
        grant, token = await scene.opened(plane.broker), scene.set()
        scene.site.down = True
        answer = await push(plane, token)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert alive(plane, grant)
        scene.site.down = False
        scene.clock.on(seconds=30)
        assert (await push(plane, token)).status_code == 202
        assert not alive(plane, grant)

    scene.play(tmp_path, played)


# -- Back-Channel Logout ----------------------------------------------------------------------------------------------


def test_a_logout_token_ends_the_tasks_of_its_session(scene: Scene, tmp_path: Path) -> None:
    async def played(plane: Plane) -> None:
        here, there = await scene.opened(plane.broker), await scene.opened(plane.broker, sid="session-2")
        answer = await plane.web.post(LOGOUT, data={"logout_token": scene.logout_token(), "whatever": "else"})
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        assert (alive(plane, here), alive(plane, there)) == (False, True)

    scene.play(tmp_path, played)


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "n"},
        {"aud": "somebody-else"},
        {"iss": "https://other.test"},
        {"exp": 1},
        {"exp": None},
        {"iat": None},
        {"jti": None},
        {"events": {}},
        {"events": {LOGOUT_EVENT: []}},
        {"sub": None, "sid": None},
    ],
)
def test_what_is_no_logout_token_is_refused(scene: Scene, tmp_path: Path, changes: dict[str, Any]) -> None:
    async def played(plane: Plane) -> None:
        grant = await scene.opened(plane.broker)
        answer = await plane.web.post(LOGOUT, data={"logout_token": scene.logout_token(**changes)})
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
        assert answer.headers["cache-control"] == "no-store"
        assert alive(plane, grant)

    scene.play(tmp_path, played)


@pytest.mark.parametrize("body", [b"", b"logout_token=", b"logout_token=a&logout_token=b", b"=&;", b"\xff", b"other=1"])
def test_a_form_without_one_logout_token_is_refused(scene: Scene, tmp_path: Path, body: bytes) -> None:
    async def played(plane: Plane) -> None:
        answer = await plane.web.post(LOGOUT, content=body, headers=FORM)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")

    scene.play(tmp_path, played)


# -- nobody -----------------------------------------------------------------------------------------------------------


def test_where_no_issuer_is_configured_nothing_is_taken(tmp_path: Path) -> None:
    async def played(plane: Plane) -> None:
        for path in (EVENTS, LOGOUT):
            assert (await plane.web.post(path, content=b"x")).status_code == 401
            assert (await plane.control.post(path, content=b"x")).status_code == 404

    play(tmp_path, played)
