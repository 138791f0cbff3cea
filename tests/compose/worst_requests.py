"""The dearest requests for every route, made from the description of the API.

The description is held against the table of routes by ``tests/attacks/test_api_described.py``, so that no route and no
field is forgotten here.
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import quote_plus, urlencode

from remit.core.principal import JWT_SPIFFE
from remit.jose.strict import SPARSE
from remit.web.wire import MAX_BODY, MAX_FIELDS
from tests.attacks.described import SPEC
from tests.oauth.consent_driver import DEVICE
from tests.oauth.plane import EXCHANGE, b64
from tests.support.worst import Raw, anything, texts

FORM, JSON = "application/x-www-form-urlencoded", "application/json"
ROOM = MAX_BODY - 1_500  # bytes of one field, beside the small ones
HEAD = 60_000  # bytes of a path, a query or a header
TOKENS = re.compile(r"token|assertion|proof|hint|_cnf$")  # fields that are read as a JWT, or for one
RARE = "/:?@!$'()*,;[]{}\"<>\\^`|~-._"  # what forms need not escape
SCOPED = frozenset({"authorization_details", "bound", "detail", "open", "delegate"})
ALSO: Mapping[str, Sequence[str]] = {  # fields that are needed, where that depends on others
    "POST /oauth/bc-authorize": ("client_assertion", "client_assertion_type", "login_hint"),
    "POST /oauth/device_authorization": ("client_id",),
    "POST /v1/approvals": ("depth",),  # which exceeds the grant's own, so that a human has to decide
    "POST /v1/approvals/{approval}/approve": ("id_token",),
    "POST /v1/approvals/{approval}/deny": ("id_token",),
}
ONE_OF: Mapping[str, Sequence[str]] = {"POST /v1/runs": ("open", "delegate", "grant")}
NOTHING: Raw = {}
SAFE = re.compile(rb"[^!-~]|[\"#<>\\^`{|}]")  # what has no place in a path or a query


class Request(typing.NamedTuple):
    """A request without what proves who sends it."""

    shape: str
    method: str
    path: str
    body: bytes = b""
    media: str = ""
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Operation:
    """What the description says of a route."""

    method: str
    path: str
    who: str
    names: tuple[str, ...] = ()  # of what its path holds
    query: tuple[str, ...] = ()
    media: str = ""
    fields: Mapping[str, typing.Any] = field(default_factory=dict)
    needed: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.method} {self.path}"


def _followed(part: typing.Any) -> typing.Any:
    while "$ref" in part:
        found: typing.Any = SPEC
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def operations() -> Iterator[Operation]:
    """Yield every route there can be."""
    for path, item in SPEC["paths"].items():
        for method, said in item.items():
            given = [*map(_followed, said.get("parameters", []))]
            content = _followed(said.get("requestBody", NOTHING)).get("content", NOTHING)
            media, schema = next(((name, _followed(each["schema"])) for name, each in content.items()), ("", NOTHING))
            yield Operation(
                method.upper(),
                path,
                said["x-remit-who"],
                tuple(re.findall(r"\{(\w+)\}", path)),
                tuple(each["name"] for each in given if each["in"] == "query"),
                media,
                schema.get("properties", {}),
                tuple(schema.get("required", ())),
            )


# -- values ---------------------------------------------------------------------------------------------------------


def _jwts(size: int) -> Iterator[tuple[str, str]]:
    """Yield what begins like a JWT that any key may have signed, and is dear to read."""
    head, room = b64(b'{"alg":"ES256","typ":"JWT","kid":"e-1"}'), size * 3 // 4 - 600
    claims = b'{"iss":"https://login.test/tenant","sub":"spiffe://example.org/agent/planner","aud":'
    for name, value in anything(room, room // SPARSE // 2):
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()[:room]
        yield f"a JWT of {name}", f"{head}.{b64(claims + text + b'}')}.{b64(b'signed')}"
    deep = b'{"alg":"ES256","jwk":' + b"[" * (room // 2) + b"]" * (room // 2) + b"}"
    yield "a deep head", f"{b64(deep)}.{b64(claims)}.c2lnbmVk"
    yield "a long signature", f"{head}.{b64(claims + b'[]}')}.{'A' * room}"
    yield "dots", "." * size


def _keys(size: int) -> Iterator[tuple[str, object]]:
    """Yield keys as JWKs that are dear to read."""
    yield "a long RSA key", {"jwk": {"kty": "RSA", "e": "AQAB", "n": "_" * (size - 100)}}
    yield "a key of 4,096 bits", {"jwk": {"kty": "RSA", "e": "AQAB", "n": "-" + "_" * 682}}
    yield "a long exponent", {"jwk": {"kty": "RSA", "e": "_" * 40_000, "n": "_" * 342}}
    yield "a key with much more", {"jwk": {"kty": "EC", "crv": "P-256", **{f"k{n}": "" for n in range(3_000)}}}


def _values(*, read: bool) -> Iterator[tuple[str, object]]:
    """Yield dear values of a field; ``read``: of one that is read as a token, or as a key."""
    for size in (ROOM, ROOM // 3):  # the second has room for escapes
        yield from texts(size)
        if read:
            yield from _jwts(size)
            yield from _keys(size)
    for size in (ROOM, ROOM // 3):
        yield from anything(size, ROOM // SPARSE // 2)  # of lists in lists as many as are read
    yield "many texts", ["a"] * (ROOM // SPARSE - 100)
    for count, length in ((1, 1_000), (16, 128), (256, 7)):
        yield f"{count} patterns", [f"spiffe://a.test/{'x' * length}{n}/*" for n in range(count)]
    yield "a large number", 2**53 - 1


@cache
def _written(media: str, *, read: bool) -> Sequence[tuple[str, bytes]]:
    """Return the same as they stand in a body; in forms also with no more escapes than needed."""
    found: dict[str, bytes] = {}
    for shape, value in _values(read=read):
        ways = {shape: _json(value)}
        if media == FORM:
            ways = {shape: _quoted(value), f"{shape}, not escaped": _quoted(value, RARE)}
        for name, text in ways.items():
            if len(text) <= ROOM + 64 and (text.isascii() or media == JSON):
                found.setdefault(name, text)  # the larger, if that has room
    return [(shape, text) for text, shape in {text: shape for shape, text in found.items()}.items()]


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _quoted(value: object, safe: str = "") -> bytes:
    return quote_plus(value if isinstance(value, str) else _json(value).decode(), safe).encode()


def _body(media: str, fields: Mapping[str, object], **written: bytes) -> bytes:
    """Return a body of fields; ``written`` are some that are written."""
    if media == FORM:
        parts = [f"{name}=".encode() + _quoted(value) for name, value in fields.items() if name not in written]
        return b"&".join([*parts, *(f"{name}=".encode() + text for name, text in written.items())])
    parts = [b'"%b":%b' % (name.encode(), _json(value)) for name, value in fields.items() if name not in written]
    return b"{%b}" % b",".join([*parts, *(b'"%b":%b' % (name.encode(), text) for name, text in written.items())])


# -- requests -------------------------------------------------------------------------------------------------------


class Requests:
    """Makes the requests for routes. ``known`` are small values that are accepted, by the names of their fields."""

    def __init__(self, known: Mapping[str, typing.Any]) -> None:
        self._known = known

    def _path(self, it: Operation) -> str:
        return it.path.format(**{name: self._known.get(name, "a") for name in it.names})

    def _bases(self, it: Operation) -> list[Raw]:
        """Return the small bodies that a route takes: one for each way to what it does."""
        if it.label == "POST /oauth/token":
            return [*self._ways()]
        base = {name: self._known[name] for name in (*it.needed, *ALSO.get(it.label, ()))}
        return [{**base, name: self._known[name]} for name in ONE_OF.get(it.label, ())] or [base]

    def _ways(self) -> Iterator[Raw]:
        known = self._known
        asked = {"authorization_details": known["authorization_details"], "ttl": 60}
        token = {"requested_token_type": "urn:ietf:params:oauth:token-type:access_token"}
        kinds = "urn:ietf:params:oauth:token-type:"
        peer = {"subject_token": "self", "subject_token_type": "urn:remit:peer", "purpose": "p"}
        grant = {"subject_token": known["grant"], "subject_token_type": "urn:remit:grant"}
        mine = {"subject_token": known["access_token"], "subject_token_type": f"{kinds}access_token"}
        human = {"subject_token": known["id_token"], "subject_token_type": f"{kinds}id_token", "purpose": "p"}
        actor = {"actor_token": known["actor_token"], "actor_token_type": f"{kinds}jwt"}
        key = {"req_cnf": known["req_cnf"], "req_cnf_proof": known["req_cnf_proof"]}
        yield {"grant_type": EXCHANGE, **peer, **asked, **token}
        yield {"grant_type": EXCHANGE, **grant, **asked}
        yield {"grant_type": EXCHANGE, **grant, "approval": known["approval"]}
        yield {"grant_type": EXCHANGE, **mine, **asked, **key, **actor}
        yield {"grant_type": EXCHANGE, **human, **asked}
        more = {"client_id": "browser-app"}
        yield {"grant_type": "refresh_token", "refresh_token": "a", **more}
        yield {
            "grant_type": "authorization_code",
            "code": "a",
            "redirect_uri": "http://a",
            "code_verifier": "a",
            **more,
        }
        yield {"grant_type": DEVICE, "device_code": "a", **more}
        yield {"grant_type": "urn:openid:params:grant-type:ciba", "auth_req_id": "a", **more}
        yield {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "a", **asked, **more}
        client = {"client_assertion": known["client_assertion"], "client_assertion_type": JWT_SPIFFE}
        yield {"grant_type": "client_credentials", "purpose": "p", **asked, **client}

    def of(self, it: Operation) -> Iterator[Request]:
        """Yield the dearest requests for a route, a small one first."""
        path = self._path(it)
        if it.media and it.fields:
            yield from self._bodies(it, path)
        elif it.media:  # a body that is one text
            yield from (
                Request(shape, it.method, path, text.encode(), it.media)
                for shape, text in (*texts(MAX_BODY), *_jwts(MAX_BODY))
            )
        else:
            yield Request("small", it.method, path)
            if it.method in {"POST", "DELETE"}:
                for shape, value in anything(ROOM, ROOM // SPARSE // 2):
                    yield Request(f"a body of {shape}", it.method, path, _json(value), JSON)
        yield from self._lines(it, path)

    def _bodies(self, it: Operation, path: str) -> Iterator[Request]:
        seen = set[str]()
        for base in self._bases(it):
            yield Request("small", it.method, path, _body(it.media, base), it.media)
            grown = [name for name in base if name not in seen] if seen else list(it.fields)
            seen |= {*base, *grown}
            for name in grown:
                for shape, text in _written(it.media, read=TOKENS.search(name) is not None):
                    body = _body(it.media, base, **{name: text})
                    if len(body) <= MAX_BODY:
                        yield Request(f"`{name}` of {shape}", it.method, path, body, it.media)
        yield from self._envelopes(it, path)

    @staticmethod
    def _envelopes(it: Operation, path: str) -> Iterator[Request]:
        """Yield bodies that are large as a whole, whatever fields there are."""
        bodies: dict[str, bytes] = {
            "ampersands": b"&" * MAX_BODY,
            "names": b"&".join(b"a%d=%%41" % n for n in range(6_000))[:MAX_BODY],
            "long names": b"&".join(b"%d%s=1" % (n, b"%41" * 600) for n in range(MAX_FIELDS)),
            "brackets": b"[" * MAX_BODY,
            "escapes": b'{"a":"' + b"\\ud83d\\ude00" * 5_000 + b'"}',
        }
        for name, value in anything(ROOM, ROOM // SPARSE // 2):
            bodies[name] = _json(value)
        for name, body in bodies.items():
            yield Request(f"a body of {name}", it.method, path, body, it.media)

    def _lines(self, it: Operation, path: str) -> Iterator[Request]:
        """Yield what is large in the head: names in the path, a query."""
        for name in it.names:
            for shape, text in texts(HEAD):
                value = SAFE.sub(b"-", text.encode()).decode().replace("?", "-").replace("%", "a")
                names = {**{each: self._known.get(each, "a") for each in it.names}, name: value}
                yield Request(f"`{name}` in the path of {shape}", it.method, it.path.format(**names))
        for name in it.query:
            rest = {each: self._known[each] for each in it.query if each in self._known}
            for shape, text in texts(HEAD // 3):
                query = urlencode({**rest, name: text})
                if len(query) < HEAD:
                    yield Request(f"`{name}` in the query of {shape}", it.method, f"{path}?{query}")
        if it.query:
            rest = {each: self._known[each] for each in it.query if each in self._known}
            yield Request("a small query", it.method, f"{path}?{urlencode(rest)}")
        yield Request("a query of ampersands", it.method, f"{path}?{'&' * HEAD}")
        yield Request("a query of pairs", it.method, f"{path}?{'a=%41&' * (HEAD // 6)}")

    def scoped(self, it: Operation) -> Iterator[Request]:
        """Yield the small requests of a route that hold a scope."""
        for base in self._bases(it):
            if SCOPED & base.keys():
                yield Request(
                    f"with {min(SCOPED & base.keys())}", it.method, self._path(it), _body(it.media, base), it.media
                )


def heads() -> Iterator[tuple[str, tuple[tuple[str, bytes], ...]]]:
    """Yield headers that are large, whatever the route."""
    many = tuple((f"x-{n}", b"%41" * 150) for n in range(110))
    yield "many headers", many
    for name in ("cookie", "accept-language", "content-type", "origin", "idempotency-key", "authorization", "dpop"):
        for shape, text in (("pairs", b"a=b;" * 15_000), ("commas", b"," * HEAD), ("quotes", b'a="\\' * 15_000)):
            yield f"`{name}` of {shape}", ((name, text),)
    for name in ("authorization", "dpop", "workload-identity-token", "workload-proof-token"):
        for shape, jwt in _jwts(HEAD):
            yield f"`{name}` of {shape}", ((name, b"DPoP " * (name == "authorization") + jwt.encode()),)
