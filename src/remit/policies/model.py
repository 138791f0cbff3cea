"""A question as Cedar sees it: one request for each detail, the entities that they name, and the schema of both.

The shapes are those of ``schema.cedarschema``, and of details those that follow from the tables of their types; a
request that does not fit is not decided, and so denied. ``cedar`` is the only place that imports the optional package.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from types import ModuleType
from typing import TYPE_CHECKING, Any

from remit.core import spiffe
from remit.core.grant import WORKLOAD, Subject
from remit.core.orders import ANY, json_text
from remit.core.policy import Question
from remit.core.request import MAX_TTL, written_bounds
from remit.core.scope import TYPES, Detail
from remit.errors import UnavailableError

if TYPE_CHECKING:
    from cedarpy import Schema

Json = dict[str, Any]


def principal(subject: Subject) -> Json:
    """Return the entity id of whoever a task acts for."""
    return {"type": "Workload" if subject.acr == WORKLOAD else "Human", "id": subject.sub}


def requests(question: Question) -> list[Json]:
    """Return one Cedar request for each detail, in order."""
    posture, agent = question.posture, spiffe.split(question.agent)
    common = {
        "purpose": question.purpose,
        "details": len(question.whole or question.scope),
        "agent": question.agent,
        "attested": question.binding.identity is not None,
        "trust_domain": "" if agent is None else agent.domain,
        "claims": {"__entity": _claims(dict(question.binding.claims))},
        "level": question.level,
        **{name: value for name, value in written_bounds(question.bounds).items() if name != "delegates"},
        "ttl": int((question.bounds.ttl or MAX_TTL).total_seconds()),
        "posture": {"isolation": posture.isolation, "custody": posture.custody, "at_rest": posture.at_rest},
        "approval": question.approval is not None,
    }
    return [
        {
            "principal": principal(question.subject),
            "action": {"type": "Action", "id": question.verb},
            "resource": {"type": "Resource", "id": detail.resource},
            "context": {**common, "detail": _detail(detail)},
        }
        for detail in question.scope
    ]


def named(question: Question) -> tuple[tuple[str, str], ...]:
    """Return the resources that a question names, as (name, type)."""
    return tuple(sorted({(detail.resource, detail.type) for detail in question.whole or question.scope}))


def entities(subject: Subject, claims: Mapping[str, str], named: Iterable[tuple[str, str]]) -> list[Json]:
    """Return what the requests name: the principal with its groups, the claims, and resources as (name, type)."""
    issuer, sub = split(subject.sub)
    groups = [{"type": "Group", "id": f"{issuer}#{group}"} for group in subject.groups]
    who: Json = {"sub": sub, "issuer": issuer, "acr": subject.acr, "amr": list(subject.amr)}
    if subject.auth_time is not None:
        who["auth_time"] = int(subject.auth_time.timestamp())
    return [
        {"uid": principal(subject), "attrs": who, "parents": groups},
        {"uid": _claims(claims), "attrs": {}, "tags": dict(claims), "parents": []},
        *(
            {"uid": {"type": "Resource", "id": name}, "attrs": {"name": name, "type": kind}, "parents": []}
            for name, kind in named
        ),
    ]


def split(sub: str) -> tuple[str, str]:
    """Return issuer and subject of a qualified name; of a workload's the trust domain and the whole of it.

    A trust domain has one name, whatever the scheme of those it vouches for: what is said of it is said of all.
    """
    found = spiffe.split(sub)
    if found is not None:
        return str(replace(found, path="")), sub
    issuer, _, rest = sub.partition("#")
    return issuer, rest


def _claims(claims: Mapping[str, str]) -> Json:
    return {"type": "Claims", "id": json_text(dict(claims))}


@dataclass(frozen=True, slots=True)
class Attribute:
    """What a policy sees of a field: ``name`` is written with the field's (``{}``) or its singular (``{one}``)."""

    name: str
    type: str
    of: Callable[[Detail, str], int | list[str] | None]  # None: the detail does not have it
    note: str = ""

    def named(self, field: str) -> str:
        """Return its name for a field."""
        return self.name.format(field, one=field.removesuffix("s"))


def _texts(detail: Detail, name: str) -> list[str]:
    return list(detail.texts(name))


def _roots(detail: Detail, name: str) -> list[str]:
    return sorted({path.split("/")[1] for path in detail.texts(name)})


def _schemas(detail: Detail, name: str) -> list[str]:
    return sorted({table.partition(".")[0] for table in detail.texts(name)})


def _names(detail: Detail, name: str) -> list[str]:
    value = detail.get(name)
    return ["*"] if value == ANY else [key for key, _ in _pairs(value)]


def _columns(detail: Detail, name: str) -> list[str]:
    listed, tables = dict(_pairs(detail.get(name))), detail.texts(TYPES[detail.type][name].per or "")
    return [f"{table}.{column}" for table in tables for column in listed.get(table, ("*",))]


def _pairs(value: object) -> tuple[tuple[str, Any], ...]:
    return value if isinstance(value, tuple) else ()


_SET = "Set<String>"
ATTRIBUTES: Mapping[str, tuple[Attribute, ...]] = {  # by the names of orders
    "subset": (Attribute("{}", _SET, _texts),),
    "at_most": (Attribute("{}", "Long", Detail.number),),
    "paths": (
        Attribute("{}", _SET, _texts, "patterns as they were asked for"),
        Attribute("{one}_roots", _SET, _roots, "their first segments; `*` or `**` where any is meant"),
    ),
    "uris": (Attribute("{}", _SET, _texts, "patterns as they were asked for; `**` for all"),),
    "hosts": (Attribute("{}", _SET, _texts, "names, and `*.` with a name for all below it"),),
    "tables": (Attribute("{}", _SET, _texts, "schema.table"), Attribute("{one}_schemas", _SET, _schemas)),
    "columns": (Attribute("{}", _SET, _columns, "schema.table.column; schema.table.* where all are meant"),),
    "arguments": (Attribute("{}", _SET, _names, "names of arguments that may be given; `*` for any"),),
    "tools": (Attribute("{}", _SET, _names, "names"),),
}


def _detail(detail: Detail) -> Json:
    seen = ((name, each) for name, row in TYPES[detail.type].items() for each in ATTRIBUTES[row.order.name])
    found = {each.named(name): each.of(detail, name) for name, each in seen}
    return {name: value for name, value in found.items() if value is not None}


def declared(types: Collection[str]) -> str:
    """Return the declaration of ``Detail`` in Cedar: the attributes that details of these types have."""
    lines: dict[str, tuple[str, str, list[str]]] = {}
    for kind in sorted(types):
        for field, row in TYPES[kind].items():
            for each in ATTRIBUTES[row.order.name]:
                *_, kinds = lines.setdefault(each.named(field), (each.type, each.note, []))
                kinds.append(kind)
    rows = [
        f"  {name}{'' if name == 'actions' else '?'}: {type_}, // {': '.join(filter(None, (', '.join(kinds), note)))}\n"
        for name, (type_, note, kinds) in lines.items()
    ]
    return f"type Detail = {{\n{''.join(rows)}}};\n"


def cedar() -> ModuleType:
    """Return the module ``cedarpy``, or raise UnavailableError saying how to install it."""
    try:
        import cedarpy
    except ImportError as error:
        raise UnavailableError(
            "policies need Cedar, which is not installed", help="in a clone of remit: pip install '.[policy]'"
        ) from error
    return cedarpy


def schema_text(types: Collection[str] = TYPES) -> str:
    """Return the schema that every policy is validated against, as Cedar text, for the detail types known now."""
    fixed = resources.files("remit.policies").joinpath("schema.cedarschema").read_text("utf-8")
    return f"{fixed}\n{declared(types)}"


def schema() -> Schema:
    """Return the schema, parsed once for the same detail types."""
    return _parsed(frozenset(TYPES))


@cache
def _parsed(types: frozenset[str]) -> Schema:
    parsed: Schema = cedar().Schema.from_str(schema_text(types))
    return parsed
