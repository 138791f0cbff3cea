"""What SDKs and MCP servers did when they were run, against what the catalog says of their providers."""

from __future__ import annotations

import pytest

from remit import catalog
from remit.catalog.positions import Position

BEARER = Position("header", "Authorization", "Bearer {}")
# client: provider, variables in which it looks for its key, positions in which it sends it, variable of its base URL
SEEN: dict[str, tuple[str, set[str], set[Position], str | None]] = {
    "openai": ("openai", {"OPENAI_API_KEY"}, {BEARER}, "OPENAI_BASE_URL"),
    "openai, Azure": (
        "azure-openai",
        {"AZURE_OPENAI_API_KEY"},
        {Position("header", "api-key")},
        "AZURE_OPENAI_ENDPOINT",
    ),
    "openai, Bedrock": ("bedrock", {"AWS_BEARER_TOKEN_BEDROCK"}, {BEARER}, None),
    "anthropic 1 and 2": (
        "anthropic",
        {"ANTHROPIC_API_KEY"},
        {BEARER, Position("header", "x-api-key")},
        "ANTHROPIC_BASE_URL",
    ),
    "google-genai": (
        "gemini",
        {"GOOGLE_API_KEY", "GEMINI_API_KEY"},
        {Position("header", "x-goog-api-key")},
        "GOOGLE_GEMINI_BASE_URL",
    ),
    "server-github": ("github", {"GITHUB_PERSONAL_ACCESS_TOKEN"}, {BEARER}, None),
    "github-mcp-server": ("github", {"GITHUB_PERSONAL_ACCESS_TOKEN"}, {BEARER}, None),
    "server-gitlab": ("gitlab", {"GITLAB_PERSONAL_ACCESS_TOKEN"}, {BEARER}, "GITLAB_API_URL"),
    "zereight/mcp-gitlab": ("gitlab", {"GITLAB_PERSONAL_ACCESS_TOKEN"}, {BEARER}, "GITLAB_API_URL"),
    "server-slack": ("slack", {"SLACK_BOT_TOKEN"}, {BEARER}, None),
    "slack-mcp-server": ("slack", {"SLACK_MCP_XOXB_TOKEN"}, {Position("form", "token")}, None),
    "server-brave-search": ("brave", {"BRAVE_API_KEY"}, {Position("header", "X-Subscription-Token")}, None),
    "brave-search-mcp-server": ("brave", {"BRAVE_API_KEY"}, {Position("header", "X-Subscription-Token")}, None),
    "server-google-maps": ("google-maps", {"GOOGLE_MAPS_API_KEY"}, {Position("query", "key")}, None),
    "notion-mcp-server": ("notion", {"NOTION_TOKEN"}, {BEARER}, None),
    "stripe/mcp": ("stripe", {"STRIPE_SECRET_KEY"}, {BEARER}, None),
    "sentry/mcp-server": ("sentry", {"SENTRY_ACCESS_TOKEN"}, {BEARER}, None),
    "mcp-server-supabase": ("supabase", {"SUPABASE_ACCESS_TOKEN"}, {BEARER}, None),
    "tavily-mcp": ("tavily", {"TAVILY_API_KEY"}, {BEARER, Position("body", "api_key")}, None),
    "exa-mcp-server": ("exa", {"EXA_API_KEY"}, {Position("header", "x-api-key")}, None),
    "firecrawl-mcp": ("firecrawl", {"FIRECRAWL_API_KEY"}, {BEARER}, "FIRECRAWL_API_URL"),
    "mcp-atlassian": ("atlassian", {"JIRA_API_TOKEN"}, {Position("basic", "Authorization", "{user}:{}")}, "JIRA_URL"),
    "mcp-atlassian, Data Center": ("jira-data-center", {"JIRA_PERSONAL_TOKEN"}, {BEARER}, "JIRA_URL"),
}
HOSTS = {
    "mcp.stripe.com": "stripe",
    "api.search.brave.com": "brave",
    "api.githubcopilot.com": None,
    "maps.googleapis.com": "google-maps",
}


@pytest.mark.parametrize("client", SEEN)
def test_the_catalog_knows_what_a_client_was_seen_to_do(client: str) -> None:
    name, variables, positions, base = SEEN[client]
    known = catalog.load()[name]
    assert variables <= {*known.variables}
    assert positions <= {known.key, *known.accepts}
    assert base is None or (known.base is not None and known.base.variable == base)


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_is_of_one_provider_or_of_several_that_are_told_apart_by_name(host: str) -> None:
    named = [one.name for one in catalog.load().values() if host in one.hosts]
    assert named == [HOSTS[host]] * (HOSTS[host] is not None)
