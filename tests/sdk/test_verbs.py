from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from remit.broker import broker as broker_module
from remit.errors import InvalidRequestError, NotFoundError, UpstreamError
from remit.sdk import Bounds, Client, Place, detail, verbs
from remit.sdk._wire import Flow
from tests.sdk.plane import Served

DEEP = Bounds("15m", depth=2, fan_out=2)


@pytest.fixture
def root(client: Client) -> verbs.TokenResponse:
    """Open a task without a key, as the command line does."""
    return client.run(verbs.open_task("draft", ["search", "warehouse"], DEEP))


def test_a_task_without_a_key_has_no_token(plane: Served, root: verbs.TokenResponse) -> None:
    assert root.token is None
    assert plane.broker._tasks.check(root.grant).grant.binding.jkt is None


def test_a_task_lasts_a_quarter_of_an_hour_unless_said(client: Client) -> None:
    opened = client.run(verbs.open_task("draft", ["search"], Bounds()))
    assert opened.expires_in == 900


def test_bounds_are_passed_on_as_they_were_asked(plane: Served, root: verbs.TokenResponse, client: Client) -> None:
    bounds = Bounds("2m", depth=1, fan_out=1, exercise=False)
    child = client.run(verbs.delegate(root.grant, root.details, ["search"], bounds, "x" * 200))
    granted = plane.broker._tasks.check(child.grant).grant
    assert (granted.bounds.depth, granted.bounds.fan_out, granted.bounds.exercise) == (1, 1, False)
    assert granted.label == "x" * 200
    assert child.expires_in == 120


def test_a_label_that_is_too_long_is_refused_and_not_cut(root: verbs.TokenResponse, client: Client) -> None:
    with pytest.raises(InvalidRequestError, match="`label` must be printable text of at most 200 characters"):
        client.run(verbs.delegate(root.grant, root.details, ["search"], Bounds(), "x" * 201))


def test_the_bounds_of_resources_are_asked_for_once_each(client: Client) -> None:
    known = client.run(verbs.known_bounds(["search", detail("search", paths=["/v1/a"]), {"type": "http"}]))
    assert [item["resource"] for item in known] == ["search"]


def test_any_node_is_found_with_its_task(root: verbs.TokenResponse, client: Client) -> None:
    lease = client.run(verbs.issue(root.task, root.grant, "warehouse", root.details))["lease"]
    for node in (root.task, root.grant, lease):
        assert client.run(verbs.find(node))["task"] == root.task


def test_a_node_that_nobody_knows_is_not_found(client: Client) -> None:
    with pytest.raises(NotFoundError, match="no `grt_x`"):
        client.run(verbs.find("grt_x"))


def test_the_details_of_a_grant_are_read_from_its_task(root: verbs.TokenResponse, client: Client) -> None:
    document = client.run(verbs.task(root.task))
    assert verbs.details_of(document, root.grant) == root.details
    with pytest.raises(NotFoundError):
        verbs.details_of(document, "grt_other")


def test_whatever_has_an_id_can_be_ended(plane: Served, root: verbs.TokenResponse, client: Client) -> None:
    child = client.run(verbs.delegate(root.grant, root.details, ["search"], Bounds()))
    lease = client.run(verbs.issue(root.task, root.grant, "warehouse", root.details))["lease"]
    for node in (lease, child.grant, root.task):
        assert client.run(verbs.end(node)).state == "closed"
    assert plane.world.target.accounts == {}


@pytest.mark.parametrize("node", ["", "grt", "usr_1", "../x"])
def test_what_is_no_id_is_not_sent(client: Client, node: str) -> None:
    with pytest.raises(InvalidRequestError, match="is not an id"):
        client.run(verbs.end(node))


def test_a_resource_is_put_read_and_removed(client: Client) -> None:
    body = {
        "kind": "http",
        "destination": "https://docs.example",
        "bound": [{"type": "http", "resource": "docs", "actions": ["GET"], "paths": ["/**"]}],
        "settings": {},
    }
    assert client.run(verbs.put_resource("docs", body))["secret"] is False
    client.run(verbs.put_secret("docs", "docs", "sk-docs-0123456789"))
    assert client.run(verbs.resource("docs"))["secret"] is True
    assert "docs" in [item["resource"] for item in client.run(verbs.resources())]
    client.run(verbs.delete_resource("docs"))
    with pytest.raises(NotFoundError):
        client.run(verbs.resource("docs"))


def test_the_log_is_read_in_pages(client: Client, root: verbs.TokenResponse) -> None:
    size = client.run(verbs.audit())["size"]
    assert [entry["seq"] for entry in client.run(verbs.entries(1, 2))] == [1, 2]
    assert client.run(verbs.entries(size)) == []
    assert root.grant in {entry["grant"] for entry in client.run(verbs.entries(0))}


def test_proofs_and_checkpoints_are_asked_for(client: Client, root: verbs.TokenResponse) -> None:
    del root
    size = client.run(verbs.audit())["size"]
    assert client.run(verbs.checkpoint()).splitlines()[1] == str(size)
    assert client.run(verbs.inclusion(0, size))["proof"]
    assert client.run(verbs.consistency(1, size))["to"] == size


# -- answers that are not as they should be --------------------------------------------------------------------------


def answered(flow: Flow[object], answer: httpx.Response) -> object:
    with Client(Place(Path("/nowhere")), transport=httpx.MockTransport(lambda _: answer)) as client:
        return client.run(flow)


FLOWS: list[Callable[[], Flow[object]]] = [verbs.own, partial(verbs.close, "t"), partial(verbs.revoke_lease, "l")]


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("body", [{}, {"task": "task_1"}, []])
def test_an_answer_that_lacks_a_field_is_one_clear_error(flow: Callable[[], Flow[object]], body: object) -> None:
    with pytest.raises(UpstreamError, match="lacks a field"):
        answered(flow(), httpx.Response(200, json=body))


def test_ids_are_escaped_in_paths() -> None:
    call = next(verbs.task("../resources?x"))
    assert call.path == "/v1/tasks/..%2Fresources%3Fx"


def test_no_token_shows_in_what_was_opened() -> None:
    opened = verbs.TokenResponse("task_1", "grt_1", 1, [], token="secret-token")
    assert "secret-token" not in repr(opened)


def test_a_task_of_many_pages_is_read_whole(
    root: verbs.TokenResponse, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        client.run(verbs.delegate(root.grant, root.details, ["search"], Bounds("2m"), "part"))
    lease = client.run(verbs.issue(root.task, root.grant, "warehouse", root.details))["lease"]
    whole = client.run(verbs.task(root.task))
    monkeypatch.setattr(broker_module, "PAGE_SIZE", 1)
    again = client.run(verbs.task(root.task))
    assert again == whole
    assert len(again["grants"]) == 3
    assert [each["lease"] for each in again["leases"]] == [lease]
