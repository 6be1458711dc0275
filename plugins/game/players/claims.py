"""Who has which name: one row for each name, one for each player, and an order of writes in which a kill at
any moment leaves nothing that is not set right by who comes next.

A player's row says which name it has (`name`), which it had before (`former`), and which it is about to have
(`claiming`). It is written before a name is taken and after; each write expects the `version` of the one
before. So a name whose row says `held` belongs to its player only if the player's row says so, too. Who wants
a name that was left behind first moves on the version of that player's row, whose late writes are in vain
from then on.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from xmppd.plugin import Person, StanzaError, Table

from .names import Name, keys_of

if TYPE_CHECKING:
    from . import Players

ATTEMPTS: Final = 8
UNDER_WAY: Final = 30.0
"""Seconds for which a name that is being claimed is left alone."""
DAY: Final = 86_400.0
HELD, KEPT, RESERVED = "held", "kept", "reserved"

Row = Mapping[str, Any]


class Taken(StanzaError):
    """Somebody else has the name, or nobody may have it."""

    def __init__(self) -> None:
        super().__init__("conflict", "This name is taken.")


class Claims:
    """The tables of names, and how they are changed."""

    profiles = Table(
        partition=("account",),
        columns={
            "name": "text",
            "former": "text",
            "claiming": "text",
            "named": "timestamp",
            "by": "text",
            "version": "int",
            "changed": "timestamp",
        },
        person=Person("account"),
    )
    """The player: his name, since when, and who gave it to him."""
    names = Table(
        partition=("key",),
        columns={
            "name": "text",
            "account": "text",
            "state": "text",
            "until": "timestamp",
            "why": "text",
            "mark": "int",
        },
        person=Person(mentions={"account": "deleted"}),
    )
    """Names by what they look like: held by a player, kept back after he gave it up, or reserved."""
    history = Table(
        partition=("account",),
        cluster=("since",),
        columns={"since": "timestamp", "name": "text", "until": "timestamp", "by": "text"},
        ttl=730 * DAY,
        person=Person("account"),
    )
    """The names that a player had before."""

    @property
    def _it(self) -> Players:
        return cast("Players", self)

    # reading

    async def owner_of(self, name: Name) -> str | None:
        """The account that has a name; None for nobody."""
        for key in name.keys:
            row = await self.names.get(key)
            if row is not None and row["state"] == HELD:
                profile = await self.profiles.get(row["account"])
                if profile is not None and key in keys_of(profile["name"] or ""):
                    return str(row["account"])
        return None

    # taking a name

    async def take(
        self, account: str, wanted: Name, *, by: str, pause: float, forced: bool = False
    ) -> str | None:
        """Give an account a name; the one that it had before. Taken; StanzaError policy-violation as long as
        its name is newer than `pause` seconds. `forced` also takes one that is reserved, or kept back.
        """
        async with self._it.server.writing(account) as exists:
            if not exists:
                raise StanzaError("item-not-found", "There is no such player.")
            for _ in range(ATTEMPTS):
                profile = await self.profiles.get(account)
                if profile is not None and profile["name"] == str(wanted):
                    return str(wanted)
                self._it.check_pause(profile, pause)
                if not await self._can_be_had(account, wanted, forced=forced):
                    raise Taken
                if await self._try(account, profile, wanted, by, forced=forced):
                    return (profile and profile["name"]) or None
        raise StanzaError("resource-constraint", "The name is being changed elsewhere, too.")

    async def _try(self, account: str, profile: Row | None, wanted: Name, by: str, *, forced: bool) -> bool:
        """One attempt; False where the player's row was changed by somebody else meanwhile."""
        now, version = self._it.now(), profile["version"] if profile else 0
        claim = {"account": account, "claiming": str(wanted), "version": version + 1, "changed": now}
        if not await self.profiles.put_if(claim, {"version": version} if profile else None):
            return False
        if not await self._hold_all(account, wanted, forced=forced):
            await self.profiles.put_if(
                {"account": account, "claiming": "", "version": version + 2}, {"version": version + 1}
            )
            raise Taken
        old = (profile and profile["name"]) or ""
        if profile and old:
            former = {"since": profile["named"], "name": old, "until": now, "by": profile["by"]}
            await self.history.put({"account": account, **former})
        given = {
            "account": account,
            "name": str(wanted),
            "former": old or (profile and profile["former"]) or "",
            "claiming": "",
            "named": now,
            "by": by,
            "version": version + 2,
            "changed": now,
        }
        if not await self.profiles.put_if(given, {"version": version + 1}):
            return False  # what was held is nobody's: see `_is_free`
        await self._keep_back([key for key in keys_of(old) if key not in wanted.keys], account)
        return True

    async def _can_be_had(self, account: str, wanted: Name, *, forced: bool) -> bool:
        """Whether it is worth a try: asked first, so that who guesses makes nobody write."""
        for key in wanted.any_keys if not forced else ():
            reserved = await self.names.get(key)
            if reserved is not None and reserved["account"] != account:
                return False
        for key in wanted.keys:
            row = await self.names.get(key)
            if row is None or row["account"] == account:
                continue
            if not await self._is_free(row, forced=forced, looks_only=True):
                return False
        return True

    async def _hold_all(self, account: str, wanted: Name, *, forced: bool) -> bool:
        """Take the rows of a name; whether it was given all. What it took and may not keep is nobody's."""
        for key in wanted.keys:
            row = await self.names.get(key)
            if row is not None and row["account"] != account and not await self._is_free(row, forced=forced):
                return False
            held = row_of(key, str(wanted), account, HELD)
            if not await self.names.put_if(held, None if row is None else {"mark": row["mark"]}):
                return False
        return True

    async def _is_free(self, row: Row, *, forced: bool, looks_only: bool = False) -> bool:
        """Whether a name may be taken from who is in its row. Where a claim was left behind its player's row
        is moved on, unless one `looks_only`.
        """
        if row["state"] == RESERVED:
            return forced
        if row["state"] == KEPT:
            return forced or (row["until"] or 0.0) <= self._it.now()
        key, account = row["key"], row["account"]
        owner = await self.profiles.get(account)
        if owner is None or key in keys_of(owner["name"] or ""):
            return False  # without a row the account is moving to another address
        if key in keys_of(owner["former"] or ""):
            left = [it for it in keys_of(owner["former"]) if it not in keys_of(owner["name"] or "")]
            until = await self._keep_back(left, account, since=owner["named"])
            return looks_only and until <= self._it.now()  # the row is another one now
        if key in keys_of(owner["claiming"] or ""):
            if self._it.now() - owner["changed"] < UNDER_WAY:
                return False
            moved_on = {"account": account, "claiming": "", "version": owner["version"] + 1}
            return looks_only or await self.profiles.put_if(moved_on, {"version": owner["version"]})
        return True

    # giving names up

    async def _keep_back(
        self, keys: Sequence[str], account: str, *, for_whom: str | None = None, since: float | None = None
    ) -> float:
        """Give a name up that an account held, `since` then: others get it after a while only, for they would
        be taken for who had it; the moment. It stays with `for_whom`, by default the account, which may come
        back to it.
        """
        seconds = self._it.config.kept_days * DAY
        until: float = (self._it.now() if since is None else since) + seconds
        for key in keys:
            row = await self.names.get(key)
            if row is None or row["account"] != account or row["state"] != HELD:
                continue
            heir = account if for_whom is None else for_whom
            kept = row_of(key, row["name"], heir, KEPT, until=until)
            await self.names.put_if(kept, {"mark": row["mark"]}, ttl=seconds + DAY)
        return until

    async def leave(self, account: str) -> None:
        """The account is removed: its names are kept back for nobody, and what is known of it goes."""
        profile = await self.profiles.get(account)
        for column in ("name", "former", "claiming"):
            if profile is not None and profile[column]:
                await self._keep_back(keys_of(profile[column]), account, for_whom="")
        await self.history.delete(account)
        await self.profiles.delete(account)

    async def follow(self, old: str, new: str) -> None:
        """The account has another address, and its rows are there: names follow. A repeat is harmless."""
        profile = await self.profiles.get(new)
        texts = [profile[column] for column in ("name", "former", "claiming")] if profile is not None else []
        for key in (key for text in texts if text for key in keys_of(text)):
            row = await self.names.get(key)
            if row is not None and row["account"] == old:
                left = None if row["until"] is None else max(1.0, row["until"] - self._it.now()) + DAY
                moved = row_of(key, row["name"], new, row["state"], until=row["until"])
                await self.names.put_if(moved, {"mark": row["mark"]}, ttl=left)

    # for operators

    async def reserve(self, text: str, account: str, why: str) -> bool:
        """Let nobody have a name, but for an account if one is named; whether that is so now."""
        for key in keys_of(text):
            row = await self.names.get(key)
            if row is not None and row["state"] == HELD and not await self._is_free(row, forced=True):
                return False
            reserved = row_of(key, text, account, RESERVED, why=why)
            if not await self.names.put_if(reserved, None if row is None else {"mark": row["mark"]}):
                return False
        return True

    async def release(self, text: str) -> bool:
        """Let a name be free that is reserved or kept back, or that nobody has who is said to; whether it was
        one of these.
        """
        is_released = False
        for key in keys_of(text):
            row = await self.names.get(key)
            if row is None or (row["state"] == HELD and not await self._is_free(row, forced=True)):
                continue
            is_released = await self.names.delete_if(key, expect={"mark": row["mark"]}) or is_released
        return is_released


def row_of(
    key: str, name: str, account: str, state: str, *, until: float | None = None, why: str = ""
) -> dict[str, Any]:
    """A row of `names`, whole."""
    return {
        "key": key,
        "name": name,
        "account": account,
        "state": state,
        "until": until,
        "why": why,
        "mark": new_mark(),
    }


def new_mark() -> int:
    """By which one writing of a row is told from all others."""
    return secrets.randbits(62) + 1
