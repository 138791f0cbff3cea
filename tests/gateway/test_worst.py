"""The largest inputs that an edge takes, as bad as they are known to get: what each costs at one go, by the thread.

``pytest -s`` prints the figures. The bound is that of the design; what is asserted is best of three, as CPU of the
thread, so that a busy machine fails nothing.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import random
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from wsproto.frame_protocol import FrameProtocol

from remit import catalog
from remit.core import scope
from remit.errors import RemitError
from remit.gateway import canon, framing
from remit.gateway.authorize import HttpRequest, authorize, compile_rules
from remit.gateway.conversation import Conversation
from remit.gateway.downstream import Placeholders
from remit.gateway.encodings import STEP
from remit.gateway.framing import MAX_FIELDS, MAX_HEAD, MAX_TARGET
from remit.gateway.http2 import Streams
from remit.gateway.http2_upstream import UpstreamStreams
from remit.gateway.patterns import SecretPatterns
from remit.gateway.response import Delivery, ResponseBody, ResponsePlan, TaskTurns
from remit.gateway.scrub import Meter, Scrubber
from remit.gateway.target import MAX_BODY, HttpTarget
from remit.gateway.upload import PIECE
from remit.gateway.upstream import ResponseReceiver, UpstreamConnection
from remit.gateway.websocket import WebSocket
from remit.ports import Resource
from tests.gateway.mcp import talk
from tests.gateway.playbook import Line, SecureLine, play
from tests.gateway.rig import ALL, PLACEHOLDER, SECRET, http
from tests.gateway.test_stdio import session

BOUND = 0.050  # seconds: what one callback of an edge may take
RANDOM = random.Random(7)  # noqa: S311 - the same inputs in each run
BYTES = RANDOM.randbytes(MAX_BODY)
SIGNS = b"ABCDEFabcdefghij0123456789+/%=&\\x"
MARKS = (  # of which each may be the beginning of something
    *(
        b"%",
        b"\\u00",
        b"\\x",
        b"&#",
        b"&#x",
        b"&amp;",
        b"=",
        b"==",
        b"=\r\n",
        b"\r",
        b"\n",
        b"\\n",
        b"0x",
        b" ",
        b"H4sI",
    ),
    *(b"\x1f\x8b\x08", b"\x78\x9c", b"A" * 21, b"A" * 22, b"f" * 31, b"f" * 32, b"\n00000000  "),
)
SHARED = SecretPatterns([SECRET.encode(), PLACEHOLDER.encode()])


def cost(act: Callable[[], object]) -> float:
    """Return the seconds that a thread needs, best of three; what is refused has been looked at."""
    return min(_turn(act) for _ in range(3))


def _turn(act: Callable[[], object]) -> float:
    before = time.thread_time()
    with suppress(RemitError):
        act()
    return time.thread_time() - before


def within(costs: Mapping[str, float]) -> None:
    dearest = max(costs, key=costs.__getitem__)
    sys.stdout.write(f"\n{len(costs)} inputs, the dearest: {dearest}, {costs[dearest] * 1000:.1f} ms\n")
    assert costs[dearest] < BOUND, dearest


def _dumped(data: bytes) -> bytes:
    lines = range(0, len(data), 16)
    return b"\n".join(b"%08x  %b" % (at, data[at : at + 16].hex(" ").encode()) for at in lines)


def _marked(count: int) -> Iterable[bytes]:
    for _ in range(count):
        pick = RANDOM.random()
        if pick < 0.6:
            yield RANDOM.choice(MARKS)
        else:
            yield RANDOM.randbytes(8) if pick < 0.8 else base64.b64encode(RANDOM.randbytes(RANDOM.randrange(40)))


def texts(size: int) -> dict[str, bytes]:
    """Return texts in which there is much to undo, and no secret."""
    dense = bytes(RANDOM.choices(SIGNS, k=size))
    raw = BYTES[:size]
    made = {
        "bytes": raw,
        "marks among bytes": b"".join(_marked(size // 12)),
        "signs": dense,
        "signs in base64": base64.b64encode(dense),
        "base64 three times": base64.b64encode(base64.b64encode(base64.b64encode(raw))),
        "hex three times": raw.hex().encode().hex().encode().hex().encode(),
        "base64 of hex of base64": base64.b64encode(base64.b64encode(raw).hex().encode()),
        "base64 of entities": base64.b64encode(b"&amp;#97;" * (size // 9)),
        "base64 of a dump": base64.b64encode(_dumped(raw)),
        "a dump": _dumped(raw),
        "short runs of base64": b" ".join(base64.b64encode(raw[at : at + 17])[:22] for at in range(0, size, 17)),
        "almost runs": (b"a" * 21 + b" ") * (size // 22),
        "entities": b"&#97;" * (size // 5),
        "entities of entities": b"&amp;amp;amp;" * (size // 13),
        "entities without end": b"&#" + b"0" * size,
        "beginnings of entities": b"&#0" * (size // 3),
        "percent of percent": b"%2525" * (size // 5),
        "percent signs": b"%" * size,
        "quoted-printable": b"=3D3D41" * (size // 7),
        "backslashes": b"\\u005c" * (size // 6),
        "marks of numbers": b"0x" * (size // 2),
        "one letter": b"a" * size,
        "lines": b"\n" * size,
        "blanks in a dump": b"\n0000" + b" \t" * (size // 2),
        "almost a dump": (b"\n00000000  " + b"00 " * 15 + b"0") * (size // 57),
        "beginnings of zlib": b"\x78\x9c" * (size // 2),
        "gzip in gzip": gzip.compress(b"A" * size + gzip.compress(b"A" * size)),
        "a guess": (SECRET[:-1].encode() + b" ") * (size // len(SECRET)),
    }
    return {name: text[:size] for name, text in made.items()}


def bodies() -> dict[str, bytes]:
    """Return the dearest JSON that is read, or refused after a look."""
    room = MAX_BODY - 20
    wide = {f"k{number}": "v" * 240 for number in range(1_000)}
    return {
        "text": b'{"t":"' + b"x" * room + b'"}',
        "escapes": b'{"t":"' + b"\\u0041" * (room // 6) + b'"}',
        "quotes": b'{"t":"' + b'\\"' * (room // 2) + b'"}',
        "commas": b'{"t":"' + b'","' * (room // 3) + b'"}',
        "accents": ('{"t":"' + "\u00e9" * (room // 2) + '"}').encode(),
        "values": json.dumps(wide).encode(),
        "names": json.dumps({f"{'n' * 120}{number}": "v" * 120 for number in range(1_000)}).encode(),
        "digits": json.dumps({f"k{number}": 10**127 for number in range(1_000)}).encode(),
        "fractions": b"{" + b",".join(b'"k%d":0.%b' % (number, b"9" * 240) for number in range(1_000)) + b"}",
        "lists": b"[" + b",".join([b"[[[]]]"] * 1_000) + b"]" + b" " * 200_000,
        "brackets": b"[" * MAX_BODY,
        "blanks": b'{"t":1' + b" " * room + b"}",
    }


def target(**settings: object) -> HttpTarget:
    bound = scope.parse([ALL])
    return HttpTarget(Resource("api", "http", "https://api.test", bound, None, settings), catalog.load()["openai"])


@pytest.mark.attack("DOS-07")
def test_judging_the_largest_body() -> None:
    fields = framing.request_fields(b"Host: a\r\nContent-Type: application/json")
    rules = compile_rules(
        scope.parse([http(actions=["POST"], paths=["/**"], args={f"body.k{n}": "any"}) for n in range(16)]), "api"
    )
    there, request = target(), canon.target("api", b"/v1/x", None)

    def judge(body: bytes) -> Callable[[], object]:
        return lambda: authorize(rules, there, HttpRequest("POST", request, fields, has_body=True, body=body))

    within({name: cost(judge(body)) for name, body in bodies().items()})


def heads() -> Iterable[tuple[str, bytes, bytes]]:
    """Yield targets and header sections, each as large as it may be."""
    per = (MAX_HEAD - MAX_TARGET - 200) // (MAX_FIELDS - 2)
    plain = b"\r\n".join(b"x-%d: %b" % (n, b"v" * (per - 9)) for n in range(MAX_FIELDS - 2))
    for name, text in texts(MAX_HEAD).items():
        value = bytes(c if 32 < c < 127 else 45 for c in text)
        lines = [value[at : at + per - 9] for at in range(0, len(value), per - 9)][: MAX_FIELDS - 2]
        block = b"Host: a\r\n" + b"\r\n".join(b"x-%d: %b" % (n, line) for n, line in enumerate(lines))
        yield name, b"/api/v1/x?q=" + b"x" * 8_000, block
    query = b"&".join(b"a%d=%%41%%42" % n for n in range(canon.MAX_PAIRS))
    yield "a query", b"/api/v1/x?" + query, b"Host: a\r\n" + plain
    yield "a path", b"/api/v1" + b"/%C3%A9" * 1_100, b"Host: a\r\n" + plain
    yield "segments", b"/api" + b"/a" * 4_000, b"Host: a\r\n" + plain
    yield "batch", b"/api/batch" + b"/a" * 4_000, b"Host: a\r\n" + plain
    yield "a connection", b"/api/x", b"Host: a\r\nConnection: " + b"," * 30_000


@pytest.mark.attack("DOS-07")
@pytest.mark.parametrize("args", ["any", {"query.q": "any", "header.x-1": "any"}])
def test_reading_and_judging_the_largest_head(args: object) -> None:
    wide = [f"/v{number}/*/**" for number in range(255)]
    rules = compile_rules(scope.parse([http(paths=["/**", *wide], args=args)]), "api")
    there, given = target(), Placeholders({f"r{n}": f"{PLACEHOLDER}{n}" for n in range(32)})

    def take(raw: bytes, block: bytes) -> None:
        fields = framing.request_fields(block)
        path, _, query = raw.removeprefix(b"/api").partition(b"?")
        given.check_head(fields, raw, there)
        canon.path.cache_clear()
        catalog.plain.cache_clear()
        authorize(rules, there, HttpRequest("GET", canon.target("api", path, query or None), fields, has_body=False))

    within({name: cost(partial(take, raw, block)) for name, raw, block in heads()})


@pytest.mark.attack("DOS-06")
def test_searching_the_largest_head_of_an_answer() -> None:
    within({name: cost(partial(SHARED.check, text)) for name, text in texts(MAX_HEAD).items()})


@pytest.mark.attack("DOS-06")
@pytest.mark.parametrize("coding", [None, b"gzip", b"deflate"])
def test_a_turn_of_the_dearest_answer(coding: bytes | None) -> None:
    line = b"" if coding is None else b"\r\nContent-Encoding: " + coding
    plan = ResponsePlan(*framing.response_head(b"HTTP/1.1 200 OK\r\nX: y" + line), has_body=True)
    packings: Mapping[bytes | None, Callable[[bytes], bytes]] = {
        None: bytes,
        b"gzip": gzip.compress,
        b"deflate": zlib.compress,
    }
    costs = {}
    for name, text in texts(262_144).items():
        body = ResponseBody(SHARED, plan)
        turns = [_turn(partial(body.feed, packings[coding](text), done=True))]
        while body.busy and len(turns) < 40:
            turns.append(_turn(body.more))
        costs[name] = max(sorted(turns)[:-1] or turns)  # one was disturbed, perhaps
    within(costs)


@pytest.mark.attack("DOS-17")
def test_a_turn_of_the_dearest_messages_of_a_websocket() -> None:
    client, costs = FrameProtocol(client=True, extensions=[]), {}
    floods = {"empty pings": client.ping(), "empty messages": client.send_data(), "letters": client.send_data("x")}
    for name, flood in {**floods, **{name: client.send_data(text) for name, text in texts(4_096).items()}}.items():
        sent = WebSocket(SHARED, SHARED).sent
        data = bytes(flood) * (PIECE // len(flood) + 1)
        turns = [_turn(partial(sent.feed, data[:PIECE]))]
        while sent.more and len(turns) < 40:
            turns.append(_turn(partial(sent.feed, b"")))
        costs[name] = max(sorted(turns)[:-1] or turns)  # one was disturbed, perhaps
    within(costs)


@pytest.mark.attack("DOS-06")
def test_a_piece_of_the_dearest_upload() -> None:
    def feed(text: bytes) -> Callable[[], object]:
        return lambda: Scrubber(SHARED, meter=Meter(MAX_BODY)).feed(text)

    within({name: cost(feed(text)) for name, text in texts(PIECE).items()})
    assert PIECE >= STEP


@pytest.mark.attack("DOS-06")
@pytest.mark.parametrize("judged", [False, True])
def test_an_upload_that_comes_at_once_is_searched_a_piece_a_turn(*, judged: bool) -> None:
    text = texts(MAX_BODY)["signs"].replace(b'"', b"-").replace(b"\\", b"-")
    data = b'{"t":"' + text[: MAX_BODY - 8] + b'"}'
    head = b"POST /api/v1/public/a HTTP/1.1\r\nHost: gw\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"

    async def scene() -> None:
        async with play(http(actions=["GET", "POST"], args={"body.t": "any"} if judged else "any")) as p:
            dearest = _turn(lambda: p.client.data_received(head % len(data) + data))
            sent, most = 0, 0
            while sent <= len(data):
                before = time.thread_time()
                await asyncio.sleep(0)
                dearest = max(dearest, time.thread_time() - before)
                if p.lines:
                    most, sent = max(most, len(p.lines[-1][1].out) - sent), len(p.lines[-1][1].out)
            assert judged or most <= MAX_BODY // 4
            said = bytes(p.lines[-1][1].out)
            assert said.endswith(data)
            sys.stdout.write(f"\nthe dearest turn: {dearest * 1000:.1f} ms\n")
            assert dearest < 2 * BOUND  # not the best of several
            await p.upstream_says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert p.client_hears().endswith(b"ok")

    asyncio.run(scene())


def _flood_of_http2(name: str) -> bytes:
    """Return what a client says that asks and takes it back, again and again, or that says nothing of use."""
    client = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
    client.initiate_connection()
    usual = [(":method", "GET"), (":scheme", "https"), (":authority", "gw"), (":path", "/api/v1/public/a")]
    more = {
        "headers of a byte each": [("a", "b" * 4_000)] * 7,
        "many headers": [(f"x-{number}", "y") for number in range(700)],
        "a long value": [("a", "%41" * 9_000)],
        "usual headers": [],
    }
    for _ in range(50):
        if name in more:
            number = client.get_next_available_stream_id()
            client.send_headers(number, [*usual, *more[name]], end_stream=True)
            client.reset_stream(number)
    return client.data_to_send() + FLOODS.get(name, b"")


def _frame(kind: int, flags: int, stream: int, data: bytes = b"") -> bytes:
    return len(data).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + data


FLOODS = {
    "pings": _frame(6, 0, 0, bytes(8)) * 2_000,
    "settings": _frame(4, 0, 0) * 4_000,
    "settings of all kinds": b"".join(
        _frame(4, 0, 0, b"".join((number + at).to_bytes(2) + bytes(4) for at in range(2_730)))
        for number in range(256, 60_000, 2_730)
    ),
    "a header list of a mebibyte": _frame(1, 1, 1, b"\0\x01a\xff\x80\x80\x3f")
    + _frame(9, 0, 1, b"\xff" * 16_384) * 58
    + _frame(9, 4, 1, b"\xff" * 16_384),
}


@pytest.mark.attack("DOS-17")
@pytest.mark.parametrize("name", ["headers of a byte each", "many headers", "a long value", "usual headers", *FLOODS])
def test_a_turn_of_the_dearest_frames_of_http_2(name: str) -> None:
    costs: dict[str, float] = {}

    async def scene() -> None:
        async with play(http()) as p:
            for again in range(3):
                line = Line()
                p.client._transport = line
                streams, data = Streams(p.client, line, p.rig.gateway.connections), _flood_of_http2(name)
                turns = [_turn(partial(streams.receive, data))]
                while streams._due and len(turns) < 200:
                    turns.append(_turn(streams._read))
                costs[f"{name}, {again}"] = ([0.0, 0.0, *sorted(turns)])[-3]  # two are those of the garbage collector
                streams.lost()

    asyncio.run(scene())
    within({name: min(costs.values())})


def _flood_of_an_upstream(name: str, heard: bytes, streams: int) -> bytes:
    """Return what an upstream says of HTTP/2 to whom it has heard, as dearly as it can."""
    server = H2Connection(H2Configuration(client_side=False, validate_outbound_headers=False))
    server.initiate_connection()
    server.receive_data(heard)
    said = server.data_to_send()
    texts_ = texts(65_000)
    more = {
        "many headers": [(f"x-{number}", "y") for number in range(90)],
        "a long value": [("a", "%41" * 9_000)],
        "headers of a byte each": [("a", "b" * 4_000)] * 7,
    }
    for number in range(1, 2 * streams, 2):
        server.send_headers(number, [(":status", "200"), *more.get(name, [])])
        if name in texts_:
            for at in range(0, len(texts_[name]), 16_384):
                with suppress(ProtocolError):  # the connection's window has an end
                    server.send_data(number, texts_[name][at : at + 16_384])
    return said + server.data_to_send() + FLOODS.get(name, b"")


@pytest.mark.attack("DOS-17")
@pytest.mark.parametrize(
    "name",
    ["many headers", "a long value", "headers of a byte each", *FLOODS, "bytes", "marks among bytes", "entities"],
)
def test_a_turn_of_the_dearest_answers_of_http_2(name: str) -> None:
    costs: dict[str, float] = {}

    async def scene() -> None:
        async with play(http()) as p:
            for again in range(3):
                line, taken = SecureLine(), TaskTurns(asyncio.get_running_loop())
                streams = UpstreamStreams(p.rig.pool, taken, "task")
                streams.connection_made(line)
                taken._scheduled = True  # here, and not by the loop
                streams.data_received(_frame(4, 0, 0))
                readers = [UpstreamConnection(p.rig.pool) for _ in range(20)]
                for reader in readers:
                    streams.open(reader)
                    reader.begin(Taking(SecretPatterns([SECRET.encode()])), b"GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n")
                turns = [_turn(partial(streams.data_received, _flood_of_an_upstream(name, line.take(), 20)))]
                while taken._due and len(turns) < 2_000:
                    turns.append(_turn(taken._one))
                    taken._scheduled = True
                costs[f"{name}, {again}"] = ([0.0, 0.0, *sorted(turns)])[-3]  # two are those of the garbage collector
                streams.connection_lost(None)

    asyncio.run(scene())
    within({name: min(costs.values())})


class Taking(ResponseReceiver):
    """Takes an answer, searched."""

    def __init__(self, patterns: SecretPatterns) -> None:
        self.method, self.grant, self.opening, self._patterns = "GET", None, None, patterns

    def on_head(self, plan: ResponsePlan, whole: bytes | None) -> tuple[Delivery, bool]:  # noqa: ARG002 - in pieces
        turns = TaskTurns(asyncio.get_running_loop())
        turns._scheduled = True
        return Delivery(Nobody(), ResponseBody(self._patterns, plan), [], turns, "task"), True

    def on_switch(self, plan: ResponsePlan) -> Delivery:
        raise NotImplementedError

    def on_end(self) -> None: ...
    def on_failure(self, error: RemitError) -> None: ...
    def on_writable(self, *, writable: bool) -> None: ...


class Nobody:
    """Wants no answer."""

    def deliver(self, data: bytes) -> None: ...
    def hold_upstream(self, *, hold: bool) -> None: ...
    def delivered(self) -> None: ...
    def cut(self, error: RemitError) -> None: ...


async def _turns_until(done: asyncio.Future[object]) -> float:
    """Return the dearest turn of the loop until something has come."""
    turns = [0.0]
    while not done.done():
        before = time.thread_time()
        await asyncio.sleep(0)
        turns.append(time.thread_time() - before)
    done.result()
    return max(turns)


LINES = {
    "empty lines": b"\n",
    "lines that are no messages": b"{}\n",
    "answers to nothing": b'{"jsonrpc":"2.0","id":1,"result":{}}\n',
    "notifications that nobody knows": b'{"jsonrpc":"2.0","method":"notifications/x"}\n',
    "objects": b'{"jsonrpc":"2.0","id":1,"result":{"tools":[%b{}]}}\n' % (b"{}," * 600_000),
    "lists": b'{"jsonrpc":"2.0","id":1,"result":{"x":[%b0]}}\n' % (b'{"a":[]},' * 200_000),
    "digits": b'{"jsonrpc":"2.0","id":1,"result":{"x":[%b0]}}\n' % (b"%b," % (b"9" * 4_200) * 400),
    "fractions": b'{"jsonrpc":"2.0","id":1,"result":{"x":0.%b}}\n' % (b"9" * 2_000_000),
}


@pytest.mark.attack("DOS-17")
@pytest.mark.parametrize(("by", "name"), [("client", "answers to nothing"), *(("server", name) for name in LINES)])
def test_a_turn_of_the_dearest_lines_of_a_session(tmp_path: Path, by: str, name: str) -> None:
    async def scene(folder: Path) -> float:
        async with session(folder) as s:
            line = LINES[name]
            flooding, other = (s.client, s.server) if by == "client" else (s.server, s.client)
            flooding.writer.write(line * (262_144 // len(line) + 1))
            if by == "client":
                await s.asked("last", "ping")
            else:
                await s.server.say({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})
            return await _turns_until(asyncio.ensure_future(other.hears()))

    folders = [tmp_path / again for again in "abc"]
    for folder in folders:
        folder.mkdir()
    within({f"{name}, of the {by}": min(asyncio.run(scene(folder)) for folder in folders)})


def _listed(text: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"result":{"tools":[%b]}}' % b",".join([text] * (4_000_000 // (len(text) + 1)))


ANSWERS = {
    "ids": (True, b"id:1\n\n" * 40_000),
    "long ids": (True, b"id:%b\n\n" % (b"1" * 1_000) * 200),
    "comments": (True, b":\n\n" * 80_000),
    "comments in one event": (True, b":\n" * 120_000),
    "data that is no message": (True, b"data:1\n\n" * 30_000),
    "notifications": (True, b'data:{"jsonrpc":"2.0","method":"notifications/x"}\n\n' * 5_000),
    "line ends": (True, b"\n" * 262_144),
    "an event of empty data": (True, b"data\n" * 50_000 + b"\n"),
    "a line without end": (True, b"data:" + b"x" * 4_000_000),
    "an event of objects": (True, b"data:" + _listed(b'{"a":[]}') + b"\n\n"),
    "objects": (False, _listed(b'{"a":[]}')),
    "empty objects": (False, _listed(b"{}")),
    "tools": (False, _listed(b'{"name":"open","description":"%b"}' % (b"x" * 100))),
    "digits": (False, _listed(b"9" * 4_200)),
    "a fraction": (False, _listed(b"0." + b"9" * 3_900_000)),
    "brackets": (False, b"[" * 4_000_000),
    "escapes": (False, _listed(b'"%b"' % (b"\\u0041" * 600_000))),
    "quotes": (False, b'"' * 4_000_000),
}


@pytest.mark.attack("DOS-17")
@pytest.mark.parametrize("name", ANSWERS)
def test_a_turn_of_the_dearest_answer_of_a_server_of_mcp(name: str) -> None:
    streamed, said = ANSWERS[name]
    content = b"text/event-stream" if streamed else b"application/json"
    plan = ResponsePlan(*framing.response_head(b"HTTP/1.1 200 OK\r\nContent-Type: " + content), has_body=True)

    async def scene() -> float:
        loop = asyncio.get_running_loop()
        rules = talk.rules({"actions": ["tools/call"], "tools": {"open": "any"}})
        talk_ = Conversation(rules, target(), "gr_1", b"k" * 32, "", talk.everything)
        body = talk_.answer(plan.heads[0], plan, SHARED, lambda _, work: loop.run_in_executor(None, work))
        dearest = 0.0
        for at in range(0, len(said), 262_144):
            step: Callable[[], bytes] = partial(body.feed, said[at : at + 262_144], done=at + 262_144 >= len(said))
            while True:
                before = time.thread_time()
                try:
                    step()
                except RemitError:
                    return max(dearest, time.thread_time() - before)
                dearest = max(dearest, time.thread_time() - before)
                if not body.busy:
                    break
                ready = asyncio.Event()
                body.when_ready(ready.set)
                await ready.wait()
                step = body.more
        return dearest

    within({name: min(asyncio.run(scene()) for _ in range(3))})
