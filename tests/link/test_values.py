"""Laws of the codec: whatever a protocol can say comes out as it went in, and nothing else comes out at all."""

from __future__ import annotations

import inspect
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit import errors
from remit.core.grant import Subject
from remit.core.principal import Holder, Human, Operator, Principal, Workload
from remit.core.request import Binding, Bounds, GrantRequest
from remit.core.scope import Access
from remit.core.secret import Secret
from remit.errors import IntegrityError, RemitError
from remit.link.frames import FrameReader, frame
from remit.link.messages import PROTOCOLS, from_authority, from_worker, method
from remit.link.values import codec, encode, failure, raised, read
from tests.broker.world import SEARCH, TABLE, details

TEXT = st.text(max_size=20)
INSTANTS = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - they get one
SUBJECTS = st.builds(Subject, TEXT, TEXT)
CLAIMS = st.dictionaries(TEXT, TEXT, max_size=3).map(MappingProxyType)
PRINCIPALS = st.one_of(
    st.builds(Operator, SUBJECTS),
    st.builds(Holder, TEXT, TEXT),
    st.builds(Human, SUBJECTS, TEXT, INSTANTS, INSTANTS, TEXT, st.none() | TEXT),
    st.builds(Workload, TEXT, TEXT, INSTANTS, CLAIMS),
)
ERRORS = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, RemitError)]
FAILURES = st.builds(
    lambda kind, detail, wide, enough, later: kind(detail, offending=wide, enough=enough, retry_after=later),
    st.sampled_from(ERRORS),
    TEXT.filter(bool),
    st.lists(st.dictionaries(TEXT, st.integers(0, 9) | TEXT, max_size=2), max_size=2),
    st.none() | st.dictionaries(TEXT, TEXT, max_size=2),
    st.none() | st.integers(0, 99),
)
REQUESTS = st.builds(
    GrantRequest,
    st.sampled_from([details(SEARCH), details(TABLE, SEARCH)]),
    st.builds(Bounds, st.none() | st.timedeltas(timedelta(0), timedelta(days=1)), st.integers(0, 9)),
    st.builds(Binding, st.none() | TEXT, st.none(), st.none() | TEXT, st.just(()) | st.just((("a", "b"),))),
    TEXT,
    TEXT,
)


def _there_and_back(kind: object, value: object) -> object:
    return read(kind, msgspec.msgpack.decode(encode(codec(kind).write(value))))


@given(PRINCIPALS)
def test_a_principal_comes_back_as_who_it_was(principal: Principal) -> None:
    back = _there_and_back(Principal, principal)
    assert type(back) is type(principal)
    assert back == principal


@given(REQUESTS)
def test_a_request_comes_back_as_it_was(request: GrantRequest) -> None:
    assert _there_and_back(GrantRequest, request) == request


@given(FAILURES)
def test_an_error_comes_back_as_it_was(error: RemitError) -> None:
    for back in (_there_and_back(RemitError, error), raised(failure(error))):
        assert type(back) is type(error)
        assert isinstance(back, RemitError)
        assert (back.detail, back.help, back.retry_after) == (error.detail, error.help, error.retry_after)
        assert (list(back.offending), back.enough) == (list(error.offending), error.enough)


@given(st.one_of(st.binary(max_size=9), TEXT, st.dictionaries(TEXT, st.binary(max_size=9), max_size=3)))
def test_a_secret_comes_back_as_it_was(value: str | bytes | dict[str, bytes]) -> None:
    assert _there_and_back(Secret, Secret(value)) == Secret(value)


def test_an_error_of_an_edge_s_own_crosses_as_the_class_that_all_know() -> None:
    class StrangeError(errors.UpstreamError):
        """Only one process knows this."""

    back = raised(failure(StrangeError("what was said")))
    assert (type(back), back.detail) == (errors.UpstreamError, "what was said")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXT | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)
NAMES = sorted({n for port in PROTOCOLS for n, _ in inspect.getmembers(port, inspect.iscoroutinefunction)})


@given(st.sampled_from(NAMES), st.lists(PLAIN, max_size=5))
def test_whatever_arguments_a_call_has_they_are_read_or_refused(name: str, values: list[object]) -> None:
    with suppress(RemitError):
        assert method(name).arguments(values).keys() == method(name).parameters.keys()


@given(st.binary(max_size=200))
def test_whatever_bytes_a_message_has_it_is_read_or_refused(data: bytes) -> None:
    for decode in (from_worker, from_authority):
        with suppress(IntegrityError):
            decode(data)


@given(st.lists(st.binary(max_size=50), max_size=8), st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_frames_come_out_whole_however_they_were_cut(sent: list[bytes], cuts: list[int]) -> None:
    data, frames, found = b"".join(map(frame, sent)), FrameReader(1_000), list[bytes]()
    at = 0
    for cut in [*cuts, len(data)]:
        found += frames.feed(data[at : at + cut])
        at += cut
    assert found == sent


def test_a_frame_beyond_the_bound_is_refused_by_its_length_alone() -> None:
    frames = FrameReader(100)
    assert frames.feed(frame(b"x" * 90)[:50]) == []
    with pytest.raises(IntegrityError):
        FrameReader(100).feed((101).to_bytes(4, "big"))


def test_the_arguments_of_an_access_stay_where_they_were_judged() -> None:
    access = Access("search", "GET", "/v1/x", {"body.t": "x" * 400_000})
    assert _there_and_back(Access, access) == Access("search", "GET", "/v1/x")


def test_what_cannot_be_sent_is_refused_where_it_was_said() -> None:
    asked = method("deny")
    for odd in (Access("x", "\ud800"), Access("x", "y" * (1 << 18))):
        with pytest.raises(errors.InvalidRequestError):
            asked.call(1, asked.bound(["grt_1", odd, RemitError("no")], {}))
