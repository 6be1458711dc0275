"""What back ends and operators do with events."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

from xmppd.plugin import CommandError, Jid, JidError, Secret, command, utc_stamp

from .pushing import SLICE, shown
from .stanzas import MOST_VERSION, NOT_XML, RESOURCE, Event

if TYPE_CHECKING:
    from . import GameEvents

MOST: Final = 10_000
"""Players that one push is for."""
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
LISTED: Final = 1_000
USAGE: Final = 2


class EventCommands:
    """The commands of the plugin."""

    @property
    def _it(self) -> GameEvents:
        return cast("GameEvents", self)

    @command("Tell players that a resource is at a version now")
    async def push(
        self,
        resource: Annotated[str, "what it is about, as store/offers"],
        version: Annotated[int, "a whole number that rises with each change"],
        *,
        to: Annotated[
            list[str] | None, "a player: an address, its local part, or name#tag (plugin players)"
        ] = None,
        group: Annotated[list[str] | None, "the players of this group"] = None,
        players: Annotated[str, Secret("those in this file, one a line", lines=True)] = "",
        payload: Annotated[str, "what clients are told beside it"] = "",
        transient: Annotated[bool, "only for those who are there: nothing is kept"] = False,
    ) -> dict[str, Any]:
        """How many have it, and who was not reached. A repeat does no harm; an older version is told nobody
        who has a newer one.
        """
        it = self._it
        event = checked(resource, version, payload, it.config.payload_bytes)
        accounts = await self._meant(to or [], players.splitlines(), group or [])
        it.pushes.admit(len(accounts))
        began = it.scope.clock()
        told = {"resource": resource, "version": version, "recipients": len(accounts), "reached": 0}
        async with it.told.around("", **told):
            outcome, silent = await it.pushes.push(accounts, event, keeps=not transient)
            it.pushed.inc()
            it.recipients.inc(outcome.recipients)
            it.stale.inc(outcome.stale)
            it.seconds.observe(it.scope.clock() - began)
            reached = len(outcome.reached)
            await it.told.emit("", **{**told, "recipients": outcome.recipients, "reached": reached})
        return shown(outcome, silent)

    @command("Show what is kept for a player who comes", reads=True)
    async def show(self, account: Annotated[Jid, "the player"]) -> list[dict[str, Any]]:
        """The last version of each resource."""
        last: dict[str, dict[str, Any]] = {}
        for row in (await self._it.held.scan(account.bare, limit=LISTED)).rows:
            known = last.get(row["resource"])
            if known is None or row["version"] > known["version"]:
                at = utc_stamp(row["at"])
                about = {"version": row["version"], "at": at, "payload": row["payload"] or ""}
                last[row["resource"]] = {"resource": row["resource"], **about}
        return [last[name] for name in sorted(last)]

    # groups

    @command("Put players into a group, which need not be there")
    async def group_add(
        self,
        name: Annotated[str, "the name of the group"],
        *,
        to: Annotated[list[str] | None, "a player"] = None,
        players: Annotated[str, Secret("those in this file, one a line", lines=True)] = "",
    ) -> dict[str, int]:
        """Who is in it already stays."""
        it = self._it
        _named(name)
        accounts = await self._meant(to or [], players.splitlines(), [])
        async with it.server.lock(f"game-events:{name}"):
            there = {row["account"] for row in (await it.members.scan(name)).rows}
            fresh = [account for account in accounts if account not in there]
            if len(there) + len(fresh) > it.config.members:
                raise CommandError(f"a group has at most {it.config.members} players")
            added = 0
            for start in range(0, len(fresh), SLICE):
                async with it.server.writing_many(fresh[start : start + SLICE]) as some:
                    now = it.now()
                    if some:
                        await it.groups.write([it.by_player.rows([(one, name, now) for one in some])])
                        await it.members.write([it.by_group.rows([(name, one, now) for one in some])])
                    added += len(some)
        return {"added": added, "unknown": len(fresh) - added, "members": len(there) + added}

    @command("Take players out of a group, or with --all everybody")
    async def group_remove(
        self,
        name: Annotated[str, "the name of the group"],
        *,
        to: Annotated[list[str] | None, "a player"] = None,
        players: Annotated[str, Secret("those in this file, one a line", lines=True)] = "",
        all: Annotated[bool, "everybody: then it is gone"] = False,
    ) -> dict[str, int]:
        """Harmless for who is not in it."""
        it = self._it
        _named(name)
        there = [row["account"] for row in (await it.members.scan(name)).rows]
        meant = set(there) if all else set(await self._meant(to or [], players.splitlines(), []))
        gone = [account for account in there if account in meant]
        for start in range(0, len(gone), SLICE):
            some = gone[start : start + SLICE]
            await asyncio.gather(*(it.groups.delete(account, name) for account in some))
            await asyncio.gather(*(it.members.delete(name, account) for account in some))
        return {"removed": len(gone), "members": len(there) - len(gone)}

    @command("List the players of a group", reads=True)
    async def group_show(self, name: Annotated[str, "the name of the group"]) -> list[dict[str, str]]:
        """In the order of their addresses."""
        return [{"account": row["account"]} for row in (await self._it.members.scan(_named(name))).rows]

    # whom

    async def _meant(self, to: Sequence[str], lines: Sequence[str], groups: Sequence[str]) -> list[str]:
        """The accounts, each once; CommandError."""
        given = [*to, *(line.strip() for line in lines if line.strip())]
        if len(given) > MOST:
            raise CommandError(f"name at most {MOST} players", USAGE, field="to")
        names = {text: None for text in given if "#" in text and "@" not in text}
        known = dict(zip(names, await asyncio.gather(*map(self._named_by_players, names)), strict=True))
        found: dict[str, None] = {}
        for number, text in enumerate(given):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            found[known.get(text) or self._account(text)] = None
        for name in groups:
            rows = (await self._it.members.scan(_named(name))).rows
            if not rows:
                raise CommandError(f"there is no group {name}", field="group")
            found.update(dict.fromkeys(row["account"] for row in rows))
        if not found:
            raise CommandError("say which players: --to, --players or --group", USAGE, field="to")
        if len(found) > MOST:
            raise CommandError(f"these are {len(found)} players; tell at most {MOST}", USAGE, field="group")
        return [*found]

    async def _named_by_players(self, name: str) -> str:
        """The account of a player by `name#tag`; CommandError."""
        players = self._it.players
        account = await players.account_of(name) if players else None
        if account is None:
            raise CommandError(f"{name!r} is no player", field="to")
        return account

    def _account(self, text: str) -> str:
        domains = self._it.server.domains
        if "@" not in text and len(domains) == 1:
            text = f"{text}@{next(iter(domains))}"
        try:
            jid = Jid.parse(text)
        except JidError as error:
            raise CommandError(f"{text!r} is no player: {error}", USAGE, field="to") from None
        if not jid.local or jid.domain not in domains:
            raise CommandError(f"{text!r} is no account of this server", USAGE, field="to")
        return jid.bare


def checked(resource: str, version: int, payload: str, most: int) -> Event:
    """An event; CommandError for one that cannot be told."""
    if not RESOURCE.fullmatch(resource):
        raise CommandError("resource must be 1 to 255 characters without spaces", USAGE, field="resource")
    if not 0 <= version <= MOST_VERSION:
        raise CommandError(f"version must be 0 to {MOST_VERSION}", USAGE, field="version")
    if NOT_XML.search(payload):
        raise CommandError("payload has characters that XML cannot hold", USAGE, field="payload")
    if len(payload.encode()) > most:
        raise CommandError(f"payload must be at most {most} bytes", USAGE, field="payload")
    return Event(resource, version, payload)


def _named(name: str) -> str:
    if not NAME.fullmatch(name):
        raise CommandError("the name of a group is 1 to 100 letters, digits and . _ : -", USAGE, field="name")
    return name
