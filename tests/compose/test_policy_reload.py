"""Policies are replaced whole or not at all, over a real state, when somebody says so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import pytest

from remit.compose import authority
from remit.compose.wiring import Application
from remit.core.audit import Event
from remit.core.policy import Problem
from remit.core.task import Change
from remit.errors import PolicyError, UnavailableError
from tests.compose.policies import (
    BAD,
    MAIL,
    NO_MAIL,
    OPEN,
    SEARCH,
    Deployment,
    events,
    lives,
    opened,
    reloaded,
    resources,
    version,
)


def test_a_reload_ends_what_is_no_longer_allowed_and_says_how_much(deployment: Deployment) -> None:
    deployment.write(OPEN)

    async def body(app: Application) -> None:
        await resources(app)
        search, mail = await opened(app, SEARCH), await opened(app, MAIL)
        before = version(app)
        deployment.write(NO_MAIL)
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

    deployment.up(body)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda deployment: deployment.write(BAD), "main.cedar:3: attribute `nonsense` in context not found"),
        (lambda deployment: deployment.write("nonsense", "other.cedar"), "other.cedar:1: the policy has no end"),
        (lambda deployment: (deployment.directory / "main.cedar").unlink(), "there is no policy here"),
        (
            lambda deployment: (deployment.directory / "main.cedar").chmod(0o666),
            "main.cedar: the file can be written by everybody",
        ),
        (lambda deployment: deployment.directory.rename(deployment.directory.with_name("gone")), "cannot be read"),
    ],
    ids=["invalid", "unfinished", "empty", "open", "gone"],
)
def test_a_bad_set_changes_nothing_is_told_and_on_record(
    deployment: Deployment, spoil: Callable[[Deployment], object], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    deployment.write(NO_MAIL)

    async def body(app: Application) -> None:
        await resources(app)
        search, before = await opened(app, SEARCH), version(app)
        spoil(deployment)
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

    deployment.up(body)
    assert "the policies stay as they were" in caplog.text


def test_problems_are_gone_when_they_are_put_right(deployment: Deployment) -> None:
    deployment.write(OPEN)

    async def body(app: Application) -> None:
        deployment.write(BAD)
        await reloaded(app)
        deployment.write(NO_MAIL)
        answer = await reloaded(app)
        assert isinstance(answer, dict)
        assert (answer["reloaded"], answer["problems"]) == (True, [])

    deployment.up(body)


def test_a_store_that_fails_before_the_change_is_on_record_leaves_the_old_policies(deployment: Deployment) -> None:
    deployment.write(OPEN)

    async def body(app: Application) -> None:
        await resources(app)
        mail, before = await opened(app, MAIL), version(app)
        deployment.write(NO_MAIL)
        _fail(app, first=True)
        with pytest.raises(UnavailableError):
            await reloaded(app)
        assert version(app) == before
        assert lives(app, mail)

    deployment.up(body)


def test_a_store_that_fails_after_that_leaves_the_new_policies_and_they_are_the_ones_that_are_shown(
    deployment: Deployment,
) -> None:
    deployment.write(OPEN)

    async def body(app: Application) -> None:
        await resources(app)
        mail, before = await opened(app, MAIL), version(app)
        deployment.write(NO_MAIL)
        _fail(app, first=False)
        with pytest.raises(UnavailableError):
            await reloaded(app)
        assert version(app) != before
        with pytest.raises(PolicyError):
            await opened(app, MAIL)
        await app.broker.sweep()
        assert not lives(app, mail)

    deployment.up(body)


def _fail(app: Application, *, first: bool) -> None:
    """Let one commit fail: the next, or else the next that changes a task."""
    store = app.broker._store
    commit, left = store.commit, [1]

    async def failing(writes: Sequence[object], events: Sequence[Event]) -> None:
        if left[0] and (first or any(isinstance(write, Change) for write in writes)):
            left[0] = 0
            raise UnavailableError
        await commit(writes, events)  # type: ignore[arg-type]  # as they came

    store.commit = failing  # type: ignore[method-assign]  # one store, wrapped


def test_reloads_at_once_end_with_what_is_in_the_directory(deployment: Deployment) -> None:
    deployment.write(OPEN)

    async def body(app: Application) -> None:
        await resources(app)
        mail = await opened(app, MAIL)
        first = asyncio.ensure_future(reloaded(app))
        await asyncio.sleep(0)
        deployment.write(NO_MAIL)
        await asyncio.gather(first, reloaded(app))
        assert not lives(app, mail)
        with pytest.raises(PolicyError):
            await opened(app, MAIL)

    deployment.up(body)


def test_the_policies_are_loaded_when_asked_for_and_again_after_a_bad_set(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    deployment.write(OPEN)
    caplog.set_level(logging.INFO, "remit")

    async def body(app: Application) -> None:
        await resources(app)
        mail = await opened(app, MAIL)
        asked = asyncio.Event()
        listening = authority.reloading(app, asked)
        for text, decision in ((BAD, "failed"), (NO_MAIL, "done")):
            deployment.write(text)
            before = len(await events(app, "policy.reload"))
            asked.set()
            async with asyncio.timeout(10):
                while len(found := await events(app, "policy.reload")) == before:  # noqa: ASYNC110 - it is in the store
                    await asyncio.sleep(0.01)
            assert found[-1].decision == decision
        async with asyncio.timeout(10):
            while lives(app, mail):  # noqa: ASYNC110 - it is in the broker
                await asyncio.sleep(0.01)
        listening.cancel()

    deployment.up(body)
