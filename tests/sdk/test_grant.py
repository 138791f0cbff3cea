from __future__ import annotations

import copy
import os
import pickle
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from remit.errors import InvalidRequestError, ScopeError
from remit.sdk.grant import Credential, GrantHandle, credential_of, instant
from remit.sdk.place import Place, find
from remit.sdk.verbs import TokenResponse

PLACE = Place(Path("/run/remit/channel.sock"), "grt_1")
OPENED = TokenResponse("task_1", "grt_1", 900, [{"type": "http", "resource": "search"}])
CREDENTIAL = Credential("lse_1", datetime(2026, 1, 1, tzinfo=UTC), {"user": "remit_x", "password": "hunter2"})


def test_a_resource_has_its_url_at_the_gateway() -> None:
    outside = Place(PLACE.socket)
    assert GrantHandle(outside, OPENED).url("search") == "http://127.0.0.1:8471/search"
    assert (
        GrantHandle(Place(PLACE.socket, None, "http://127.0.0.1:9000/"), OPENED).url("search")
        == "http://127.0.0.1:9000/search"
    )


def test_in_a_run_the_url_names_the_grant() -> None:
    assert GrantHandle(PLACE, OPENED).url("search") == "http://127.0.0.1:8471/@grt_1/search"
    child = GrantHandle(PLACE, TokenResponse("task_1", "grt_2", 900, OPENED.details))
    assert child.url("search") == "http://127.0.0.1:8471/@grt_2/search"
    assert child.gateway == "http://127.0.0.1:8471/@grt_2"


def test_every_variable_that_names_the_gateway_names_the_grant(monkeypatch: pytest.MonkeyPatch) -> None:
    base = "http://127.0.0.1:8471"
    for name, value in {
        "REMIT_GATEWAY": base,
        "REMIT_URL_SEARCH": f"{base}/search",
        "OPENAI_BASE_URL": f"{base}/@grt_1/openai/v1",  # of a grant that is not held here, too: it is to be refused
        "ELSEWHERE": "http://127.0.0.1:84710/search",
        "ITS_KEY": "sk-place",
    }.items():
        monkeypatch.setenv(name, value)
    held = GrantHandle(
        find(os.environ | {"REMIT_SOCKET": "/x", "REMIT_GRANT": "grt_1"}), TokenResponse("task_1", "grt_2", 9, [])
    )
    assert held.environ() == {
        "REMIT_GATEWAY": f"{base}/@grt_2",
        "REMIT_GRANT": "grt_2",
        "REMIT_URL_SEARCH": f"{base}/@grt_2/search",
        "OPENAI_BASE_URL": f"{base}/@grt_2/openai/v1",
    }
    monkeypatch.setenv("REMIT_GATEWAY", held.gateway)  # of a process that was started with these
    assert find(os.environ | {"REMIT_SOCKET": "/x"}).gateway == base


def test_outside_a_run_no_variable_proves_a_grant() -> None:
    with pytest.raises(InvalidRequestError, match="no variable proves a grant"):
        GrantHandle(Place(PLACE.socket), OPENED).environ()


def test_a_resource_that_is_not_granted_has_no_url() -> None:
    with pytest.raises(ScopeError, match="holds nothing for `mail`"):
        GrantHandle(PLACE, OPENED).url("mail")


def test_a_grant_shows_its_id_and_resources() -> None:
    assert repr(GrantHandle(PLACE, OPENED)) == "<GrantHandle grt_1 (search)>"


def test_httpx2_is_imported_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType("httpx2")
    library.Auth = httpx.Auth  # type: ignore[attr-defined]  # stands for the other library's own
    monkeypatch.delitem(sys.modules, "httpx2", raising=False)  # other tests of this process may have it
    held = GrantHandle(PLACE, OPENED)
    assert "httpx2" not in sys.modules
    monkeypatch.setitem(sys.modules, "httpx2", library)
    assert isinstance(held.auth2, httpx.Auth)
    assert held.auth2 is held.auth2


def test_a_credential_is_read_by_attribute_and_by_item() -> None:
    assert CREDENTIAL.user == CREDENTIAL["user"] == "remit_x"


def test_a_field_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(AttributeError, match="has password, user, not `dsn`"):
        _ = CREDENTIAL.dsn


def test_a_credential_does_not_print_pickle_or_copy() -> None:
    assert "hunter2" not in repr(CREDENTIAL)
    assert "hunter2" not in f"{CREDENTIAL}"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not serialisable"):
            attempt(CREDENTIAL)


def test_an_issued_lease_is_read_from_the_answer() -> None:
    answer = {"lease": "lse_1", "expires_at": "2026-01-01T00:00:00.000Z", "credential": {"user": "u", "port": 5432}}
    read = credential_of(answer)
    assert (read.lease, read.port, read.expires_at) == ("lse_1", "5432", datetime(2026, 1, 1, tzinfo=UTC))


def test_an_instant_is_read_as_utc() -> None:
    assert instant("2026-01-01T01:00:00+01:00") == datetime(2026, 1, 1, tzinfo=UTC)
