"""The pages on policies: what they show is valid, and the reference names all that a policy can ask about."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from remit.compose.kinds import BUILT_IN
from remit.policies import cases, model, sets
from tests.docs.test_pages import PAGES, _blocks, _id

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS.parent / "examples" / "policies"
REFERENCE = (DOCS / "reference" / "policies.md").read_text("utf-8")


@pytest.mark.parametrize("path", [page for page in PAGES if _blocks(page, "cedar")], ids=_id)
def test_every_policy_that_is_shown_is_valid(path: Path) -> None:
    for block in _blocks(path, "cedar"):
        assert sets.read({"shown.cedar": block})[1] == ()


def _policies(text: str) -> dict[str, str]:
    """Return policies by name, without comments and the white space that they are laid out with."""
    bare = " ".join(re.sub(r"^\s*//.*", "", text, flags=re.MULTILINE).split())
    return dict(re.findall(r'@id\("([\w-]+)"\) (.*?;)', bare))


def test_the_policies_that_the_guide_shows_are_those_of_the_examples() -> None:
    examples = _policies("\n".join(path.read_text("utf-8") for path in EXAMPLES.glob("*.cedar")))
    shown = _policies("\n".join(_blocks(DOCS / "how-to" / "write-policies.md", "cedar")))
    assert len(shown) == 6
    assert {name: examples.get(name) for name in shown} == shown


def test_the_case_that_is_shown_comes_out_as_it_says() -> None:
    page = DOCS / "how-to" / "write-policies.md"
    found, _ = sets.read({f"{number}.cedar": block for number, block in enumerate(_blocks(page, "cedar"))})
    assert found is not None
    shown = [case for block in _blocks(page, "toml") if "[[case]]" in block for case in cases.read(block)]
    assert len(shown) == 1
    assert cases.tried(found, shown[0]).passed


def _attributes() -> list[str]:
    """Return the attributes of the schema as policies write them."""
    schema = re.sub(r"//.*", "", model.schema_text(BUILT_IN))
    where = {
        "entity Human in [Group]": "principal",
        "entity Resource": "resource",
        "type Asked": "context",
        "type Posture": "context.posture",
        "type Detail": "context.detail",
    }
    found = []
    for head, name in where.items():
        block = re.search(rf"^{re.escape(head)} = \{{\n(.*?)^\}}", schema, re.MULTILINE | re.DOTALL)
        assert block is not None, head
        found += [f"{name}.{field}" for field in re.findall(r"(\w+)\??:", block.group(1))]
    return found


@pytest.mark.parametrize("name", _attributes())
def test_every_attribute_is_on_the_page(name: str) -> None:
    assert f"| `{name}` |" in REFERENCE


def test_every_attribute_on_the_page_is_in_the_schema() -> None:
    shown = set(re.findall(r"^\| `((?:principal|resource|context)\.[\w.]+)` \|", REFERENCE, re.MULTILINE))
    assert shown == set(_attributes())


def test_every_key_of_a_case_is_on_the_page() -> None:
    assert [key for key in cases._KNOWN if not re.search(rf"^\| .*`{key}`", REFERENCE, re.MULTILINE)] == []
