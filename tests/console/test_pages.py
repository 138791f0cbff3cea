"""What people see: whole documents without scripts, every value escaped, nothing fetched, framed or kept."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response

from remit.console import pages
from remit.console.pages import DecisionForm, RequestView
from remit.core.legible import escaped
from remit.core.principal import Holder
from remit.errors import DeniedError, LimitError, NotFoundError, UnauthenticatedError
from remit.web.authentication import SocketAuth, TokenAuth
from tests.broker.world import OPERATOR

NASTY = '<script>alert("1")</script>\u202e\x00\'"&<b>'


class Elements(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, page: Response) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self.feed(bytes(page.body).decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def shown_request(**more: object) -> Mapping[str, object]:
    """Return a request as it is shown."""
    detail = {
        "type": "http",
        "resource": NASTY,
        "actions": ["GET"],
        "paths": [NASTY],
        "args": {NASTY: NASTY},
        "ttl": 90,
    }
    bounds = {"ttl": 3661, "depth": 2, "fan_out": 3, "exercise": True, "delegates": [NASTY], "unattested": False}
    return {"authorization_details": [detail], **bounds, "label": NASTY, "jkt": "k", "purpose": NASTY, **more}


def shown(**more: object) -> Response:
    """Return a page of a request."""
    asked = RequestView(NASTY, NASTY, shown_request(**more), [(NASTY, NASTY)], NASTY, NASTY)
    return pages.consent(asked, DecisionForm(NASTY, NASTY, {NASTY: NASTY}), NASTY)


@pytest.mark.parametrize(
    "page",
    [
        shown(),
        pages.document("message.html", NASTY, text=NASTY),
        pages.refusal(DeniedError(NASTY, help=NASTY), "/approvals/x"),
        pages.leaving(NASTY, f"https://app.test/{NASTY}", NASTY),
        pages.code_form(NASTY, NASTY),
    ],
)
def test_nothing_that_comes_from_elsewhere_becomes_an_element(page: Response) -> None:
    found = Elements(page)
    assert "script" not in found.tags
    assert "b" not in found.tags
    assert [name for name in found.attributes if name.startswith("on")] == []
    assert '<script>alert("1")</script>' in found.text or 'value="&lt;script' in bytes(page.body).decode()
    assert "\u202e" not in found.text
    assert "\x00" not in bytes(page.body).decode()


def test_no_page_is_framed_kept_or_runs_anything() -> None:
    headers = pages.document("message.html", "a", text="b").headers
    policy = headers["content-security-policy"]
    for rule in ("default-src 'none'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"):
        assert rule in policy
    assert "unsafe" not in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-opener-policy"] == "same-origin"


def test_the_one_style_is_the_one_that_is_allowed() -> None:
    text = bytes(pages.document("message.html", "a", text="b").body).decode()
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    allowed = b64encode(sha256(style.encode()).digest()).decode()
    assert f"'sha256-{allowed}'" in pages.POLICY
    assert not re.search(r"(?:src|href)=\"?https?:", text)


def test_a_page_shows_the_request_in_words_and_exactly() -> None:
    found = Elements(shown())
    for words in ("1 hour 1 minute 1 second", "2 levels deep, 3 at each at once", "1 minute 30 seconds"):
        assert words in found.text
    assert '"fan_out": 3' in found.text
    assert "no: it only hands on" in Elements(shown(exercise=False)).text
    assert "it may not" in Elements(shown(depth=0)).text
    assert "as long as the grant it comes from" in Elements(shown(ttl=None)).text


def test_where_there_is_only_no_to_say_there_is_no_other_button() -> None:
    page = pages.consent(RequestView("t", "i", shown_request()), DecisionForm("v", "c", approve=""))
    text = bytes(page.body).decode()
    assert ('value="approve"' in text, 'value="deny"' in text) == (False, True)


def test_a_request_that_is_over_has_no_buttons() -> None:
    page = pages.consent(RequestView("t", "i", shown_request()), None, "It is over.")
    found = Elements(page)
    assert "form" not in found.tags
    assert "It is over." in found.text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "1 second"), (60, "1 minute"), (86_400, "1 day"), (90_061, "1 day 1 hour 1 minute 1 second"), (0, "no time")],
)
def test_a_length_of_time_is_exact(seconds: int, words: str) -> None:
    assert pages.length(seconds) == words


@given(st.text())
def test_safe_text_is_printable_and_cannot_close_anything(text: str) -> None:
    page = bytes(pages.document("message.html", "title", text=text).body).decode()
    shown = page.partition("</h1>\n<p>")[2].partition("</p>\n</main>")[0]
    assert not set(shown) & set("<>\"'")
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert unescape(shown) == escaped(text, keep="\n")


def rows_of(args: object) -> list[str]:
    """Return the rows of a detail as people read them."""
    detail = {"type": "http", "resource": "mail", "actions": ["POST"], "paths": ["/send"], "args": args}
    text = bytes(
        pages.consent(RequestView("t", "i", shown_request(authorization_details=[detail])), None).body
    ).decode()
    return [unescape(row) for row in re.findall(r"<dt>argument(.*?</dt><dd>.*?)</dd>", text)]


@pytest.mark.attack("OAU-12")
def test_each_argument_has_a_row_of_its_own_and_no_value_fakes_another() -> None:
    """A row is an element: no text of an agent makes one."""
    assert rows_of({"body.a": {"exact": "x; body.z: any"}}) == [' "body.a"</dt><dd>{"exact": "x; body.z: any"}']
    assert rows_of({"body.a": {"exact": "x"}, "body.z": "any"}) == [
        ' "body.z"</dt><dd>"any"',
        ' "body.a"</dt><dd>{"exact": "x"}',
    ]
    assert rows_of({"body.a": {"exact": "5"}}) != rows_of({"body.a": {"exact": 5}})
    assert rows_of({"body.a": {"exact": "\u3164"}}) == [' "body.a"</dt><dd>{"exact": "\\u3164"}']
    assert rows_of({"body.a": {"exact": "\\u3164"}}) == [' "body.a"</dt><dd>{"exact": "\\\\u3164"}']
    assert rows_of({'a"</dt><dd>': "any"}) == [' "a\\"</dt><dd>"</dt><dd>"any"']


@pytest.mark.attack("OAU-12")
def test_spaces_are_shown_as_many_as_there_are() -> None:
    """HTML makes one of many, and ``pre-wrap`` lets those at the end of a line hang."""
    for element in ("dt", "dd", "blockquote"):
        rules = re.findall(rf"(?:^|[}},\n]){element}(?:,[a-z]+)*{{([^}}]*)}}", pages.STYLE)
        assert any("white-space:break-spaces" in rule for rule in rules), element


@pytest.mark.attack("OAU-12")
def test_long_lists_are_whole_and_counted_and_begin_with_the_widest() -> None:
    rows = rows_of({f"body.a{n}": {"exact": "caterer" * 100} for n in range(12)} | {"body.zto": "any"})
    assert rows[:2] == ["</dt><dd>13 in all", ' "body.zto"</dt><dd>"any"']
    assert len(rows) == 14


def test_an_error_is_a_page_with_its_status_and_a_way_on() -> None:
    page = pages.refusal(DeniedError("this is so", help="do that"), "/approvals/apr_1", ["a=b"])
    text = bytes(page.body).decode()
    assert page.status_code == 403
    assert "<p>This is so.</p>" in text
    assert "Do that." in text
    assert '<a class="go" href="/approvals/apr_1">Log in again</a>' in text
    assert page.headers["set-cookie"] == "a=b"
    assert pages.refusal(LimitError(retry_after=60)).headers["retry-after"] == "60"


def test_a_redirect_is_as_well_protected_as_a_page() -> None:
    sent = pages.away("https://app.test/cb?code=c")
    assert (sent.status_code, sent.headers["location"]) == (303, "https://app.test/cb?code=c")
    assert sent.headers["referrer-policy"] == "no-referrer"


def test_pages_and_their_errors_are_for_browsers() -> None:
    async def fails(_: Request) -> Response:
        raise DeniedError("not this")

    def request(authority: object) -> Request:
        return Request({"type": "http", "headers": [], "state": {"listener": authority}})

    async def main() -> None:
        web = TokenAuth(frozenset(), _Nobody().holder)
        assert b"Not this." in bytes((await pages.shown(fails)(request(web))).body)
        with pytest.raises(NotFoundError):
            await pages.shown(fails)(request(SocketAuth(OPERATOR)))

    asyncio.run(main())


class _Nobody:
    async def holder(self, *_: object) -> Holder:
        raise UnauthenticatedError
