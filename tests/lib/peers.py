"""Prosody and ejabberd as Debian packs them, each in a folder of its own, on free loopback ports, as who runs
the tests; with the tools by which their operators export and import.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from ports import free_ports, is_listening

SECONDS = 60.0
"""How long a server may take to start or stop, or one of its tools to end."""


class Peer(Protocol):
    """A server that accounts are moved from, and back to."""

    port: int
    domain: str

    def start(self) -> None:
        """Start it, and wait until it listens."""

    def stop(self) -> None:
        """End it well; harmless if it does not run."""


class Process:
    """A server's process, known by its pid, that ends with the tests at the latest."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "output.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str | Path], port: int, environ: dict[str, str]) -> None:
        """Start it, and wait until it listens on a port."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                cwd=self.log.parent,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + SECONDS
        while not is_listening(port):
            assert self._process.poll() is None, f"it did not start: {self.log.read_text()}"
            assert time.monotonic() < deadline, f"it does not listen: {self.log.read_text()}"
            time.sleep(0.05)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when that is of no use; harmless if it does not run."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def tool(*command: str | Path, folder: Path) -> str:
    """Run one of a server's tools; what it says."""
    environ = {"HOME": str(folder), "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    environ["LANG"] = "C.UTF-8"
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environ, capture_output=True, timeout=SECONDS, check=False
    )
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, said
    return said


def installed(name: str) -> str:
    """Where a program is; AssertionError."""
    found = shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    assert found, f"{name} is missing: scripts/test installs it"
    return found


PROSODY = """
data_path = {data}
pidfile = {pidfile}
run_as_root = true
daemonize = false
plugin_paths = {{}}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {port} }}
c2s_direct_tls_ports = {{}}
s2s_ports = {{}}
component_ports = {{}}
http_ports = {{}}
https_ports = {{}}
storage = {storage}
sql = {{ driver = "SQLite3"; database = {database} }}
authentication = "internal_hashed"
default_iteration_count = 4096
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
allow_registration = true
log = {{ warn = "*console" }}
modules_enabled = {{ "roster"; "saslauth"; "disco"; "ping"; "register_ibr"; "presence"; "message"; "iq";
  "offline"; "posix"; "c2s"; "blocklist"; "private"; "pep"; {vcard} }}
modules_disabled = {{ "s2s"; "limits"; "tls"; "cron" }}
VirtualHost {domain}
"""

OF_XEP_0227 = ("accounts", "roster", "vcard", "private", "pep-pubsub")
"""Stores that prosody-migrator can write as XEP-0227; any other ends it."""

OF_ALL = (*OF_XEP_0227, "account_details", "blocklist", "offline-archive")

MIGRATOR = """
local stores = {{ {stores} }}
input {{ hosts = {{ [{domain}] = stores }}; type = {source_type}; path = {source} }}
output {{ hosts = {{ [{domain}] = stores }}; type = {target_type}; path = {target};
  driver = "SQLite3"; database = {target} }}
"""


class Prosody:
    """Prosody with hashed passwords. `storage` is internal or sql, `vcard` the module that keeps vCards."""

    def __init__(
        self, folder: Path, domain: str, *, storage: str = "internal", vcard: str = "vcard_legacy"
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.domain = folder, domain
        self.data = folder / "data"
        self.database = folder / "prosody.sqlite"
        self.data.mkdir(exist_ok=True)
        [self.port] = free_ports(1)
        self._process = Process(folder)
        settings = {
            "data": self.data,
            "pidfile": folder / "prosody.pid",
            "database": self.database,
            "storage": storage,
            "vcard": vcard,
            "domain": domain,
        }
        quoted = {name: json.dumps(str(value)) for name, value in settings.items()}
        self._config = folder / "prosody.cfg.lua"
        self._config.write_text(PROSODY.format(port=self.port, **quoted))

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = [installed("prosody"), "--root", "--config", self._config, "-F"]
        environ = {"HOME": str(self.folder), "PATH": "/usr/bin:/bin"}
        self._process.start(command, self.port, environ)

    def stop(self) -> None:
        """End it well; harmless if it does not run."""
        self._process.stop()

    def to_sql(self, target: Path) -> Path:
        """Write everything into an SQLite file by prosody-migrator."""
        self._migrate(OF_ALL, source=self.data, source_type="internal", target=target, target_type="sql")
        return target

    def to_xep_0227(self, target: Path) -> Path:
        """Write a folder of documents by prosody-migrator."""
        target.mkdir()
        internal = {"source": self.data, "source_type": "internal"}
        self._migrate(OF_XEP_0227, target, **internal, target=target, target_type="xep0227")
        return target

    def take_xep_0227(self, source: Path) -> None:
        """Take in a folder of documents by prosody-migrator."""
        internal = {"target": self.data, "target_type": "internal"}
        self._migrate(OF_XEP_0227, source, **internal, source=source, source_type="xep0227")

    def _migrate(self, stores: Sequence[str], documents: Path | None = None, **settings: str | Path) -> None:
        """Run prosody-migrator: documents are always in the folder that was fixed when it was packed, so a
        copy has another.
        """
        quoted = {name: json.dumps(str(value)) for name, value in settings.items()}
        quoted["stores"] = "; ".join(map(json.dumps, stores))
        config = self.folder / "migrator.cfg.lua"
        config.write_text(MIGRATOR.format(domain=json.dumps(self.domain), **quoted))
        program = self.folder / "prosody-migrator"
        text = Path(installed("prosody-migrator")).read_text()
        here = json.dumps(str(documents or self.folder))
        text, count = re.subn("(?m)^CFG_DATADIR=.*$", lambda _: f"CFG_DATADIR={here}", text)
        assert count == 1, "this prosody-migrator has no folder"
        program.write_text(text)
        program.chmod(0o755)
        tool(program, "--root", "--config", config, folder=self.folder)


EJABBERD: dict[str, Any] = {
    "loglevel": "warning",
    "auth_password_format": "scram",
    "registration_timeout": "infinity",
    "shaper": {},
    "max_fsm_queue": 100_000,
    "shaper_rules": {"max_user_offline_messages": "infinity", "max_user_sessions": 100},
    "api_permissions": {"tests": {"from": ["mod_http_api"], "who": {"ip": "127.0.0.1/8"}, "what": "*"}},
    "modules": {
        "mod_roster": {},
        "mod_disco": {},
        "mod_ping": {},
        "mod_register": {"access": "all", "ip_access": "all", "allow_modules": "all"},
        "mod_offline": {"access_max_user_messages": "max_user_offline_messages"},
        "mod_blocking": {},
        "mod_privacy": {},
        "mod_private": {},
        "mod_last": {},
        "mod_vcard": {"search": False},
        "mod_http_api": {},
    },
}


class Ejabberd:
    """ejabberd without Erlang's distribution, so nothing but its ports listens; its commands by mod_http_api.
    `storage` is mnesia or sql (SQLite, in `database`).
    """

    def __init__(self, folder: Path, domain: str, *, storage: str = "mnesia") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.domain = folder, domain
        self.database = folder / "ejabberd.sqlite"
        self.port, self._api = free_ports(2)
        self._process = Process(folder)
        (self.home,) = sorted(Path("/usr/lib").glob("*/ejabberd-*/ebin"))[:1] or [None]
        assert self.home is not None, "ejabberd is missing: scripts/test installs it"
        is_sql = storage == "sql"
        config = {
            **EJABBERD,
            "hosts": [domain],
            "auth_method": "sql" if is_sql else "internal",
            "default_db": "sql" if is_sql else "mnesia",
            "listen": [
                {"port": self.port, "ip": "127.0.0.1", "module": "ejabberd_c2s", "access": "all"},
                {
                    "port": self._api,
                    "ip": "127.0.0.1",
                    "module": "ejabberd_http",
                    "request_handlers": {"/api": "mod_http_api"},
                },
            ],
        }
        if is_sql:
            config |= {"sql_type": "sqlite", "sql_database": str(self.database)}
            schema = self.home.parent / "priv/sql/lite.sql"
            with sqlite3.connect(self.database) as database:
                database.execute("pragma journal_mode = wal")  # as it is, each write waits for the disk
                database.executescript(schema.read_text())
            database.close()
        (folder / "ejabberd.yml").write_text(json.dumps(config, indent=1))  # JSON is YAML

    def start(self) -> None:
        """Start it, and wait until it listens."""
        assert self.home is not None
        environ = {
            "HOME": str(self.folder),
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "EJABBERD_CONFIG_PATH": str(self.folder / "ejabberd.yml"),
            "EJABBERD_LOG_PATH": str(self.folder / "ejabberd.log"),
            "ERL_CRASH_DUMP_SECONDS": "0",
            "ERL_LIBS": str(self.home.parent.parent),
        }
        spool = f'"{self.folder / "spool"}"'
        command = [installed("erl"), "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"]
        command += ["-mnesia", "dir", spool, "-s", "ejabberd", "-noinput"]
        self._process.start(command, self._api, environ)
        self.command("registered_users", host=self.domain)  # it listens before its SQLite is there

    def said(self) -> str:
        """The end of its log."""
        log = self.folder / "ejabberd.log"
        return log.read_text(errors="replace")[-4_000:] if log.exists() else "no log"

    def stop(self) -> None:
        """End it well; harmless if it does not run."""
        self._process.stop()

    def command(self, name: str, **arguments: str) -> Any:
        """Run one of the commands of ejabberdctl; its result."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._api}/api/{name}",
            data=json.dumps(arguments).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return json.loads(answer.read())

    def dump(self, target: Path) -> Path:
        """Write all of Mnesia as text."""
        self.command("dump", file=str(target))
        return target

    def database_to(self, target: Path) -> Path:
        """A copy of the SQLite file."""
        with sqlite3.connect(self.database) as source, sqlite3.connect(target) as copy:
            source.backup(copy)
        source.close()
        copy.close()
        return target

    def to_xep_0227(self, target: Path) -> Path:
        """Write documents of XEP-0227 into a folder; the main one."""
        target.mkdir()
        self.command("export_piefxis", dir=str(target))
        return min(target.iterdir(), key=lambda path: len(path.name))

    def take_xep_0227(self, source: Path) -> None:
        """Take in a document of XEP-0227, and those that it includes."""
        self.command("import_piefxis", file=str(source))
