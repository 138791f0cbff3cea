"""Policies over restarts: the last good set, and what a crash left half done."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from remit.compose import policy
from remit.compose.policy import LastGoodPolicies
from remit.compose.wiring import Application
from remit.core.audit import Event
from remit.core.task import Grant
from remit.errors import IntegrityError, PolicyError, UnavailableError
from remit.keys.file import FileSealer, load_kek
from remit.policies.sets import CedarPolicies
from tests.compose.policies import (
    BAD,
    MAIL,
    NO_MAIL,
    OPEN,
    SEALER,
    SEARCH,
    Deployment,
    events,
    listed,
    lives,
    opened,
    policy_directory,
    reloaded,
    resources,
    version,
)


def test_a_policy_that_was_tightened_while_nothing_ran_holds_from_the_start(deployment: Deployment) -> None:
    deployment.write(OPEN)
    kept: list[Grant] = []

    async def before(app: Application) -> None:
        await resources(app)
        kept.extend([await opened(app, SEARCH), await opened(app, MAIL)])

    async def after(app: Application) -> None:
        assert [lives(app, grant) for grant in kept] == [True, False]
        [*_, done] = await events(app, "policy.reload")
        assert (done.decision, done.policy) == ("done", version(app))

    deployment.up(before)
    deployment.write(NO_MAIL)
    deployment.up(after)


def test_a_crash_before_a_change_is_on_record_does_not_keep_it_off_the_record(deployment: Deployment) -> None:
    deployment.write(OPEN)
    told: list[object] = []

    async def before(app: Application) -> None:
        deployment.write(NO_MAIL)
        _die(app, 0)
        with pytest.raises(UnavailableError):
            await reloaded(app)

    async def after(app: Application) -> None:
        told.extend(event.policy for event in await events(app, "policy.reload"))
        assert told[-1] == version(app)
        assert len(set(told)) == 2

    deployment.up(before)
    deployment.up(after)


@pytest.mark.parametrize("commits", range(6))
def test_a_crash_in_the_middle_of_a_reload_is_made_good_at_the_start(deployment: Deployment, commits: int) -> None:
    """Die at the n-th commit of a reload that ends four tasks; whatever was done, all are over after the restart."""
    deployment.write(OPEN)
    kept: list[Grant] = []

    async def before(app: Application) -> None:
        await resources(app)
        kept.extend([await opened(app, MAIL) for _ in range(4)])
        kept.append(await opened(app, SEARCH))
        deployment.write(NO_MAIL)
        _die(app, commits)
        with pytest.raises((UnavailableError, asyncio.CancelledError)) if commits < 5 else _done():
            await reloaded(app)

    async def after(app: Application) -> None:
        assert [lives(app, grant) for grant in kept] == [False] * 4 + [True]

    deployment.up(before)
    deployment.up(after)


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
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    deployment.write(NO_MAIL)
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
        assert app.policies.shown()["problems"]
        [*_, failed] = await events(app, "policy.reload")
        assert (failed.decision, failed.policy) == ("failed", held)

    deployment.up(before)
    deployment.write(BAD)
    deployment.up(after)
    assert f"policies {kept[1]} stay until this is right: main.cedar:3: " in caplog.text


def test_a_first_start_with_bad_policies_allows_nothing_until_they_are_right(deployment: Deployment) -> None:
    deployment.write(BAD)

    async def body(app: Application) -> None:
        await resources(app)
        with pytest.raises(PolicyError, match="the policies cannot be read, so nothing is allowed"):
            await opened(app, SEARCH)
        assert version(app) == policy.NONE
        deployment.write(OPEN)
        await reloaded(app)
        assert (await opened(app, SEARCH)).policy == version(app)

    deployment.up(body)


def test_the_last_good_policies_are_those_of_the_last_reload(deployment: Deployment) -> None:
    deployment.write(OPEN)

    async def before(app: Application) -> None:
        await resources(app)
        deployment.write(NO_MAIL)
        await reloaded(app)

    async def after(app: Application) -> None:
        with pytest.raises(PolicyError, match="no-mail"):
            await opened(app, MAIL)

    deployment.up(before)
    deployment.write(BAD)
    deployment.up(after)


def test_what_is_kept_is_for_its_owner_alone_and_bad_contents_are_refused(tmp_path: Path) -> None:
    kept = LastGoodPolicies(tmp_path / "policies.json", SEALER)
    assert kept.read(None) is None
    good, _ = policy.load(policy_directory(tmp_path, OPEN))
    assert good is not None
    kept.prepare(good)
    kept.keep()
    assert (tmp_path / "policies.json").stat().st_mode & 0o777 == 0o600
    again = kept.read(good.version)
    assert again is not None
    assert again.version == good.version
    sealed = (tmp_path / "policies.json").read_bytes()
    texts, purpose = json.dumps(good.texts).encode(), f"policies {good.version}".encode()
    written = [texts, sealed[:-1], sealed + b"x", b"", SEALER.seal(b"{", purpose), SEALER.seal(texts, b"policies")]
    written += [SEALER.seal(b"{}", b"secret"), FileSealer(b"z" * 32).seal(texts, purpose)]
    for content in written:
        (tmp_path / "policies.json").write_bytes(content)
        with pytest.raises(IntegrityError, match="are not those that held last"):
            kept.read(good.version)


@pytest.mark.attack("STO-07")
def test_a_last_good_set_that_somebody_wrote_decides_nothing(deployment: Deployment) -> None:
    async def body(app: Application) -> None:
        assert "no-mail" in {item["id"] for item in listed(app.policies.shown()["policies"])}

    deployment.write(NO_MAIL)
    deployment.up(body)
    (deployment.state / "policies.json").write_text(json.dumps({"main.cedar": OPEN}))
    deployment.write(BAD)
    with pytest.raises(IntegrityError, match="are not those that held last"):
        deployment.up(body)
    deployment.write(NO_MAIL)
    deployment.up(body)  # with a good directory they are kept anew
    deployment.write(BAD)
    deployment.up(body)


def test_policies_that_cannot_be_kept_do_not_hold_either(tmp_path: Path) -> None:
    good, _ = policy.load(policy_directory(tmp_path, OPEN))
    assert good is not None
    with pytest.raises(UnavailableError):
        LastGoodPolicies(tmp_path / "none" / "policies.json", SEALER).prepare(good)


def test_a_set_survives_being_written_as_json(tmp_path: Path) -> None:
    good, _ = policy.load(policy_directory(tmp_path, OPEN))
    assert isinstance(good, CedarPolicies)
    assert json.loads(json.dumps(good.texts)) == good.texts


@pytest.mark.attack("STO-07")
def test_an_older_set_that_somebody_put_back_decides_nothing(deployment: Deployment) -> None:
    kept = deployment.state / "policies.json"

    async def body(app: Application) -> None:
        assert "no-mail" in {item["id"] for item in listed(app.policies.shown()["policies"])}

    async def before(app: Application) -> None:
        assert app.policies.current is not None

    deployment.write(OPEN)
    deployment.up(before)
    older = kept.read_bytes()
    deployment.write(NO_MAIL)
    deployment.up(body)
    newer = kept.read_bytes()
    deployment.write(BAD)
    kept.write_bytes(older)
    with pytest.raises(IntegrityError, match="are not those that held last"):
        deployment.up(body)
    kept.write_bytes(newer)
    deployment.up(body)


def test_a_crash_between_the_record_and_the_file_goes_back_to_what_is_on_record(deployment: Deployment) -> None:
    kept = deployment.state / "policies.json"

    async def body(app: Application) -> None:
        assert "no-mail" in {item["id"] for item in listed(app.policies.shown()["policies"])}

    async def before(app: Application) -> None:
        assert app.policies.current is not None

    deployment.write(OPEN)
    deployment.up(before)
    older = kept.read_bytes()
    deployment.write(NO_MAIL)
    deployment.up(body)
    kept.replace(kept.with_suffix(".new"))
    kept.write_bytes(older)
    deployment.write(BAD)
    deployment.up(body)
    deployment.up(body)


def test_a_set_that_an_earlier_remit_kept_counts_until_one_is_on_record(deployment: Deployment) -> None:
    kept = deployment.state / "policies.json"

    async def body(app: Application) -> None:
        assert "no-mail" in {item["id"] for item in listed(app.policies.shown()["policies"])}

    async def nothing(app: Application) -> None:
        assert app.policies.current is None

    deployment.write(BAD)
    deployment.up(nothing)
    earlier = FileSealer(load_kek(deployment.state / "kek", create=False)).seal(
        json.dumps({"main.cedar": NO_MAIL}).encode(), b"policies"
    )
    kept.write_bytes(earlier)
    kept.chmod(0o600)
    deployment.up(body)
    deployment.write(NO_MAIL)
    deployment.up(body)
    kept.write_bytes(earlier)
    deployment.write(BAD)
    with pytest.raises(IntegrityError, match="are not those that held last"):
        deployment.up(body)
