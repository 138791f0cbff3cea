"""``scope`` (RFC 6749 §3.3): names for details that an operator wrote, for clients that know no details.

A name is read once, where a request comes in. From there on it is the details that it stands for: they are what a human
sees, what a policy decides on, what a grant holds. Names and details that are asked for together are all asked for
(RFC 9396 §3.1).
"""

from __future__ import annotations

from collections.abc import Sequence

from remit.core import scope as scopes
from remit.core import spiffe
from remit.core.scope import Scope
from remit.errors import UnsupportedScopeError
from remit.jose.strict import read_json
from remit.web.scope_templates import ScopeTemplate, Templates
from remit.web.wire import Form, printable

# what OpenID Connect has for refresh tokens, which every client of a flow gets: it stands for no authority
SILENT = frozenset({"offline_access"})


def expanded(
    form: Form, templates: Templates, client: str, resource: str | None = None, *, opening: bool = True
) -> dict[str, str]:
    """Return a form with the details that its ``scope`` stands for, or that of ``resource`` where it says neither.

    A name of what lies elsewhere than at ``resource`` is left out beside one that does not (RFC 8707 §2): clients ask
    for every scope that a server says it has. Where a task is opened (``opening``), purpose and time come from the
    templates too, unless the form has them.
    """
    told = {name: value for name, value in form.items() if name != "scope"}
    names = [name for name in dict.fromkeys(form.get("scope", "").split(" ")) if name and name not in SILENT]
    if not names and opening and resource in templates and "authorization_details" not in form:
        names = [str(resource)]
    if not names:
        return told
    here = [name for name in names if name not in templates or templates[name].lies_at(resource)]
    names = here if resource is not None and here else names
    found = [asked(name, templates, client) for name in names]
    own = scopes.parse(read_json(form["authorization_details"])) if "authorization_details" in form else ()
    told["authorization_details"] = scopes.text(joined((own, *(one.details for one in found))))
    if opening:
        told.setdefault("purpose", "; ".join(dict.fromkeys(one.purpose for one in found)))
        times = [one.ttl for one in found if one.ttl is not None]
        told.update({"ttl": str(min(times))} if times and "ttl" not in form else {})
    return told


def asked(name: str, templates: Templates, client: str) -> ScopeTemplate:
    """Return what a name stands for, if there is such a name and this client may ask for it."""
    found = templates.get(name)
    if found is None or not (not found.clients or client in found.clients or spiffe.matches(client, found.clients)):
        raise UnsupportedScopeError(f"`{printable(name)}` is not a scope that this client can ask for")
    return found


def in_words(scope: str, templates: Templates, details: Scope) -> str:
    """Return what names mean to people, beside the ``details`` that are asked for: theirs, or others too."""
    found = [templates[name] for name in dict.fromkeys(scope.split(" ")) if name in templates]
    words = [f"{one.name}: {one.title}" if one.title else one.name for one in found]
    if found and not set(joined([one.details for one in found])).issuperset(details):
        words.append("and more, which no scope names")
    return "; ".join(words)


def joined(parts: Sequence[Scope]) -> Scope:
    """Return the details of several scopes, each once."""
    return tuple(dict.fromkeys(detail for part in parts for detail in part))


def held(details: Scope, templates: Templates) -> str:
    """Return the names of all that a grant holds in whole: the ``scope`` of its token (RFC 6749 §5.1)."""
    there = set(details)
    return " ".join(name for name, one in templates.items() if there.issuperset(one.details))
