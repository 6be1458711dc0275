"""Whose archive is that of an account: read when it is first asked for, and again when nodes part."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from xmppd import hooks
from xmppd.plugin import (
    Lru,
    Person,
    StanzaError,
    StoreError,
    StoreUnavailable,
    Table,
    begun,
    cluster_signal,
)

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
        self._doubtful: set[str] = set()
        self._learning: dict[str, asyncio.Future[None]] = {}
        self._changes = 0

    def _is_ours(self, account: str) -> bool:
        domain = account.rpartition("@")[2]
        return domain in self.server.domains and domain != account

    def _is_nobody(self, account: str) -> bool:
        """Whether it was seen lately that this is no account of which anything may be kept."""
        until = self._nobodies.get(account)
        return until is not None and until > self.now()

    def _learn(self, account: str) -> Awaitable[None] | None:
        """Find out whose archive is that of an account, or make it one: what to wait for, StoreError, or None
        where nothing has to be. It goes on whoever waits, and when: a message may do so long after it began.
        """
        told = self._learning.get(account)
        if told is None:
            reading = begun(self._read_owner(account))
            if reading is None:
                return None
            told = self._learning[account] = asyncio.get_running_loop().create_future()
            self.spawn(self._tell_owner(account, reading, told))
        return asyncio.shield(told)

    async def _tell_owner(self, account: str, reading: Awaitable[None], told: asyncio.Future[None]) -> None:
        error: StoreError | None = StoreUnavailable("the archive is being unloaded")
        try:
            await reading
            error = None
        except StoreError as failed:
            error = failed
        finally:
            del self._learning[account]
            if error is None:
                told.set_result(None)
            else:
                told.set_exception(error)
                told.exception()  # nobody may be waiting

    async def _read_owner(self, account: str) -> None:
        """What was read before it was told of a change is read again."""
        changes, row = self._changes, await self._owner_row(account)
        while changes != self._changes:
            changes, row = self._changes, await self._owner_row(account)
        self._doubtful.discard(account)
        known, owner = self._known.get(account), None if row is None else owner_of(row)
        if known is not None and known != owner:
            self._changes += 1
        if row is None or owner is None:
            self._known.drop(account)
            if len(self._nobodies) >= OWNERS:
                self._nobodies.clear()
            self._nobodies[account] = self.now() + NOBODY_SECONDS
        else:
            self._nobodies.pop(account, None)
            self.note_crowd(row)
            self._known.put(account, owner)

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

    def _last_known(self, account: str) -> Owner | None:
        """Whose archive it is; if that may have changed since nodes parted it is read again, and what is
        begun meanwhile is as what was begun just before.
        """
        owner = self._known.get(account)
        if owner is not None and account in self._doubtful:
            self._doubtful.discard(account)
            self.spawn(self._learn_again(account))
        return owner

    async def _learn_again(self, account: str) -> None:
        try:
            if (learning := self._learn(account)) is not None:
                await learning
        except StoreError:
            self._doubtful.add(account)

    async def _sure(self, account: str) -> Owner | None:
        is_sure = self._known.get(account) is not None and account not in self._doubtful
        if (not is_sure or account in self._learning) and (learning := self._learn(account)) is not None:
            await learning
        return self._known.get(account)

    async def _owner(self, account: str) -> Owner:
        owner = await self._sure(account)
        if owner is None:
            raise StanzaError("item-not-found", "There is no archive.")
        return owner

    async def uid_of(self, account: str) -> int | None:
        """The number of an archive, made now if need be; None: there is no such account."""
        if not self._is_ours(account) or self._is_nobody(account):
            return None
        owner = await self._sure(account)
        return None if owner is None else owner.uid

    @cluster_signal
    def changed(self, account: str) -> None:
        """The archive of an account is another one, or its preferences are."""
        self._changes += 1
        self._known.drop(account)
        self._doubtful.discard(account)
        self._nobodies.pop(account, None)

    @hooks.node_met
    @hooks.node_lost
    def parted(self, node: str) -> None:
        """What was told of changes between two nodes that part is lost."""
        self._changes += 1
        self._doubtful = {account for account, _ in self._known.items()}
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
