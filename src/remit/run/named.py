"""Variables that a project names for its runs: what remit gives a run, under other names, or a text. Pure."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from remit.errors import InvalidRequestError

PROJECT = "remit.toml"  # the file of a project
SOURCES = ("placeholder", "url", "lease")
FORMS = "it is `placeholder:RESOURCE`, `url:RESOURCE/path`, `lease:RESOURCE`, or `=text`"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_PATH = re.compile(r"[!-~]*")
# What the launcher sets, what the loader obeys before a program begins, and what the name of a command means.
_KEPT = re.compile(r"REMIT_.*|LD_.*|DYLD_.*|GCONV_PATH|GLIBC_TUNABLES|HOME|USER|PATH")
_STEERING = re.compile(
    r"PYTHON.*|NODE_.*|NPM_CONFIG_.*|GIT_.*|BASH_ENV|ENV|SHELL|EDITOR|VISUAL|PAGER|BROWSER|PERL.*|RUBY.*|GEM_.*|LUA_.*|PHP.*"
    r"|CLASSPATH|.*JAVA_.*OPTIONS|JAVA_HOME|MAVEN_OPTS|GRADLE_OPTS|GO[A-Z]+|CARGO_.*|RUSTC.*|DENO_.*|BUN_.*|PIP_.*|UV_.*"
    r"|.*_PROXY|SSL_CERT_.*|.*CA_BUNDLE|.*_CAINFO|.*_CERT|OPENSSL_.*|SSLKEYLOGFILE|PGSSL.*|PGSERVICEFILE|XDG_.*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class NamedVariable:
    """One variable: where its value comes from, and of which resource; a text has no ``source``."""

    name: str
    source: str  # one of SOURCES; empty: ``of`` is the value
    of: str
    path: str = ""  # after a URL, with the slash before it

    @property
    def steers(self) -> bool:
        """Whether programs know its name as one that decides what code they run, or whom they trust."""
        return _STEERING.fullmatch(self.name) is not None


def read(name: str, text: object) -> NamedVariable:
    """Read a variable of a project's file, or raise InvalidRequestError naming it."""
    if _NAME.fullmatch(name) is None:
        raise InvalidRequestError(f"`env` has a variable {name[:128]!r}", help="names are made of A-Z, a-z, 0-9 and _")
    if _KEPT.fullmatch(name):
        raise InvalidRequestError(f"`env.{name}` cannot be set by a file", help="say it at the command, with --env")
    if isinstance(text, str) and text.startswith("=") and text.isprintable():
        return NamedVariable(name, "", text[1:])
    source, colon, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
    of, slash, path = rest.partition("/")
    if source not in SOURCES or not colon or not of or (slash and source != "url") or not _PATH.fullmatch(path):
        raise InvalidRequestError(f"`env.{name}` has no value that can be read", help=FORMS)
    return NamedVariable(name, source, of, slash + path)


def label(resource: str) -> str:
    """Return how a resource is called in the names of variables."""
    return resource.upper().replace("-", "_").replace(".", "_")


def values(named: Iterable[NamedVariable], given: Mapping[str, str]) -> dict[str, str]:
    """Return the named variables of a run that was ``given`` its own; of leases none."""
    found = {}
    for each in named:
        if each.source == "lease":
            continue
        key = f"REMIT_{'URL' if each.source == 'url' else 'KEY'}_{label(each.of)}"
        if key not in given:
            raise InvalidRequestError(
                f"`{each.name}` cannot be set: `{each.of}` is not used through the gateway", help=FORMS
            )
        found[each.name] = given[key] + each.path
    return found


def doubled(shared: Mapping[str, Sequence[str]], chosen: Container[str]) -> list[str]:
    """Return lines that say which resource has variables that others would have, too, but for those that are chosen."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, of in shared.items():
        if name not in chosen:
            groups.setdefault(tuple(of), []).append(name)
    return [
        f"remit: {' and '.join(names)} are those of `{first}`, which the grant has first; "
        + ", ".join(
            f"`{each}` {'' if at else 'is '}at REMIT_URL_{label(each)} with REMIT_KEY_{label(each)}"
            for at, each in enumerate(others)
        )
        for (first, *others), names in groups.items()
    ]
