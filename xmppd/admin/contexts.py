"""Servers elsewhere, by a name on this machine: where each takes commands by HTTP, and with which token."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from xmppd.admin.commands import NO_PERMISSION, USAGE, Secret, command
from xmppd.errors import CommandError

VARIABLE: Final = "XMPPD_CONTEXT"
"""Names the context to use, where `--context` does not."""
NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
LOOPBACK: Final = frozenset(("localhost", "127.0.0.1", "::1"))


@dataclass(frozen=True, slots=True)
class Context:
    """One server: the address of its HTTP, and a bearer token."""

    url: str
    token: str


class Contexts:
    """Kept in a file that nobody else may read: `xmppd/contexts.json` among a user's settings (XDG)."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        home = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or "/") / ".config"
        self.file = Path(home) / "xmppd" / "contexts.json"

    def find(self, name: str) -> Context:
        """The one of this name; CommandError."""
        found = self._read()
        if name not in found:
            known = f": there are {', '.join(sorted(found))}" if found else "; `xmppd context add` makes one"
            raise CommandError(f"there is no context {name!r}{known}", USAGE)
        return found[name]

    def _read(self) -> dict[str, Context]:
        try:
            with self.file.open() as file:
                if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                    message = f"{self.file} holds tokens and others may read it: chmod 600 {self.file}"
                    raise CommandError(message, NO_PERMISSION)
                return {name: Context(**about) for name, about in json.load(file).items()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (ValueError, TypeError, AttributeError):
            raise CommandError(f"{self.file} is not a file of contexts") from None

    def _write(self, contexts: Mapping[str, Context]) -> None:
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self.file.with_suffix(f".{os.getpid()}")
        text = json.dumps({name: asdict(about) for name, about in sorted(contexts.items())}, indent=2)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(f"{text}\n")
        fresh.replace(self.file)

    # commands

    @command("Remember a server elsewhere, and the token for it", name="context add")
    def add(
        self,
        name: Annotated[str, "what it is called here"],
        url: Annotated[str, "where it takes commands by HTTP, such as https://chat.example.org"],
        token: Annotated[str, Secret("its token")],
    ) -> dict[str, str]:
        """It takes the place of one of this name."""
        if not NAME.fullmatch(name):
            raise CommandError("a name has letters, digits, and . _ -", USAGE)
        parts = urlsplit(url)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.path.strip("/")
            or parts.query
        ):
            raise CommandError(f"{url} is not an address such as https://chat.example.org:5281", USAGE)
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise CommandError("without TLS a token goes to this machine only: use https", USAGE)
        self._write({**self._read(), name: Context(url.rstrip("/"), token)})
        return {"added": name}

    @command("List the servers elsewhere that are remembered", name="context list", reads=True)
    def every(self) -> list[dict[str, str]]:
        """A row for each, without its token."""
        return [{"name": name, "url": about.url} for name, about in sorted(self._read().items())]

    @command("Forget a server elsewhere, and its token", name="context remove")
    def remove(self, name: Annotated[str, "what it is called here"]) -> dict[str, Any]:
        """CommandError where there is none of that name."""
        self.find(name)
        self._write({other: about for other, about in self._read().items() if other != name})
        return {"removed": name}
