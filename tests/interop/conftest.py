"""A server of its own process, started as its users start it, and accounts on it."""

import itertools
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import stores

from xmppd.admin.client import request

SECONDS = 60.0
"""How long anything may take on a busy machine."""


class Account(NamedTuple):
    """Whom a client logs in as."""

    jid: str
    password: str

    @property
    def name(self) -> str:
        """The part before the @."""
        return self.jid.partition("@")[0]


class ServerProcess:
    """`python -m xmppd serve` in a folder of its own, with free loopback ports that it keeps over restarts.

    Everything it logs is kept in `records`, one mapping for each line.
    """

    def __init__(self, folder: Path, settings: dict[str, dict[str, Any]] | None = None) -> None:
        self.folder = folder
        self.file = folder / "xmppd.yaml"
        self.ports = {"starttls": 0, "direct": 0}
        self.records: list[dict[str, Any]] = []
        self._engines = stores.engine_settings()
        self._settings = {**self._engines, **(settings or {})}
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._said = threading.Condition()
        self._ended = False
        self._numbers = itertools.count(1)
        self._configure()

    def _configure(self) -> None:
        listeners = [{"address": "127.0.0.1", "port": port, "tls": tls} for tls, port in self.ports.items()]
        config = {"server": {"data_folder": str(self.folder / "data")}, "listen": {"c2s": listeners}}
        # The fewest iterations that clients accept: one of them derives its keys in Python.
        config["auth"] = {"iterations": 4096}
        for section, values in self._settings.items():
            config[section] = {**config.get(section, {}), **values}
        self.file.write_text(json.dumps(config, indent=2))  # JSON is YAML

    # its life

    def start(self) -> None:
        """Start it, and wait until it listens."""
        before = len(self.records)
        self._ended = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "xmppd", "--config", str(self.file), "serve"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=environment(),
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr,), daemon=True)
        self._reader.start()
        addresses = self.wait_for("listening", since=before)["addresses"].split(",")
        self.ports = {tls: int(at.rpartition(":")[2]) for tls, at in zip(self.ports, addresses, strict=True)}
        self._configure()

    def stop(self) -> None:
        """SIGTERM must end it well, and soon."""
        assert self._process is not None and self._process.poll() is None, (
            f"it ended by itself: {self.records}"
        )
        self.signal(signal.SIGTERM)
        assert self._process.wait(SECONDS) == 0, self.records
        self._close()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, as a power failure would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(SECONDS)
        self._close()

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def remove(self) -> None:
        """Delete what it kept in shared engines."""
        if self._engines:
            stores.drop_keyspaces(self._engines["store"]["cassandra"]["keyspace"])

    def _close(self) -> None:
        assert self._reader is not None and self._process is not None and self._process.stderr is not None
        self._reader.join(SECONDS)
        self._process.stderr.close()

    def _read(self, stderr: Any) -> None:
        for line in stderr:
            try:
                record = json.loads(line)
            except ValueError:
                record = {"level": "error", "event": f"this is no JSON: {line}"}
            with self._said:
                self.records.append(record)
                self._said.notify_all()
        with self._said:
            self._ended = True
            self._said.notify_all()

    def wait_until(self, come_true: Callable[[], bool]) -> None:
        """Look again and again whether something that the server does not tell has come true."""
        deadline = time.monotonic() + SECONDS
        while not come_true():
            assert time.monotonic() < deadline, "it did not come true"
            time.sleep(0.05)

    # its log

    def wait_for(self, event: str, since: int = 0) -> dict[str, Any]:
        """The first record of an event from number `since` on."""

        def find() -> dict[str, Any] | None:
            return next((record for record in self.records[since:] if record["event"] == event), None)

        with self._said:
            self._said.wait_for(lambda: find() or self._ended, SECONDS)
            found = find()
        assert found, f"the server did not log {event!r}: {self.records[since:]}"
        return found

    def check_log(self) -> None:
        """Nothing may have gone wrong inside."""
        wrong = [r for r in self.records if r["level"] in ("error", "critical") or "exception" in r]
        assert not wrong, str(wrong)[:6000]

    # what is done with it

    def run(self, *arguments: str, given: str = "") -> Any:
        """Run one command of the command line; its result."""
        done = subprocess.run(
            [sys.executable, "-m", "xmppd", "--config", str(self.file), "--json", *arguments],
            input=given,
            capture_output=True,
            cwd=self.folder,
            env=environment(),
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def add(self, account: Account) -> Account:
        """Add an account to the running server, through the socket that the command line uses."""
        arguments = {"account": account.jid, "password": account.password}
        request(self.folder / "data" / "xmppd.sock", "user add", arguments)
        return account

    def account(self, name: str, domain: str = "localhost") -> Account:
        """A new account; its name begins with the one given."""
        number = next(self._numbers)
        return self.add(Account(f"{name}{number}@{domain}", f"secret of {name} {number}"))

    def status(self) -> dict[str, Any]:
        """What `xmppd status` shows."""
        status: dict[str, Any] = request(self.folder / "data" / "xmppd.sock", "status", {})
        return status

    @property
    def certificate(self) -> Path:
        """The development certificate that it made."""
        return self.folder / "data" / "development.crt"

    def tls(self) -> ssl.SSLContext:
        """A client's context that trusts the development certificate and nothing else."""
        context = ssl.create_default_context(cafile=self.certificate)
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python does by default from 3.13 on
        context.set_alpn_protocols(["xmpp-client"])
        return context


def environment() -> dict[str, str]:
    """Ours, without settings for xmppd."""
    return {name: value for name, value in os.environ.items() if not name.startswith("XMPPD")}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The server that tests share; they make accounts of their own on it."""
    process = ServerProcess(tmp_path_factory.mktemp("server"))
    process.start()
    yield process
    process.stop()
    process.remove()
    process.check_log()


@pytest.fixture(scope="module")
def module_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """The server of a file, with its SETTINGS."""
    process = ServerProcess(tmp_path_factory.mktemp("server"), request.module.SETTINGS)
    process.start()
    yield process
    process.stop()
    process.remove()
    process.check_log()


@pytest.fixture
def prepared_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Makes a server for one test that is not started yet: `prepared_server(auth={"login_seconds": 1})`."""
    made: list[ServerProcess] = []

    def make(**settings: dict[str, Any]) -> ServerProcess:
        folder = tmp_path / f"server-{len(made)}"
        folder.mkdir()
        made.append(ServerProcess(folder, settings))
        return made[-1]

    yield make
    for process in made:
        if process.running:
            process.stop()
        process.remove()
        process.check_log()


@pytest.fixture
def own_server(prepared_server: Callable[..., ServerProcess]) -> Callable[..., ServerProcess]:
    """Starts a server for one test: `own_server(auth={"login_seconds": 1})`."""

    def start(**settings: dict[str, Any]) -> ServerProcess:
        process = prepared_server(**settings)
        process.start()
        return process

    return start
