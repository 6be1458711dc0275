"""Whose archive is that of an account: read when it is first asked for, and again when nodes part."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any, Final

from xmppd import hooks
from xmppd.plugin import Lru, Person, StanzaError, StoreError, Table, cluster_signal

from .crowds import Crowded
from .preferences import Owner, owner_of

OWNERS: Final = 100_000
"""Of how many accounts it is remembered whose archive theirs is."""
NOBODY_SECONDS: Final = 1.0
"""How long it is believed that there is no account of a name."""


class Owning(Crowded):
    """Knows the owners of archives. While one is read for somebody all others who ask wait for that."""

    owners = Table(
        partition=("account",),
        columns={
            "uid": "int",
            "erased": "int",
            "standard": "text",
            "always": "text",
            "never": "text",
            "by_peer": "int",
        },
        person=Person("account", mentions={"always": "kept", "never": "kept"}),
    )

    async def start(self) -> None:
        """Nobody is known."""
        await super().start()
        self._known: Lru[str, Owner] = Lru(OWNERS)
        self._nobodies: dict[str, float] = {}
        self._learning: dict[str, asyncio.Future[None]] = {}
        self._changes = 0

    def _is_ours(self, account: str) -> bool:
        domain = account.rpartition("@")[2]
        return domain in self.server.domains and domain != account

    def _is_nobody(self, account: str) -> bool:
        """Whether it was seen lately that this is no account of which anything may be kept."""
        until = self._nobodies.get(account)
        return until is not None and until > self.now()

    async def _learn(self, account: str) -> None:
        """Find out whose archive is that of an account, or make it one; StoreError for all who wait."""
        while (other := self._learning.get(account)) is not None:
            await asyncio.shield(other)
            if self._known.get(account) is not None or self._is_nobody(account):
                return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._learning[account] = mine
        try:
            await self._read_owner(account)
        except StoreError as error:
            mine.set_exception(error)
            mine.exception()  # nobody may be waiting
            raise
        finally:
            del self._learning[account]
            if not mine.done():
                mine.set_result(None)  # if it was given up the next one reads

    async def _read_owner(self, account: str) -> None:
        """What was read before it was told of a change is read again."""
        changes, row = self._changes, await self._owner_row(account)
        while changes != self._changes:
            changes, row = self._changes, await self._owner_row(account)
        if row is None:
            if len(self._nobodies) >= OWNERS:
                self._nobodies.clear()
            self._nobodies[account] = self.now() + NOBODY_SECONDS
        else:
            self._nobodies.pop(account, None)
            self.note_crowd(row)
            self._known.put(account, owner_of(row))

    async def _owner_row(self, account: str) -> Mapping[str, Any] | None:
        """The row of an account, made if need be; None: there is no such account."""
        row = await self.owners.get(account)
        if row is None:
            async with self.server.writing(account) as exists:
                if exists:
                    uid = secrets.randbits(63)
                    await self.owners.put_if({"account": account, "uid": uid, "standard": "always"}, None)
                    row = await self.owners.get(account)
        return row

    async def _owner(self, account: str) -> Owner:
        if self._known.get(account) is None:
            await self._learn(account)
        owner = self._known.get(account)
        if owner is None:
            raise StanzaError("item-not-found", "There is no archive.")
        return owner

    async def uid_of(self, account: str) -> int | None:
        """The number of an archive, made now if need be; None: there is no such account."""
        if self._known.get(account) is None and self._is_ours(account) and not self._is_nobody(account):
            await self._learn(account)
        owner = self._known.get(account)
        return None if owner is None else owner.uid

    @cluster_signal
    def changed(self, account: str) -> None:
        """The archive of an account is another one, or its preferences are."""
        self._changes += 1
        self._known.drop(account)
        self._nobodies.pop(account, None)

    @hooks.node_met
    @hooks.node_lost
    def parted(self, node: str) -> None:
        """What was told of changes between two nodes that part is lost."""
        self._changes += 1
        self._known.clear()
        self._nobodies.clear()

    @hooks.account_moved
    def moved(self, old: str, new: str) -> None:
        """Both names are somebody else's now."""
        for account in (old, new):
            self._changes += 1
            self._known.drop(account)
            self._nobodies.pop(account, None)

    def owner_changed(self, account: str) -> None:
        """Tell all nodes that the archive of an account is another one."""
        self.changed.tell(account)
