"""The two scripts a benchmark calls: seeded accounts log in without TLS, and find their rosters."""

import base64
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent.parent / "scripts" / "bench"
HEADER = (
    b"<stream:stream to='localhost' version='1.0' xmlns='jabber:client'"
    b" xmlns:stream='http://etherx.jabber.org/streams'>"
)


class Client:
    """A blocking client that sends bytes and reads until it has seen some others."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def ask(self, data: bytes, until: bytes) -> bytes:
        self.socket.sendall(data)
        seen = b""
        while until not in seen:
            chunk = self.socket.recv(65536)
            assert chunk, f"closed after {seen!r}"
            seen += chunk
        return seen

    def log_in(self, user: str, password: str) -> None:
        plain = base64.b64encode(f"\0{user}\0{password}".encode())
        assert b">PLAIN<" in self.ask(HEADER, b"</stream:features>")
        auth = b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>%s</auth>" % plain
        self.ask(auth, b"<success")
        self.ask(HEADER, b"</stream:features>")
        self.ask(b"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", b"</iq>")


def _start(folder: Path, port: int, profile: str) -> int:
    command = ["setsid", str(SCRIPTS / "start"), str(folder), str(port), profile]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    word, pid = done.stdout.split()
    assert word == "PID"
    assert (folder / "bench.pid").read_text().strip() == pid
    return int(pid)


@pytest.fixture(params=["full", "bare"])
def port(
    request: pytest.FixtureRequest, tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> Iterator[int]:
    """A server over a seeded store: 8 accounts, of which 2..7 form a ring in which each has 4 contacts."""
    port, _direct_tls = free_ports(2)
    subprocess.run([SCRIPTS / "seed", tmp_path, str(port), "localhost", "8", "2:6:4"], timeout=60, check=True)
    pid = _start(tmp_path, port, request.param)
    try:
        yield port
    finally:
        os.kill(pid, signal.SIGTERM)


def test_seeded_ring_is_served(port: int) -> None:
    client = Client(port)
    client.log_in("user2", "secret")
    roster = client.ask(b"<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>", b"</iq>")
    for contact in ("user3", "user4", "user6", "user7"):
        assert f"{contact}@localhost".encode() in roster
    assert roster.count(b"<item ") == 4
    assert roster.count(b"both") == 4
    assert roster.count(b"<group>**Default</group>") == 4


def test_direct_tls_is_on_the_next_port(port: int) -> None:
    socket.create_connection(("127.0.0.1", port + 1), timeout=10).close()


def test_accounts_can_be_registered(port: int) -> None:
    client = Client(port)
    assert b"http://jabber.org/features/iq-register" in client.ask(HEADER, b"</stream:features>")
    answer = client.ask(
        b"<iq type='set' id='n'><query xmlns='jabber:iq:register'>"
        b"<username>new</username><password>secret</password></query></iq>",
        b"id='n'",
    )
    assert b"result" in answer
    Client(port).log_in("new", "secret")


def test_the_generator_counts_units_between_two_calls_of_its_hook(port: int, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\necho $1 >>{tmp_path}/moments\n")
    hook.chmod(0o700)
    arguments = f"chat --n 4 --window 2 --count 30 --port {port} --hook {hook}"
    done = subprocess.run(
        [SCRIPTS / "loadgen", *arguments.split()], stdout=subprocess.PIPE, timeout=60, check=True
    )
    found = json.loads(done.stdout)
    assert (found["count"], found["sent"], found["lost"]) == (30, 30, 0)
    assert (tmp_path / "moments").read_text().split() == ["begin", "end"]
