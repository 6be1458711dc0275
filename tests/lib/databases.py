"""A real PostgreSQL and a real MariaDB on loopback, each in a folder of its own, while a test needs them."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

SETUP = Path(__file__).parent.parent.parent / "scripts/_setup"
PATIENCE = 90


def free_port() -> int:
    """A port of loopback that nobody listens on, and that the kernel gives to no outgoing connection."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """Its address without a name of a database; the user is postgres, and there is no password."""
    port = free_port()
    initdb = program("initdb", "postgresql")
    with _folder("postgres") as (folder, user):
        data = folder / "data"
        _run(
            [
                *user,
                initdb,
                "-D",
                data,
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "-N",
            ]
        )
        command = [*user, initdb.with_name("postgres"), "-D", data, "-p", port, "-F", "-k", ""]
        with _started([*command, "-c", "listen_addresses=127.0.0.1"], folder, port):
            yield f"postgresql://postgres:none@127.0.0.1:{port}"


@contextlib.contextmanager
def mariadb() -> Iterator[str]:
    """Its address without a name of a database; the user is root, and there is no password."""
    port = free_port()
    server = program("mariadbd", "mariadb-server")
    with _folder("mysql") as (folder, user):
        data = folder / "data"
        install = program("mariadb-install-db", "mariadb-server")
        options = ["--no-defaults", f"--datadir={data}"]
        _run([*user, install, *options, "--auth-root-authentication-method=normal", "--skip-test-db"])
        options += [f"--socket={folder}/s", f"--pid-file={folder}/pid", f"--port={port}"]
        command = [*user, server, *options, "--bind-address=127.0.0.1", "--skip-networking=0"]
        with _started(command, folder, port):
            yield f"mysql://root@127.0.0.1:{port}"


def psql(address: str, name: str, file: Path) -> None:
    """Make a database of a dump."""
    psql = program("psql", "postgresql-client")
    _run([psql, "-q", "-c", f'CREATE DATABASE "{name}"', address])
    _run([psql, "-q", "-f", file, f"{address}/{name}"])


def mysql(address: str, name: str, file: Path) -> None:
    """Make a database of a dump."""
    port = address.rpartition(":")[2]
    command = [program("mariadb", "mariadb-client"), "--no-defaults", "-h127.0.0.1", f"-P{port}", "-uroot"]
    _run([*command, "-e", f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4"])
    with file.open("rb") as text:
        subprocess.run(
            [*command, "--default-character-set=utf8mb4", name], stdin=text, check=True, timeout=PATIENCE
        )


def program(name: str, package: str) -> Path:
    """Where a program is, after its Debian package was installed if need be."""
    if found := _found(name):
        return found
    script = '. "$0" && apt_install "$1"'
    done = subprocess.run(["bash", "-c", script, SETUP, package], capture_output=True, text=True, check=False)
    found = _found(name)
    assert found, f"{name} is missing: install {package}\n{done.stdout}{done.stderr}"
    return found


def _found(name: str) -> Path | None:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    folders = [*map(str, reversed(versions)), os.environ["PATH"], "/usr/sbin"]
    found = shutil.which(name, path=":".join(folders))
    return Path(found) if found else None


@contextlib.contextmanager
def _folder(name: str) -> Iterator[tuple[Path, list[str]]]:
    """A folder of whom a server runs as, and how to become that: neither server likes to be root."""
    with tempfile.TemporaryDirectory(prefix=f"xmppd-{name}-", ignore_cleanup_errors=True) as made:
        tied = ["setpriv", "--pdeathsig", "KILL"]
        if os.geteuid() == 0:
            user = pwd.getpwnam(name)
            os.chown(made, user.pw_uid, user.pw_gid)
            tied += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        yield Path(made), [*tied, "--"]


@contextlib.contextmanager
def _started(command: Sequence[object], folder: Path, port: int) -> Iterator[None]:
    log = folder / "output.log"
    with log.open("wb") as output:
        process = subprocess.Popen([*map(str, command)], stdout=output, stderr=output, cwd=folder)
    try:
        _wait(process, log, port)
        yield
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path, port: int) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise AssertionError(f"the database does not answer:\n{log.read_text()[-3000:]}")


def _run(command: Sequence[object]) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
