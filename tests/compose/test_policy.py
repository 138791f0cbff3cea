"""Policies from a configured directory: loaded whole or not at all, over a real state, and over its restarts."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from remit.compose import policy, serving, wiring
from remit.compose.policy import LastGoodPolicies, PolicyDirectory
from remit.compose.wiring import Application
from remit.config import settings
from remit.core import audit, scope
from remit.core.audit import Event
from remit.core.policy import VERSION, Decision, Problem, Question, within_bounds
from remit.core.request import Bounds, GrantRequest
from remit.core.scope import Access
from remit.core.secret import Secret
from remit.core.task import Grant, Posture, Subject
from remit.errors import (
    GrantEndedError,
    IntegrityError,
    InvalidRequestError,
    NotFoundError,
    PolicyError,
    UnavailableError,
)
from remit.keys.file import FileSealer
from remit.policies.sets import CedarPolicies
from remit.ports import Resource
from tests.grant_requests import changed
from tests.uses import permitted_use

SEARCH = scope.parse([{"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/**"], "args": "any"}])
MAIL = scope.parse([{"type": "http", "resource": "mail", "actions": ["GET"], "paths": ["/**"], "args": "any"}])
OPEN = '@id("all")\npermit (principal, action, resource);\n'
NO_MAIL = OPEN + '@id("no-mail")\nforbid (principal, action, resource == Resource::"mail");\n'
BAD = '@id("all")\npermit (principal, action, resource)\nwhen { context.nonsense };\n'
BOOM = OPEN + '@id("boom")\nforbid (principal, action, resource) when { context.ttl + 9223372036854775807 > 0 };\n'

SEALER = FileSealer(b"k" * 32)
KEPT, BARE = Posture("namespace"), Posture("unsandboxed")

Body = Callable[[Application], Awaitable[None]]


class Place:
    """A state and a directory of policies, over restarts."""

    def __init__(self, tmp_path: Path) -> None:
        self.state, self.directory = tmp_path / "state", tmp_path / "policies"
        self.directory.mkdir(mode=0o755)

    def write(self, text: str, name: str = "main.cedar") -> None:
        (self.directory / name).write_text(text)

    def settings(self, *, policies: bool = True) -> settings.Settings:
        raw = {"policy": {"directory": str(self.directory)}} if policies else {}
        return settings.read(settings.places({"REMIT_STATE_DIR": str(self.state)}), raw)

    def up(self, body: Body, *, policies: bool = True) -> None:
        """Serve once, as ``remit up`` does but without edges, and stop."""

        async def main() -> None:
            app = wiring.build(self.settings(policies=policies))
            await app.broker.start()
            try:
                assert app.policies is not None
                await app.policies.started(app.operator)
                await body(app)
            finally:
                await app.broker.stop()

        asyncio.run(main())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def resources(app: Application) -> None:
    for bound in (SEARCH, MAIL):
        name = bound[0].resource
        made = Resource(name, "http", f"https://{name}.test", bound, None, {})
        await app.broker.put_resource(app.operator, made, Secret("key"))


async def delegated(app: Application, parent: str, more: Mapping[str, Any]) -> Grant:
    members = dict(more)
    posture = members.pop("posture", None)
    return (
        await app.broker.delegate(app.operator, parent, changed(GrantRequest(SEARCH), members), posture=posture)
    ).grant


async def opened(app: Application, wanted: scope.Scope) -> Grant:
    return (
        await app.broker.open(
            app.operator, GrantRequest(wanted, Bounds(timedelta(minutes=5), depth=1, fan_out=9), purpose="why")
        )
    ).grant


async def events(app: Application, name: str) -> list[Event]:
    entries = await app.broker.entries(0, 1_000)
    return [event for event in map(audit.read, entries) if event.event == name]


def lives(app: Application, grant: Grant) -> bool:
    try:
        app.broker._tasks.check(grant.id)
    except GrantEndedError:
        return False
    return True


def reloaded(app: Application) -> Awaitable[object]:
    assert app.policies is not None
    return app.policies.reload(app.operator)


def version(app: Application) -> object:
    assert app.policies is not None
    return app.policies.shown()["version"]


def listed(found: object) -> list[Any]:
    assert isinstance(found, list)
    return found


# -- without, and with ------------------------------------------------------------------------------------------------


def test_without_policies_the_owner_of_the_state_decides_and_nothing_is_reloaded(place: Place) -> None:
    async def body(app: Application) -> None:
        assert app.policies is not None
        assert app.policies.decide is within_bounds
        assert app.policies.shown() == {
            "directory": None, "version": VERSION, "policies": [], "failing": [], "problems": [],
        }  # fmt: skip
        with pytest.raises(NotFoundError):
            await app.policies.reload(app.operator)

    place.up(body, policies=False)
    assert not (place.state / "policies.json").exists()


def test_the_owner_of_the_state_needs_a_policy_too_once_there_are_some(place: Place) -> None:
    place.write('@id("x")\npermit (principal, action, resource == Resource::"search");\n')

    async def body(app: Application) -> None:
        await resources(app)
        assert (await opened(app, SEARCH)).policy == version(app)
        with pytest.raises(PolicyError, match="no policy permits to open `mail`"):
            await opened(app, MAIL)

    place.up(body)


def test_what_holds_is_shown_with_where_it_is_written(place: Place) -> None:
    place.write(NO_MAIL)

    async def body(app: Application) -> None:
        assert app.policies is not None
        shown = app.policies.shown()
        assert shown["policies"] == [
            {"id": "all", "effect": "permit", "file": "main.cedar", "line": 1},
            {"id": "no-mail", "effect": "forbid", "file": "main.cedar", "line": 3},
        ]
        assert str(shown["version"]).startswith("cedar-")
        assert (shown["directory"], shown["problems"]) == (str(place.directory), [])

    place.up(body)


def test_no_policy_widens_what_a_resource_is_bounded_to(place: Place) -> None:
    place.write(OPEN)

    async def body(app: Application) -> None:
        await resources(app)
        wide = scope.parse([{**scope.dump(SEARCH)[0], "actions": ["GET", "POST"]}])
        with pytest.raises(PolicyError, match="wider than the bound of `search`"):
            await opened(app, wide)

    place.up(body)


def test_a_policy_that_could_not_be_evaluated_is_named_in_the_refusal_in_the_audit_and_where_policies_are_shown(
    place: Place,
) -> None:
    place.write(BOOM)

    async def body(app: Application) -> None:
        await resources(app)
        with pytest.raises(PolicyError, match="`boom` could not be evaluated: integer overflow"):
            await opened(app, SEARCH)
        [denied] = await events(app, "task.open")
        assert denied.decision == "deny"
        assert (denied.cause or "").startswith("`boom` could not be evaluated")
        assert denied.policy == version(app)
        assert app.policies is not None
        [failing] = listed(app.policies.shown()["failing"])
        assert (failing["policy"], failing["times"]) == ("boom", 1)
        assert failing["why"].startswith("integer overflow")

    place.up(body)


def test_a_request_through_the_gateway_asks_no_policy(place: Place) -> None:
    place.write(OPEN)

    async def body(app: Application) -> None:
        await resources(app)
        grant, asked = await opened(app, SEARCH), list[Question]()
        inner = app.broker.policy.deciding

        def counting(question: Question) -> Decision:
            asked.append(question)
            return inner(question)

        await app.broker.policy.reload(app.operator, counting, "counting")
        after = len(asked)
        assert after == 1
        for number in range(100):
            await permitted_use(app.broker, grant.id, Access("search", "GET", f"/{number}"), f"r{number}")
        assert len(asked) == after
        await opened(app, SEARCH)
        assert len(asked) == after + 1

    place.up(body)


@pytest.mark.parametrize(
    ("condition", "refused", "allowed"),
    [
        ('context.posture.isolation == "namespace"', {"posture": BARE}, {"posture": KEPT}),
        ("context.level < 2", {"depth": 0}, None),
        ("context.depth <= 1", {"depth": 2}, {"depth": 1}),
        ("context.fan_out <= 3", {"fan_out": 4}, {"fan_out": 3}),
        ("context.ttl <= 60", {"ttl": timedelta(seconds=61)}, {"ttl": timedelta(seconds=60)}),
        ("context.attested", {"attested": False}, {"attested": True, "agent": "spiffe://prod.example/a"}),
        (
            'context.agent like "spiffe://prod.example/*" && context.trust_domain == "prod.example"',
            {"attested": True, "agent": "spiffe://test.example/a"},
            {"attested": True, "agent": "spiffe://prod.example/a"},
        ),
        (
            'context.claims.hasTag("env") && context.claims.getTag("env") == "prod"',
            {"claims": (("env", "test"),)},
            {"claims": (("env", "prod"),)},
        ),
        ("context.exercise", {"exercise": False}, {"exercise": True}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_a_policy_demands_is_demanded_of_every_child(
    place: Place, condition: str, refused: dict[str, Any], allowed: dict[str, Any] | None
) -> None:
    """The root and its child stand anyway; a grandchild, at level 2, is what the policy is about."""
    demand = f"when {{ context.level == 2 }} unless {{ {condition} }};"
    place.write(f'{OPEN}@id("demand") forbid (principal, action, resource) {demand}')

    async def body(app: Application) -> None:
        await resources(app)
        root = (
            await app.broker.open(
                app.operator, GrantRequest(SEARCH, Bounds(timedelta(minutes=5), depth=4, fan_out=9), purpose="why")
            )
        ).grant
        child = (
            await app.broker.delegate(app.operator, root.id, GrantRequest(SEARCH, Bounds(None, depth=3, fan_out=9)))
        ).grant
        with pytest.raises(PolicyError, match="`demand` forbids `search`"):
            await delegated(app, child.id, refused)
        if allowed is not None:
            await delegated(app, child.id, allowed)

    place.up(body)


# -- reloading --------------------------------------------------------------------------------------------------------


def test_a_reload_ends_what_is_no_longer_allowed_and_says_how_much(place: Place) -> None:
    place.write(OPEN)

    async def body(app: Application) -> None:
        await resources(app)
        search, mail = await opened(app, SEARCH), await opened(app, MAIL)
        before = version(app)
        place.write(NO_MAIL)
        answer = await reloaded(app)
        assert isinstance(answer, dict)
        assert (answer["reloaded"], answer["ended"]) == (True, 1)
        assert answer["version"] == version(app) != before
        assert (lives(app, search), lives(app, mail)) == (True, False)
        with pytest.raises(PolicyError, match="`no-mail` forbids `mail`"):
            await opened(app, MAIL)
        [*_, done] = await events(app, "policy.reload")
        assert (done.decision, done.policy, done.subject) == (
            "done",
            answer["version"],
            app.operator.subject.sub,
        )
        [closed] = await events(app, "task.close")
        assert closed.cause == "the policy changed: `no-mail` forbids `mail`"

    place.up(body)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda place: place.write(BAD), "main.cedar:3: attribute `nonsense` in context not found"),
        (lambda place: place.write("nonsense", "other.cedar"), "other.cedar:1: the policy has no end"),
        (lambda place: (place.directory / "main.cedar").unlink(), "there is no policy here"),
        (
            lambda place: (place.directory / "main.cedar").chmod(0o666),
            "main.cedar: the file can be written by everybody",
        ),
        (lambda place: place.directory.rename(place.directory.with_name("gone")), "cannot be read"),
    ],
    ids=["invalid", "unfinished", "empty", "open", "gone"],
)
def test_a_bad_set_changes_nothing_is_told_and_on_record(
    place: Place, spoil: Callable[[Place], object], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    place.write(NO_MAIL)

    async def body(app: Application) -> None:
        await resources(app)
        search, before = await opened(app, SEARCH), version(app)
        spoil(place)
        answer = await reloaded(app)
        assert isinstance(answer, dict)
        assert (answer["reloaded"], answer["ended"], answer["version"]) == (False, 0, before)
        assert answer["problems"]
        assert said in str(Problem(**answer["problems"][0]))
        assert lives(app, search)
        assert (await opened(app, SEARCH)).policy == before
        with pytest.raises(PolicyError):
            await opened(app, MAIL)
        [*_, failed] = await events(app, "policy.reload")
        assert (failed.decision, failed.code, failed.policy) == ("failed", "policy", before)
        assert said in (failed.cause or "")

    place.up(body)
    assert "the policies stay as they were" in caplog.text


def test_problems_are_gone_when_they_are_put_right(place: Place) -> None:
    place.write(OPEN)

    async def body(app: Application) -> None:
        place.write(BAD)
        await reloaded(app)
        place.write(NO_MAIL)
        answer = await reloaded(app)
        assert isinstance(answer, dict)
        assert (answer["reloaded"], answer["problems"]) == (True, [])

    place.up(body)


def test_a_store_that_fails_before_the_change_is_on_record_leaves_the_old_policies(place: Place) -> None:
    place.write(OPEN)

    async def body(app: Application) -> None:
        await resources(app)
        mail, before = await opened(app, MAIL), version(app)
        place.write(NO_MAIL)
        _fail(app, first=True)
        with pytest.raises(UnavailableError):
            await reloaded(app)
        assert version(app) == before
        assert lives(app, mail)

    place.up(body)


def test_a_store_that_fails_after_that_leaves_the_new_policies_and_they_are_the_ones_that_are_shown(
    place: Place,
) -> None:
    place.write(OPEN)

    async def body(app: Application) -> None:
        await resources(app)
        mail, before = await opened(app, MAIL), version(app)
        place.write(NO_MAIL)
        _fail(app, first=False)
        with pytest.raises(UnavailableError):
            await reloaded(app)
        assert version(app) != before
        with pytest.raises(PolicyError):
            await opened(app, MAIL)
        await app.broker.sweep()
        assert not lives(app, mail)

    place.up(body)


def _fail(app: Application, *, first: bool) -> None:
    """Let one commit fail: the next, or else the next that changes a task."""
    store = app.broker._store
    commit, left = store.commit, [1]

    async def failing(writes: Sequence[object], events: Sequence[Event]) -> None:
        if left[0] and (writes or first):
            left[0] = 0
            raise UnavailableError
        await commit(writes, events)  # type: ignore[arg-type]  # as they came

    store.commit = failing  # type: ignore[method-assign]  # one store, wrapped


def test_reloads_at_once_end_with_what_is_in_the_directory(place: Place) -> None:
    place.write(OPEN)

    async def body(app: Application) -> None:
        await resources(app)
        mail = await opened(app, MAIL)
        first = asyncio.ensure_future(reloaded(app))
        await asyncio.sleep(0)
        place.write(NO_MAIL)
        await asyncio.gather(first, reloaded(app))
        assert not lives(app, mail)
        with pytest.raises(PolicyError):
            await opened(app, MAIL)

    place.up(body)


# -- restarting -------------------------------------------------------------------------------------------------------


def test_a_policy_that_was_tightened_while_nothing_ran_holds_from_the_start(place: Place) -> None:
    place.write(OPEN)
    kept: list[Grant] = []

    async def before(app: Application) -> None:
        await resources(app)
        kept.extend([await opened(app, SEARCH), await opened(app, MAIL)])

    async def after(app: Application) -> None:
        assert [lives(app, grant) for grant in kept] == [True, False]
        [*_, done] = await events(app, "policy.reload")
        assert (done.decision, done.policy) == ("done", version(app))

    place.up(before)
    place.write(NO_MAIL)
    place.up(after)


def test_a_crash_before_a_change_is_on_record_does_not_keep_it_off_the_record(place: Place) -> None:
    place.write(OPEN)
    told: list[object] = []

    async def before(app: Application) -> None:
        place.write(NO_MAIL)
        _die(app, 0)
        with pytest.raises(UnavailableError):
            await reloaded(app)

    async def after(app: Application) -> None:
        told.extend(event.policy for event in await events(app, "policy.reload"))
        assert told[-1] == version(app)
        assert len(set(told)) == 2

    place.up(before)
    place.up(after)


@pytest.mark.parametrize("commits", range(6))
def test_a_crash_in_the_middle_of_a_reload_is_made_good_at_the_start(place: Place, commits: int) -> None:
    """Die at the n-th commit of a reload that ends four tasks; whatever was done, all are over after the restart."""
    place.write(OPEN)
    kept: list[Grant] = []

    async def before(app: Application) -> None:
        await resources(app)
        kept.extend([await opened(app, MAIL) for _ in range(4)])
        kept.append(await opened(app, SEARCH))
        place.write(NO_MAIL)
        _die(app, commits)
        with pytest.raises((UnavailableError, asyncio.CancelledError)) if commits < 5 else _done():
            await reloaded(app)

    async def after(app: Application) -> None:
        assert [lives(app, grant) for grant in kept] == [False] * 4 + [True]

    place.up(before)
    place.up(after)


class _done:  # noqa: N801 - reads as a context
    """Expects nothing."""

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def _die(app: Application, after: int) -> None:
    """Let the store take ``after`` more commits and never another."""
    store, left = app.broker._store, [after]
    commit = store.commit

    async def dying(writes: Sequence[object], events: Sequence[Event]) -> None:
        if not left[0]:
            raise UnavailableError
        left[0] -= 1
        await commit(writes, events)  # type: ignore[arg-type]  # as they came

    store.commit = dying  # type: ignore[method-assign]  # one store, wrapped


def test_a_start_with_bad_policies_goes_on_with_the_last_good_ones(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.write(NO_MAIL)
    kept: list[object] = []

    async def before(app: Application) -> None:
        await resources(app)
        kept.extend([await opened(app, SEARCH), version(app)])

    async def after(app: Application) -> None:
        [grant, held] = kept
        assert isinstance(grant, Grant)
        assert lives(app, grant)
        assert version(app) == held
        with pytest.raises(PolicyError, match="no-mail"):
            await opened(app, MAIL)
        assert app.policies is not None
        assert app.policies.shown()["problems"]
        [*_, failed] = await events(app, "policy.reload")
        assert (failed.decision, failed.policy) == ("failed", held)

    place.up(before)
    place.write(BAD)
    place.up(after)
    assert f"policies {kept[1]} stay until this is right: main.cedar:3: " in caplog.text


def test_a_first_start_with_bad_policies_allows_nothing_until_they_are_right(place: Place) -> None:
    place.write(BAD)

    async def body(app: Application) -> None:
        await resources(app)
        with pytest.raises(PolicyError, match="the policies cannot be read, so nothing is allowed"):
            await opened(app, SEARCH)
        assert version(app) == policy.NONE
        place.write(OPEN)
        await reloaded(app)
        assert (await opened(app, SEARCH)).policy == version(app)

    place.up(body)


def test_the_last_good_policies_are_those_of_the_last_reload(place: Place) -> None:
    place.write(OPEN)

    async def before(app: Application) -> None:
        await resources(app)
        place.write(NO_MAIL)
        await reloaded(app)

    async def after(app: Application) -> None:
        with pytest.raises(PolicyError, match="no-mail"):
            await opened(app, MAIL)

    place.up(before)
    place.write(BAD)
    place.up(after)


def test_what_is_kept_is_for_its_owner_alone_and_bad_contents_are_refused(tmp_path: Path) -> None:
    kept = LastGoodPolicies(tmp_path / "policies.json", SEALER)
    assert kept.read() is None
    good, _ = policy.load(_directory(tmp_path, OPEN))
    assert good is not None
    kept.write(good)
    assert (tmp_path / "policies.json").stat().st_mode & 0o777 == 0o600
    again = kept.read()
    assert again is not None
    assert again.version == good.version
    sealed = (tmp_path / "policies.json").read_bytes()
    written = [json.dumps(good.texts).encode(), sealed[:-1], sealed + b"x", b"", SEALER.seal(b"{", b"policies")]
    written += [SEALER.seal(b"{}", b"secret"), FileSealer(b"z" * 32).seal(json.dumps(good.texts).encode(), b"policies")]
    for content in written:
        (tmp_path / "policies.json").write_bytes(content)
        with pytest.raises(IntegrityError, match="the last good policies cannot be read"):
            kept.read()


@pytest.mark.attack("STO-07")
def test_a_last_good_set_that_somebody_wrote_decides_nothing(place: Place) -> None:
    async def body(app: Application) -> None:
        assert app.policies is not None
        assert "no-mail" in {item["id"] for item in app.policies.shown()["policies"]}  # type: ignore[attr-defined]

    place.write(NO_MAIL)
    place.up(body)
    (place.state / "policies.json").write_text(json.dumps({"main.cedar": OPEN}))
    place.write(BAD)
    with pytest.raises(IntegrityError, match="the last good policies cannot be read"):
        place.up(body)
    place.write(NO_MAIL)
    place.up(body)  # with a good directory they are kept anew
    place.write(BAD)
    place.up(body)


def test_policies_that_cannot_be_kept_do_not_hold_either(tmp_path: Path) -> None:
    good, _ = policy.load(_directory(tmp_path, OPEN))
    assert good is not None
    with pytest.raises(UnavailableError):
        LastGoodPolicies(tmp_path / "none" / "policies.json", SEALER).write(good)


def _directory(tmp_path: Path, text: str) -> Path:
    made = tmp_path / "written"
    made.mkdir(mode=0o755)
    (made / "main.cedar").write_text(text)
    return made


# -- the signal -------------------------------------------------------------------------------------------------------


def test_sighup_reloads_and_goes_on_listening_after_a_bad_set(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.write(OPEN)
    caplog.set_level(logging.INFO, "remit")

    async def body(app: Application) -> None:
        await resources(app)
        mail = await opened(app, MAIL)
        listening = serving.reloading(app)
        for text, decision in ((BAD, "failed"), (NO_MAIL, "done")):
            place.write(text)
            before = len(await events(app, "policy.reload"))
            os.kill(os.getpid(), signal.SIGHUP)
            async with asyncio.timeout(10):
                while len(found := await events(app, "policy.reload")) == before:  # noqa: ASYNC110 - it is in the store
                    await asyncio.sleep(0.01)
            assert found[-1].decision == decision
        async with asyncio.timeout(10):
            while lives(app, mail):  # noqa: ASYNC110 - it is in the broker
                await asyncio.sleep(0.01)
        listening.cancel()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)

    place.up(body)


def test_where_no_policies_are_configured_sighup_means_what_it_meant(place: Place) -> None:
    async def body(app: Application) -> None:
        listening = serving.reloading(app)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        listening.cancel()

    place.up(body, policies=False)


# -- explaining -------------------------------------------------------------------------------------------------------


def test_a_question_is_explained_by_what_decides_now(place: Place) -> None:
    place.write(NO_MAIL)

    async def body(app: Application) -> None:
        await resources(app)
        grant = await opened(app, SEARCH)
        assert app.policies is not None
        told = app.policies.explained(await app.broker.question(grant.id))
        assert (told["allowed"], told["version"], told["verb"]) == (True, version(app), "open")
        assert told["reasons"] == ["`all` permits `search`"]
        [detail] = listed(told["details"])
        assert [step["outcome"] for step in detail["policies"]] == ["permits", "does not apply"]

    place.up(body)


def test_what_exceeds_a_bound_is_explained_by_the_bound_alone() -> None:
    question = Question(Subject("unix://a#1", ""), "", SEARCH, {})
    told = PolicyDirectory(None).explained(question)
    assert told == {
        "allowed": False,
        "reasons": ["there is no resource `search`"],
        "version": VERSION,
        "verb": "open",
        "details": [{"type": "http", "resource": "search", "policies": []}],
    }


@pytest.mark.parametrize(
    "raw", [{}, [], {"directory": "relative"}, {"directory": 1}, {"directory": "/a", "more": 1}, {"Directory": "/a"}, 3]
)
def test_what_is_no_setting_is_refused(tmp_path: Path, raw: object) -> None:
    with pytest.raises(InvalidRequestError, match="policy"):
        settings.read(settings.places({"REMIT_STATE_DIR": str(tmp_path)}), {"policy": raw})


def test_a_set_survives_being_written_as_json(tmp_path: Path) -> None:
    good, _ = policy.load(_directory(tmp_path, OPEN))
    assert isinstance(good, CedarPolicies)
    assert json.loads(json.dumps(good.texts)) == good.texts
