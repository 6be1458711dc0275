"""The package as a stranger gets it: built, put into an empty virtual environment, run from elsewhere."""

import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import xmppd

ROOT = Path(__file__).parent.parent
UV = ROOT / ".tools" / "bin" / "uv"
INDEX_HOSTS = {"pypi.org", "files.pythonhosted.org"}
STREAM_HEADER = (
    b"<stream:stream to='localhost' version='1.0' xmlns='jabber:client'"
    b" xmlns:stream='http://etherx.jabber.org/streams'>"
)


def run(*command: str | Path, cwd: Path, **environ: str) -> str:
    """The standard output of a command that must succeed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**_environ(), **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command} exited {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _environ() -> dict[str, str]:
    """The environment without what would let the checkout or a config of the developer's shine through."""
    hidden = ("XMPPD", "PYTHON", "VIRTUAL_ENV", "XDG_")
    return {key: value for key, value in os.environ.items() if not key.startswith(hidden)}


def build(folder: Path) -> tuple[Path, Path]:
    """The wheel and the sdist, made from the checkout."""
    run(UV, "build", "--quiet", "--python", sys.executable, "--out-dir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a virtual environment that holds the wheel and what it depends on, nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    run(UV, "venv", "--quiet", "--python", sys.executable, "venv", cwd=folder)
    run(UV, "pip", "install", "--quiet", "--python", "venv", built[0], cwd=folder)
    return folder / "venv" / "bin"


@dataclass(frozen=True)
class Served:
    """A running server of the installed package; `environ` is what its environment says about its config."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path
    environ: dict[str, str]


@pytest.fixture
def served(installed: Path, tmp_path: Path, free_ports: Callable[[int], list[int]]) -> Iterator[Served]:
    starttls, direct = free_ports(2)
    environ = {
        "XMPPD__SERVER__DATA_FOLDER": str(tmp_path / "data"),
        "XMPPD__LISTEN__C2S": f"[{{port: {starttls}}}, {{port: {direct}, tls: direct}}]",
    }
    with (tmp_path / "log").open("wb") as log:
        command = [str(installed / "xmppd"), "serve"]
        process = subprocess.Popen(
            command, cwd=tmp_path, env={**_environ(), **environ}, stdout=log, stderr=log
        )
    server = Served(process, starttls, tmp_path / "log", environ)
    try:
        wait_for_port(server)
        yield server
    finally:
        process.kill()
        process.wait()


def wait_for_port(server: Served, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.log.read_text()
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=30).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"port {server.port} stayed closed: {server.log.read_text()}")


def test_wheel_holds_config_and_plugins(built: tuple[Path, Path]) -> None:
    names = set(zipfile.ZipFile(built[0]).namelist())
    for folder in ("config", "plugins"):
        files = [
            file for file in (ROOT / folder).rglob("*") if file.is_file() and file.suffix in {".py", ".yaml"}
        ]
        assert files
        assert {f"xmppd/_data/{file.relative_to(ROOT)}" for file in files} <= names
    assert "xmppd/__main__.py" in names
    assert not any(name.startswith(("tests/", "plugins/", "config/")) for name in names)


def test_sdist_holds_what_a_distributor_needs(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "LICENSE",
        "README.md",
        "uv.lock",
        "scripts/_setup",
        "tests/test_package.py",
        "config/xmppd.yaml",
    } <= names
    assert not any(name.startswith((".venv", ".tools", "data/")) for name in names)


def test_version(installed: Path, tmp_path: Path) -> None:
    assert xmppd.__version__ in run(installed / "xmppd", "--version", cwd=tmp_path)
    assert xmppd.__version__ in run(installed / "python", "-m", "xmppd", "--version", cwd=tmp_path)


def test_installed_package_is_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = run(installed / "python", "-c", "import xmppd; print(xmppd.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)


def test_built_in_config_is_good(installed: Path, tmp_path: Path) -> None:
    run(installed / "xmppd", "check-config", cwd=tmp_path)


def test_serves_with_built_in_plugins(served: Served, installed: Path, tmp_path: Path) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client:
        client.sendall(STREAM_HEADER)
        assert b"starttls" in client.recv(4096)
    listed = run(installed / "xmppd", "plugin", "list", cwd=tmp_path, **served.environ)
    assert "disco" in listed
    assert "ping" in listed


def test_stops_cleanly(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client:
        client.sendall(STREAM_HEADER)
        client.recv(4096)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(timeout=30) == 0, served.log.read_text()


def test_lock_names_only_the_public_index() -> None:
    text = (ROOT / "uv.lock").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://([^/\"\s]+)", text)) <= INDEX_HOSTS
    for package in tomllib.loads(text)["package"]:
        (kind,) = package["source"].keys() & {"registry", "editable"}
        assert (kind == "editable") == (package["name"] == "xmppd")


def test_lock_belongs_to_this_project() -> None:
    run(UV, "lock", "--quiet", "--check", "--project", ROOT, "--python", sys.executable, cwd=ROOT)
