"""http_hostile [--only CASE,...] [--url URL --token TOKEN]: a client that means ill, against our own HTTP.

Each case says something that no good client would, over a plain socket, and knows which answers are right.
Behind it a good client asks for something small, which has to be answered at once. So a case passes when the
answer is right, nobody else noticed, and the server has logged no error.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "hostile-" + "0123456789abcdef" * 2
CANARY_SECONDS = 2.0
"""How long a good client waits, beside anything."""
PATIENCE = 45.0
"""How long an answer, or the end of the connection, is waited for."""
SMUGGLED = "GET /api/v1/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
BODY = b'{"account": "hostile@localhost", "password": "x"}'


class Failed(Exception):
    """Why a case did not pass."""


@dataclass(frozen=True)
class Target:
    """The server: where it is, and a token that may do everything."""

    host: str
    port: int
    token: str

    def connect(self) -> socket.socket:
        """One more connection."""
        return socket.create_connection((self.host, self.port), PATIENCE)

    def request(
        self, method: str, path: str, *headers: str, body: bytes = b"", token: str | None = None
    ) -> bytes:
        """A request as a good client would send it."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
        lines.append(f"Authorization: Bearer {self.token if token is None else token}")
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode() + body

    def say(self, data: bytes) -> "Answer":
        """Send something on a connection of its own; all that comes until it is closed, or is silent."""
        with self.connect() as peer:
            with contextlib.suppress(OSError):  # it may be closed before all is sent
                peer.sendall(data)
            return read(peer)

    def canary(self) -> None:
        """A good client asks for something small."""
        begun = time.monotonic()
        with socket.create_connection((self.host, self.port), CANARY_SECONDS) as peer:
            peer.sendall(self.request("GET", "/api/v1/user/keys", "Connection: close"))
            answer = read(peer, CANARY_SECONDS)
        if answer.statuses != [200]:
            raise Failed(f"a good client got {answer.statuses}")
        if time.monotonic() - begun > CANARY_SECONDS:
            raise Failed("a good client had to wait")


@dataclass(frozen=True)
class Answer:
    """The statuses of all answers, in order, and whether the server closed the connection."""

    data: bytes
    is_closed: bool

    @property
    def statuses(self) -> list[int]:
        """Those of the answers."""
        return [int(status) for status in STATUS.findall(self.data)]


def read(peer: socket.socket, silence: float = 3.0) -> Answer:
    """What comes until the end, or until nothing has come for so many seconds."""
    data = bytearray()
    peer.settimeout(silence)
    try:
        while piece := peer.recv(65536):
            data += piece
            if len(data) > 8_000_000:
                break
    except TimeoutError:
        return Answer(bytes(data), is_closed=False)
    except OSError:
        pass
    return Answer(bytes(data), is_closed=True)


# cases

Case = Callable[[Target], None]
CASES: dict[str, tuple[str, Case]] = {}


def case(name: str, about: str) -> Callable[[Case], Case]:
    """One more case."""

    def add(function: Case) -> Case:
        assert name not in CASES
        CASES[name] = about, function
        return function

    return add


def expect(answer: Answer, *statuses: int, closed: bool = False) -> None:
    """The first answer has one of these statuses (0: there may be none), and nothing was smuggled in."""
    found = answer.statuses
    if not found and 0 not in statuses:
        raise Failed(f"no answer{', and the connection is open' if not answer.is_closed else ''}")
    if found and found[0] not in statuses:
        raise Failed(f"status {found[0]}, and not {' or '.join(map(str, filter(None, statuses)))}")
    if closed and not answer.is_closed:
        raise Failed("the connection is still open")


def raw(name: str, about: str, data: bytes | str, *statuses: int, closed: bool = True) -> None:
    """A case that says one thing, with `TOKEN` for a token; it is refused, and the connection closed."""

    def run(target: Target) -> None:
        text = data.encode("latin-1") if isinstance(data, str) else data
        answer = target.say(text.replace(b"TOKEN", target.token.encode()))
        expect(answer, *statuses, closed=closed)
        if len(answer.statuses) > 1:
            raise Failed(f"several answers: {answer.statuses}")

    case(name, about)(run)


GOOD = "Host: localhost\r\nAuthorization: Bearer TOKEN\r\n"
KEYS = "GET /api/v1/user/keys HTTP/1.1\r\n"
POST = f"POST /api/v1/user/add HTTP/1.1\r\n{GOOD}"

raw("R1", "a request line without a version", f"GET /livez\r\n{GOOD}\r\n", 400, 0)
raw("R2", "a version that is none", f"GET / HTTP/9.9\r\n{GOOD}\r\n", 400, 505, 0)
raw("R3", "the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 505, 0)
raw("R4", "a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200, 400, 0)
raw("R5", "binary", bytes(range(256)) * 64, 400, 0)
raw(
    "R6",
    "a method that nobody knows",
    f"DANCE /api/v1/user/add HTTP/1.1\r\n{GOOD}Connection: close\r\n\r\n",
    400,
    405,
    501,
)
raw("R7", "a method of 100 kB", "A" * 100_000 + f" / HTTP/1.1\r\n{GOOD}\r\n", 400, 0)
raw("R8", "a path of 100 kB", f"GET /{'a' * 100_000} HTTP/1.1\r\n{GOOD}\r\n", 400, 414, 0)
raw("R9", "a NUL in the path", f"GET /api\0/v1 HTTP/1.1\r\n{GOOD}Connection: close\r\n\r\n", 400, 404)
raw(
    "R10",
    "a tunnel",
    "CONNECT localhost:22 HTTP/1.1\r\nHost: localhost:22\r\nConnection: close\r\n\r\n",
    400,
    404,
    405,
)
raw(
    "R11",
    "another host's page",
    f"GET http://example.org/ HTTP/1.1\r\n{GOOD}Connection: close\r\n\r\n",
    400,
    404,
)
raw("R12", "nothing but line ends", "\r\n" * 20_000, 400, 0, closed=False)
raw("H1", "a header of 100 kB", f"GET /api/v1 HTTP/1.1\r\n{GOOD}X: {'a' * 100_000}\r\n\r\n", 400, 431)
raw("H2", "1,000 headers", f"GET /api/v1 HTTP/1.1\r\n{GOOD}" + "X: a\r\n" * 1000 + "\r\n", 400, 431)
raw("H3", "a header without a colon", f"GET /api/v1 HTTP/1.1\r\n{GOOD}nonsense\r\n\r\n", 400)
raw("H4", "a space before the colon", f"{POST}Content-Length : 5\r\n\r\n12345", 400)
raw("H5", "a folded header", f"GET /api/v1 HTTP/1.1\r\n{GOOD}X: a\r\n b\r\n\r\n", 400)
raw("H6", "a NUL in a header", f"GET /api/v1 HTTP/1.1\r\n{GOOD}X: a\0b\r\n\r\n", 400)
raw("H7", "a bare CR in a header", f"GET /api/v1 HTTP/1.1\r\n{GOOD}X: a\rb\r\n\r\n", 400)
raw("H8", "a header without a name", f"GET /api/v1 HTTP/1.1\r\n{GOOD}: a\r\n\r\n", 400)
raw(
    "S1",
    "both length and chunks",
    f"{POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}",
    400,
)
raw("S2", "two lengths", f"{POST}Content-Length: 0\r\nContent-Length: {len(SMUGGLED)}\r\n\r\n{SMUGGLED}", 400)
raw("S3", "a list of lengths", f"{POST}Content-Length: 0, {len(SMUGGLED)}\r\n\r\n{SMUGGLED}", 400)
raw("S4", "a signed length", f"{POST}Content-Length: +5\r\n\r\n12345", 400)
raw("S5", "a negative length", f"{POST}Content-Length: -5\r\n\r\n{SMUGGLED}", 400)
raw("S6", "a length in hex", f"{POST}Content-Length: 0x5\r\n\r\n12345", 400)
raw("S7", "a length with an underscore", f"{POST}Content-Length: 1_0\r\n\r\n1234567890", 400)
raw("S8", "an unknown coding", f"{POST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{SMUGGLED}", 400, 501)
raw(
    "S9",
    "chunked, but not last",
    f"{POST}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{SMUGGLED}",
    400,
    501,
)
raw(
    "S10",
    "chunked twice",
    f"{POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}",
    400,
)
raw(
    "S11",
    "a chunk with a signed size",
    f"{POST}Transfer-Encoding: chunked\r\n\r\n+5\r\n12345\r\n0\r\n\r\n",
    400,
)
raw(
    "S12",
    "a chunk of a size beyond all",
    f"{POST}Transfer-Encoding: chunked\r\n\r\n{'f' * 17}\r\nabc\r\n0\r\n\r\n",
    400,
    413,
)
raw(
    "S13",
    "a chunk that is longer than it says",
    f"{POST}Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
    400,
)
raw(
    "S14",
    "a chunk extension of 100 kB",
    f"{POST}Transfer-Encoding: chunked\r\n\r\n1;{'a' * 100_000}\r\na\r\n0\r\n\r\n",
    400,
    413,
    closed=False,
)
raw(
    "S15",
    "an upgrade",
    f"GET /api/v1/user/keys HTTP/1.1\r\n{GOOD}Connection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n",
    200,
    400,
)
raw(
    "S16",
    "HTTP/1.0 with chunks",
    f"POST /api/v1/user/add HTTP/1.0\r\n{GOOD}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}",
    400,
)
raw("B1", "a body that is too long", f"{POST}Content-Length: 100000000000\r\n\r\n{{", 413)
raw(
    "B2",
    "a compressed body",
    f"{POST}Content-Encoding: gzip\r\nContent-Length: 4\r\nConnection: close\r\n\r\nabcd",
    415,
)
raw(
    "B3",
    "JSON of 10,000 lists",
    f"{POST}Content-Length: 10000\r\nConnection: close\r\n\r\n" + "[" * 10_000,
    400,
)
raw(
    "B4",
    "JSON that is no UTF-8",
    POST.encode() + b'Content-Length: 4\r\nConnection: close\r\n\r\n"\xff\xff"',
    400,
)
raw(
    "B5",
    "a number of 5,000 digits",
    f"{POST}Content-Length: 5011\r\nConnection: close\r\n\r\n" + '{"account":' + "9" * 4999 + "}",
    400,
)
raw(
    "B6",
    "surrogates",
    f'{POST}Content-Length: 44\r\nConnection: close\r\n\r\n{{"account": "\\ud800@localhost", "password":1}}',
    400,
)
raw("B7", "NaN", f"{POST}Content-Length: 16\r\nConnection: close\r\n\r\n" + '{"account": NaN}', 400)
raw(
    "B8",
    "a key twice",
    f"{POST}Content-Length: 28\r\nConnection: close\r\n\r\n" + '{"account": 1, "account": 2}',
    400,
)
raw("P2", "an encoded slash", f"GET /api/v1/user%2fkeys HTTP/1.1\r\n{GOOD}Connection: close\r\n\r\n", 404)
raw("P3", "an encoded NUL", f"GET /api/v1/user/keys%00 HTTP/1.1\r\n{GOOD}Connection: close\r\n\r\n", 404)
raw(
    "P4",
    "UTF-8 that is too long",
    f"GET /api/v1/user%c0%afkeys HTTP/1.1\r\n{GOOD}Connection: close\r\n\r\n",
    404,
)
raw("P5", "slashes twice", f"GET //api//v1//user//keys HTTP/1.1\r\n{GOOD}Connection: close\r\n\r\n", 404)
raw(
    "P6",
    "2,000 fields",
    f"GET /api/v1/user/keys?{'a=1&' * 1900} HTTP/1.1\r\n{GOOD}Connection: close\r\n\r\n",
    400,
)
raw("P7", "a thousand segments", f"GET {'/a' * 1000} HTTP/1.1\r\n{GOOD}Connection: close\r\n\r\n", 404)
raw("P8", "a fragment", f"GET /api/v1/user/keys#x HTTP/1.1\r\n{GOOD}Connection: close\r\n\r\n", 200, 400, 404)
raw("T1", "no token", "GET /api/v1/user/keys HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 401)
raw(
    "T2",
    "a token in the query",
    "GET /api/v1/user/keys?token=TOKEN&access_token=TOKEN HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    401,
)
raw(
    "T3",
    "a token that is a password",
    "GET /api/v1/user/keys HTTP/1.1\r\nHost: x\r\nAuthorization: Basic TOKEN\r\nConnection: close\r\n\r\n",
    401,
)
raw(
    "T4",
    "an empty token",
    "GET /api/v1/user/keys HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \r\nConnection: close\r\n\r\n",
    401,
)
raw(
    "T5",
    "a token that is no text",
    KEYS.encode() + b"Host: x\r\nAuthorization: Bearer \xff\xfe\r\nConnection: close\r\n\r\n",
    401,
    400,
)
raw(
    "T6",
    "two tokens, the second good",
    f"{KEYS}Host: x\r\nAuthorization: Bearer x\r\nAuthorization: Bearer TOKEN\r\nConnection: close\r\n\r\n",
    400,
    401,
)


@case("P1", "paths that lead up")
def lead_up(target: Target) -> None:
    """Not one of them gets to another place."""
    for path in (
        "/x/../api/v1/user/keys",
        "/x/%2e%2e/api/v1/user/keys",
        "/../../etc/passwd",
        "/api/v1/../../livez",
    ):
        expect(target.say(target.request("GET", path, "Connection: close")), 404)


@case("T7", "10,000 requests without a token")
def many_strangers(target: Target) -> None:
    """In a row on a few connections: each is refused, and good clients are served meanwhile."""
    one = b"GET /api/v1/user/keys HTTP/1.1\r\nHost: x\r\n\r\n"
    refused = 0
    for _ in range(20):
        with target.connect() as peer:
            for _ in range(10):
                with contextlib.suppress(OSError):
                    peer.sendall(one * 50)
                    refused += peer.recv(1) != b""
            target.canary()
            statuses = read(peer, 0.5).statuses
        if not set(statuses) <= {401, 429}:
            raise Failed(f"statuses {set(statuses)}")
    if not refused:
        raise Failed("nobody answered")


@case("T8", "guessing 2,000 tokens")
def guess(target: Target) -> None:
    """No guess is right, and none makes others wait."""
    with target.connect() as peer:
        for number in range(2_000):
            with contextlib.suppress(OSError):
                peer.sendall(target.request("GET", "/api/v1/user/keys", token=f"{number:064x}"))
                if b" 200 " in peer.recv(65536).split(b"\r\n", 1)[0]:
                    raise Failed("a guess was right")
            if number % 500 == 0:
                target.canary()


@case("L1", "a header that comes a byte a second")
def slow_header(target: Target) -> None:
    """The connection is closed in the end."""
    drip(target, b"GET / HTTP/1.1\r\nX: " + b"a" * 100, 1.0)


@case("L2", "a body that comes a byte a second")
def slow_body(target: Target) -> None:
    """The request is given up."""
    with target.connect() as peer:
        peer.sendall(f"{POST}Content-Length: 500000\r\n\r\n".replace("TOKEN", target.token).encode())
        drip_on(peer, b"{" * 100, 1.0)


@case("L3", "200 connections that say nothing")
def silent(target: Target) -> None:
    """Others are served, and they are closed."""
    peers = [target.connect() for _ in range(200)]
    try:
        target.canary()
        for peer in peers[:5]:
            if not read(peer, PATIENCE).is_closed:
                raise Failed("one of them stays")
    finally:
        for peer in peers:
            peer.close()


@case("L4", "an answer that is not read")
def slow_reader(target: Target) -> None:
    """Pages without end, and nobody who takes them."""
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.settimeout(PATIENCE)
        peer.connect((target.host, target.port))
        one = b"GET /api/v1 HTTP/1.1\r\nHost: x\r\n\r\n"
        with contextlib.suppress(OSError):
            peer.settimeout(1.0)
            for _ in range(200):
                peer.sendall(one * 20)
        for _ in range(5):
            target.canary()


@case("L5", "leaving in the midst of a body, 300 times")
def leave(target: Target) -> None:
    """Nothing is done of it, and nothing is left."""
    for _ in range(300):
        with target.connect() as peer:
            peer.sendall(
                f"{POST}Content-Length: {len(BODY)}\r\n\r\n".replace("TOKEN", target.token).encode()
                + BODY[:-1]
            )
    answer = target.say(
        target.request("GET", "/api/v1/user/show?account=hostile@localhost", "Connection: close")
    )
    expect(answer, 404)


def drip(target: Target, data: bytes, pause: float) -> None:
    """Send byte after byte until the server has had enough."""
    with target.connect() as peer:
        drip_on(peer, data, pause)


def drip_on(peer: socket.socket, data: bytes, pause: float) -> None:
    """The same on a connection that is there."""
    end = time.monotonic() + PATIENCE
    for byte in data:
        try:
            peer.sendall(bytes([byte]))
            peer.settimeout(pause)
            answer = peer.recv(65536)
        except TimeoutError:
            pass
        except OSError:
            return
        else:
            if not answer or STATUS.match(answer):
                return
        if time.monotonic() > end:
            raise Failed(f"it is waited for after {PATIENCE:g} s")


# the run


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[Target, Path]]:
    """A server of our own, and its log."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], other.getsockname()[1]
    config = {
        "server": {"data_folder": str(folder / "data")},
        "listen": {
            "c2s": [{"address": "127.0.0.1", "port": ports[0]}],
            "http": {"address": "127.0.0.1", "port": ports[1]},
        },
        "http": {
            "tokens": [{"name": "all", "sha256": hashlib.sha256(TOKEN.encode()).hexdigest(), "scopes": ["*"]}]
        },
    }
    (folder / "xmppd.yaml").write_text(json.dumps(config))
    log = folder / "log"
    command = [sys.executable, "-m", "xmppd", "--config", str(folder / "xmppd.yaml"), "serve"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stderr=out, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
    try:
        target = Target("127.0.0.1", ports[1], TOKEN)
        for _ in range(200):
            with contextlib.suppress(OSError, Failed):
                target.canary()
                break
            time.sleep(0.1)
        yield target, log
        process.send_signal(signal.SIGTERM)
        if process.wait(30) != 0:
            raise SystemExit("the server did not end well")
    finally:
        process.kill()
        process.wait()


def errors_in(log: Path | None) -> list[str]:
    """The errors that the server has logged."""
    if log is None:
        return []
    return [
        line
        for line in log.read_text(errors="replace").splitlines()
        if '"error"' in line or "Traceback" in line
    ]


def run(target: Target, log: Path | None, names: list[str]) -> int:
    """Run cases; how many failed."""
    failed = 0
    for name in names:
        about, function = CASES[name]
        before, begun, why = len(errors_in(log)), time.monotonic(), ""
        try:
            function(target)
            target.canary()
        except (Failed, OSError) as error:
            why = str(error) or type(error).__name__
        if not why and (new := errors_in(log)[before:]):
            why = f"the server logged {new[0][:200]}"
        failed += bool(why)
        seconds = time.monotonic() - begun
        print(f"{'FAIL' if why else 'PASS'} {name:<4} {about} ({seconds:.1f} s) {why}".rstrip(), flush=True)
    return failed


def main() -> int:
    """Run all of them, or some."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", metavar="CASE,...", help="only these, or groups of them by letter"
    )
    parser.add_argument("--url", default="", help="of a server that runs")
    parser.add_argument("--token", default=TOKEN, help="one of its tokens, with the scope *")
    options = parser.parse_args()
    wanted = [name for name in options.only.split(",") if name]
    names = [name for name in CASES if not wanted or name in wanted or name[0] in wanted]
    if options.url:
        parts = urlsplit(options.url)
        failed = run(Target(parts.hostname or "", parts.port or 80, options.token), None, names)
    else:
        with (
            tempfile.TemporaryDirectory(prefix="xmppd-http-") as folder,
            served(Path(folder)) as (target, log),
        ):
            failed = run(target, log, names)
    print(f"{len(names) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
