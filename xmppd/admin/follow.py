"""The commands that go on until their caller leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Protocol

from xmppd.admin.builtin import Account, account_of
from xmppd.admin.commands import ALL, NO_PERMISSION, USAGE, Caller, command
from xmppd.admin.registry import Records
from xmppd.errors import CommandError
from xmppd.jid import Jid

BODIES: Final = "trace:bodies"
"""The scope of who may see what people write."""


MOST_BUSIEST: Final = 50


class Following(Protocol):
    """What these commands need."""

    def open(self, name: str, arguments: Mapping[str, Any]) -> Records:
        """Follow something on all nodes; CommandError."""


class FollowCommands:
    """What happens, as it happens."""

    def __init__(self, following: Following) -> None:
        self._following = following

    @command(
        "Show what an account sends and is sent, and where it goes, as it happens",
        name="trace",
        reads=True,
        guarded=True,
        follows=True,
    )
    def trace(
        self,
        account: Account,
        caller: Caller,
        *,
        bodies: Annotated[bool, "with what people wrote; no passwords or tokens in any case"] = False,
    ) -> Records:
        """A record for each stanza, login, session and decision, on whatever node it is."""
        if bodies and caller.scopes is not None and caller.scopes.isdisjoint((BODIES, ALL)):
            raise CommandError(f"bodies take the scope {BODIES}", NO_PERMISSION, field="bodies", rule="scope")
        return self._following.open("trace", {"account": account_of(account), "bodies": bodies})

    @command(
        "Show events of web hooks as they happen", name="event watch", reads=True, guarded=True, follows=True
    )
    def events(
        self,
        *,
        kind: Annotated[list[str] | None, "only these kinds, or beginnings with a star (`session.*`)"] = None,
        account: Annotated[Jid | None, "only what happens to this account"] = None,
    ) -> Records:
        """A record for each, on whatever node it happens; nothing is kept for who is not there."""
        whose = "" if account is None else account_of(account)
        return self._following.open("event watch", {"kinds": kind or ["*"], "account": whose})

    @command("Show how each node is doing, again and again", name="top", reads=True, follows=True)
    def top(
        self,
        *,
        seconds: Annotated[float, "how often"] = 2.0,
        most: Annotated[int, "so many of the busiest accounts of each node"] = 10,
    ) -> Records:
        """A snapshot of each node: sessions, stanzas by kind, CPU, lag, memory, who sends most."""
        if not 0.5 <= seconds <= 60:
            raise CommandError("seconds must be 0.5 to 60", USAGE, field="seconds", rule="seconds")
        if not 0 <= most <= MOST_BUSIEST:
            raise CommandError(f"most must be 0 to {MOST_BUSIEST}", USAGE, field="most", rule="most")
        return self._following.open("top", {"seconds": seconds, "most": most})
