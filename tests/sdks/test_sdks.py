"""SDKs of providers, as they are installed: unchanged in a run, by a base URL where there is one, and by their host."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integrations.page import Record, records
from tests.peers import absent
from tests.sdks.rig import HERE, Rig, Sdk, Used, rigged
from tests.servers.rig import KEY

pytestmark = [pytest.mark.live, pytest.mark.slow]
ANTHROPIC, GEMINI = f"x-api-key: {KEY}", f"x-goog-api-key: {KEY}"
BY_OPENAI, BY_ANTHROPIC, BY_GEMINI = "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL"
ALL = {
    "anthropic": Sdk("anthropic", "with_anthropic.py", "anthropic", BY_ANTHROPIC, sent=ANTHROPIC),
    "boto3 (Bedrock)": Sdk("boto3", "with_boto3.py", "bedrock"),
    "cohere": Sdk("cohere", "with_cohere.py", "cohere", "CO_API_URL"),
    "google-genai": Sdk("google-genai", "with_genai.py", "gemini", BY_GEMINI, sent=GEMINI),
    "groq": Sdk("groq", "with_groq.py", "groq"),
    "langchain-openai": Sdk("langchain-openai", "with_langchain_openai.py", "openai", BY_OPENAI),
    "litellm (Gemini)": Sdk("litellm", "with_litellm.py", "gemini", sent=GEMINI),
    "mistralai": Sdk("mistralai", "with_mistralai.py", "mistral"),
    "openai": Sdk("openai", "with_openai.py", "openai", BY_OPENAI),
    "PyGithub": Sdk("pygithub", "with_pygithub.py", "github", said="me"),
    "slack_sdk": Sdk("slack-sdk", "with_slack_sdk.py", "slack", said="me"),
    "@anthropic-ai/sdk": Sdk("@anthropic-ai/sdk", "anthropic.mjs", "anthropic", BY_ANTHROPIC, sent=ANTHROPIC),
    "@google/genai": Sdk("@google/genai", "genai.mjs", "gemini", BY_GEMINI, sent=GEMINI),
    "@octokit/rest": Sdk("@octokit/rest", "octokit.mjs", "github", said="me"),
    "@slack/web-api": Sdk("@slack/web-api", "slack.mjs", "slack", said="me"),
    "openai (Node)": Sdk("openai", "openai.mjs", "openai", BY_OPENAI),
    "stripe (Node)": Sdk("stripe", "stripe.mjs", "stripe", said="balance"),
}
STRIPE = Sdk("stripe", "with_stripe.py", "stripe", said="balance")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Start a broker with the doubles of all providers behind it."""
    with rigged(tmp_path_factory.mktemp("sdks")) as found:
        yield found


def record(software: str, sdk: Sdk) -> Record:
    """Return what is on record, which names the version that is installed."""
    [found] = [one for one in records("sdk") if one.software == software]
    assert found.version == sdk.version
    return found


def check(sdk: Sdk, used: Used) -> None:
    """Check that each request came with the key in its place alone, and that no process of the run had it."""
    name, _, value = sdk.sent.partition(": ")
    assert len(used.asked) == (2 if sdk.base else 1), used.error
    assert used.said == [sdk.said] * len(used.asked)
    for asked in used.asked:
        assert asked.headers[name] == value
        assert asked.whole.count(KEY) == 1
    assert used.holders == []


@pytest.mark.parametrize("software", ALL)
def test_an_sdk_works_unchanged(rig: Rig, software: str) -> None:
    sdk = ALL[software]
    assert record(software, sdk).verdict == "zero"
    check(sdk, rig.use(sdk))


def test_an_sdk_that_brings_its_own_authorities_works_when_told_of_the_runs(rig: Rig) -> None:
    assert record("stripe", STRIPE).verdict == "conf"
    used = rig.use(STRIPE)
    assert "Could not verify Stripe's SSL certificate" in used.error
    assert used.asked == []
    check(STRIPE, rig.use(replace(STRIPE, told=("STRIPE_CA=1",))))


def test_a_key_that_an_sdk_has_is_found(rig: Rig) -> None:
    assert rig.use(replace(ALL["groq"], told=(f"ELSEWHERE={KEY}",))).holders


def test_java_works_as_its_page_says(rig: Rig) -> None:
    java = shutil.which("java")
    if java is None:
        absent("Java", "apt-get install default-jdk-headless")
    settings = (Path(java).resolve().parents[1] / "conf" / "security" / "java.security").resolve().parents[1]
    page = (HERE.parents[1] / "docs" / "how-to" / "clients.md").read_text("utf-8")
    remit, *words = shlex.split(page.partition("## Java")[2].partition("```sh\n")[2].partition("```")[0])
    told = {"/etc/java-17-openjdk": str(settings)}
    *words, script = [told.get(word, word) for word in words]
    done = rig.run("github", *words, script.replace("App.java", str(HERE / "programs" / "App.java")))
    assert remit == "remit"
    assert '"login": "me"' in done.stdout, done.stderr
    assert [asked.headers["authorization"] for asked in rig.seen] == [f"Bearer {KEY}"]
