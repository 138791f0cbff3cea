"""A question as Cedar sees it: one request for each detail, and the entities that they name. Pure.

The shapes are those of ``schema.cedarschema``; a request that does not fit it is not decided, and so denied.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from remit.core import spiffe
from remit.core.grant import WORKLOAD, Subject
from remit.core.orders import ANY, json_text
from remit.core.policy import Question
from remit.core.request import MAX_TTL, written_bounds
from remit.core.scope import Detail

Json = dict[str, Any]


def principal(subject: Subject) -> Json:
    """Return the entity id of whoever a task acts for."""
    return {"type": "Workload" if subject.acr == WORKLOAD else "Human", "id": subject.sub}


def requests(question: Question) -> list[Json]:
    """Return one Cedar request for each detail, in order."""
    common = _common(question)
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


def _domain(agent: str) -> str:
    found = spiffe.split(agent)
    return "" if found is None else found.domain


def _claims(claims: Mapping[str, str]) -> Json:
    return {"type": "Claims", "id": json_text(dict(claims))}


def _common(question: Question) -> Json:
    posture = question.posture
    return {
        "purpose": question.purpose,
        "details": len(question.whole or question.scope),
        "agent": question.agent,
        "attested": question.binding.identity is not None,
        "trust_domain": _domain(question.agent),
        "claims": {"__entity": _claims(dict(question.binding.claims))},
        "level": question.level,
        **{name: value for name, value in written_bounds(question.bounds).items() if name != "delegates"},
        "ttl": int((question.bounds.ttl or MAX_TTL).total_seconds()),
        "posture": {"isolation": posture.isolation, "custody": posture.custody, "at_rest": posture.at_rest},
        "approval": question.approval is not None,
    }


def _detail(detail: Detail) -> Json:
    shown: Json = {"actions": list(detail.texts("actions"))}
    for name in ("ttl", "uses"):
        if detail.number(name) is not None:
            shown[name] = detail.number(name)
    match detail.type:
        case "http":
            paths = detail.texts("paths")
            roots = sorted({path.split("/")[1] for path in paths})
            shown |= {"paths": list(paths), "path_roots": roots, "args": _names(detail.get("args"))}
        case "postgres":
            tables = detail.texts("tables")
            schemas = sorted({table.partition(".")[0] for table in tables})
            shown |= {"tables": list(tables), "table_schemas": schemas, "columns": _columns(detail)}
        case "mcp":
            shown["tools"] = [tool for tool, _ in _pairs(detail.get("tools"))]
        case "spiffe":
            shown["audiences"] = list(detail.texts("audiences"))
    return shown


def _names(args: object) -> list[str]:
    return ["*"] if args == ANY else [name for name, _ in _pairs(args)]


def _columns(detail: Detail) -> list[str]:
    listed = dict(_pairs(detail.get("columns")))
    return [f"{table}.{column}" for table in detail.texts("tables") for column in listed.get(table, ("*",))]


def _pairs(value: object) -> tuple[tuple[str, Any], ...]:
    return value if isinstance(value, tuple) else ()


def entities_text(subject: Subject, claims: Mapping[str, str], named: Iterable[tuple[str, str]]) -> str:
    """Return the entities as Cedar reads them."""
    return json.dumps(entities(subject, claims, named))
