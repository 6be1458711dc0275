"""How long it takes from `xmppd serve` to the first accepted login, and what the imports of it cost."""

import base64
import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPEATS = 5
PATIENCE = 30.0
HEADER = (
    b"<stream:stream to='localhost' version='1.0' xmlns='jabber:client'"
    b" xmlns:stream='http://etherx.jabber.org/streams'>"
)
PLAIN = base64.b64encode(b"\0user7\0secret")
CONFIG = """\
server: {{domains: [localhost], data_folder: {data}}}
listen:
  c2s: [{{address: 127.0.0.1, port: {port}, tls: starttls}}]
tls: {{required: false}}
auth: {{plain_without_tls: true}}
"""


@contextlib.contextmanager
def serving(data: Path, port: int, environ: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`xmppd serve` with the default plugins, stopped in the end."""
    config = data / "xmppd.yaml"
    config.write_text(CONFIG.format(data=data, port=port))
    command = [sys.executable, "-m", "xmppd", "serve"]
    environ = {**os.environ, **environ, "XMPPD_CONFIG": str(config)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=data, env=environ, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=PATIENCE)


def connected(port: int, deadline: float) -> socket.socket:
    """A connection, as soon as there can be one."""
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit("the server did not come up") from None
            time.sleep(0.002)


def log_in(client: socket.socket) -> None:
    """Log in as user7; returns when the server has accepted it."""
    for data, awaited in (
        (HEADER, b"</stream:features>"),
        (b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>%s</auth>" % PLAIN, b"<success"),
    ):
        client.sendall(data)
        seen = b""
        while awaited not in seen:
            chunk = client.recv(65536)
            if not chunk:
                raise SystemExit(f"the server closed the stream after {seen!r}")
            seen += chunk


def once(data: Path, port: int, environ: dict[str, str]) -> float:
    """Seconds from the start of the process to the first accepted login."""
    began = time.monotonic()
    with serving(data, port, environ, data / "start.log"), connected(port, began + PATIENCE) as client:
        log_in(client)
        return time.monotonic() - began


def copied(seed: Path) -> Path:
    """A fresh copy of a seed."""
    data = seed.parent / "start"
    shutil.rmtree(data, ignore_errors=True)
    shutil.copytree(seed, data)
    return data


def measure_start(seed: Path, port: int) -> dict[str, Any]:
    """The median of some starts; the first, which makes a certificate, is told apart."""
    data = copied(seed)
    first, *others = (once(data, port, {}) for _ in range(REPEATS + 1))
    return {
        "key": "start",
        "server": "xmppd",
        "seconds": statistics.median(others),
        "slowest": max(others),
        "first": first,
    }


def import_table(seed: Path, port: int, rows: int = 25) -> str:
    """The modules that took longest to import, by their own time (`-X importtime`)."""
    data = copied(seed)
    once(data, port, {})
    once(data, port, {"PYTHONPROFILEIMPORTTIME": "1"})
    found = []
    for line in (data / "start.log").read_text(errors="replace").splitlines():
        parts = line.removeprefix("import time:").split("|")
        if line.startswith("import time:") and parts[0].strip().isdigit():
            found.append((int(parts[0]), int(parts[1]), parts[2].strip()))
    found.sort(reverse=True)
    total = sum(own for own, _, _ in found)
    lines = [
        f"{len(found)} modules, {total / 1000:.0f} ms",
        "",
        "| module | own ms | with what it imports |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {own / 1000:.1f} | {whole / 1000:.1f} |" for own, whole, name in found[:rows]]
    return "\n".join(lines)
