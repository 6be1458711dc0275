"""A night of moving, with the old server, its clients, and ours."""

import asyncio
import copy
import json
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bulkclient import Stream
from filling import AT_ONCE, Filled, together
from looks import Look, compare, items_in, look_at

from xmppd import ns

DOMAIN = "chat.example"
SECONDS = 90.0
"""How long one command may take on a busy machine."""

Mended = Callable[[Look], Look]


class Night:
    """Our side of it: a server of ours that is empty, and what clients of the old one were shown.

    `carried` makes of a look at the old server what may be expected after a format that loses something, and
    `shown` of a look at ours what the old server would show of it.
    """

    def __init__(self, server: Any, filled: Filled, before: dict[str, Look]) -> None:
        self.server = server
        self.filled = filled
        self.before = before

    def migrate(self, *words: str | Path) -> Any:
        """`xmppd migrate`, as a process; what it tells."""
        command = [sys.executable, "-m", "xmppd", "--config", str(self.server.file), "--json", "migrate"]
        done = subprocess.run(
            [*command, *map(str, words)],
            cwd=self.server.folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def take(self, export: Path, *options: str) -> dict[str, Any]:
        """Import all, which must find nothing wrong, and compare; what the import tells."""
        count = len(self.filled.passwords)
        done: dict[str, Any] = self.migrate("import", export, "--create", *options)
        assert (done["accounts"], done["made"]) == (count, count)
        verified = self.migrate("verify", export, *options)
        assert (verified["accounts"], verified["same"]) == (count, count)
        return done

    def look(self, carried: Mended = lambda look: look, shown: Mended = lambda look: look) -> None:
        """Log the sample in with the old passwords, and compare all that slixmpp is shown."""
        awaited = {jid: carried(look) for jid, look in copy.deepcopy(self.before).items()}
        ports = self.server.ports
        found = asyncio.run(
            look_at(self.filled.accounts, ports["starttls"], self.server.tls(), awaited=awaited)
        )
        for row in self.rows():  # ours shows to operators only whom an account blocks
            if row["account"] in found:
                found[row["account"]].blocks = sorted(row.get("blocks", ()))
        compare(awaited, {jid: shown(look) for jid, look in found.items()})

    def rows(self) -> list[dict[str, Any]]:
        """All accounts as JSON Lines have them."""
        target = self.server.folder / f"{secrets.token_hex(4)}.jsonl"
        self.migrate("export", target)
        return [json.loads(line) for line in target.read_text().splitlines()]

    def let_all_in(self, shown: Mended = lambda look: look) -> None:
        """Log everybody in, by one mechanism and the other, and compare their rosters."""

        async def one(number: int, user: str) -> None:
            stream = await Stream(DOMAIN, self.server.ports["direct"], self.server.tls()).connect()
            mechanism = ("PLAIN", "SCRAM-SHA-1")[number % 2]
            await stream.login(user, self.filled.passwords[user], mechanism)
            found[user] = items_in(await stream.ask("get", f"<query xmlns='{ns.ROSTER}'/>"))
            stream.close()

        async def everybody() -> None:
            await together(AT_ONCE, [one(number, user) for number, user in enumerate(self.filled.passwords)])

        found: dict[str, dict[str, dict[str, Any]]] = {}
        asyncio.run(everybody())
        asking = {
            row["account"]: {item["jid"]: [] for item in row.get("roster", ()) if item.get("pending")}
            for row in self.rows()
        }
        looks = {user: shown(Look(roster, asking[self.filled.jid(user)])) for user, roster in found.items()}
        rosters = {user: Look(look.roster) for user, look in looks.items()}
        compare({user: Look(roster) for user, roster in self.filled.rosters.items()}, rosters)


@pytest.fixture
def night(prepared_server: Any) -> Callable[[Filled, dict[str, Look]], Night]:
    """Makes an empty server of ours for one test."""

    def make(filled: Filled, before: dict[str, Look]) -> Night:
        return Night(prepared_server(server={"domains": [DOMAIN]}), filled, before)

    return make
