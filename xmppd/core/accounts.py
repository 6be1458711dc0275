"""Accounts: who may log in, kept as SCRAM keys and never as passwords.

An account is named by its bare JID, normalised (`Jid.bare`).
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakValueDictionary

from xmppd.core.begun import begun
from xmppd.core.changes import Changes
from xmppd.core.completion import Completion
from xmppd.core.credentials import (
    ACCOUNT,
    MADE,
    NO_KEYS,
    AccountInfo,
    checked,
    credentials_of,
    derive,
    derive_prepared,
    identity_of,
    info_of,
)
from xmppd.core.erased import ERASED, Erased
from xmppd.core.gone import GONE, Gone, Late, new_number
from xmppd.core.holds import Hold, HoldMany, Holds
from xmppd.core.intents import Intent, around
from xmppd.core.listeners import Listener, Revoke, tell, untold
from xmppd.core.moving import Moving
from xmppd.core.names import AccountExists, AccountUnknown, NameErased, NameGone
from xmppd.errors import SaslError, StoreError
from xmppd.store.person import nobody
from xmppd.store.table import Row, Store, Table
from xmppd.stream.lru import Lru
from xmppd.stream.sasl import Login, Tenure
from xmppd.stream.scram import ALGORITHMS, Credentials, ScramKeys, prepare_password

__all__ = [
    "ACCOUNT",
    "TABLES",
    "AccountExists",
    "AccountInfo",
    "AccountUnknown",
    "Accounts",
    "Listener",
    "derive",
]

SECRET = Table(
    name="account_secret",
    partition=("name",),
    columns={"value": "blob"},
    person=nobody("a secret of the whole server"),
)
TABLES = (ACCOUNT, SECRET, GONE, ERASED)
"""What the store must have open before `Accounts.open`."""

SALT_BYTES = 16

MAX_PROOFS = 1_000
"""So many key derivations of logins may wait for a thread."""

_log = logging.getLogger(__name__)


class Accounts:
    """The accounts of all domains over the tables `TABLES`, with their credentials cached.

    Every method that returns `X | Awaitable[X]` answers (or raises) at once where nothing has to be
    waited for. `on_created` and `on_removed` are told the account, in order; what they raise is logged and
    changes nothing, except that a StoreError holds up a removal. Before `on_removed` those of `on_leaving` do
    their part of a removal, which stops at whatever they raise. `on_changed` is told of every account that
    was made, changed or removed here, `on_unsure` of one of which nobody knows whether it was, `on_revoked`
    of one whose streams may have to end, `on_doubted` of one whose streams on other nodes may have to.

    A new password ends the sessions of its account if `ends_sessions`. `gone_seconds` is for servers that
    share a store: how long a name is not given out again (0: no other server is there). Keys are made of the
    `hashes` (those of `ALGORITHMS`); accounts that lack one get it in tasks of `spawn` (None: they do not).
    """

    def __init__(
        self,
        store: Store,
        *,
        iterations: int = 10_000,
        hashes: Sequence[str] = MADE,
        spawn: Callable[[Coroutine[Any, Any, None]], object] | None = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        threads: int = min(4, os.cpu_count() or 1),
        cached_credentials: int = 2_000,
        cached_names: int = 100_000,
        on_created: Sequence[Listener] = (),
        on_removed: Sequence[Listener] = (),
        ends_sessions: bool = True,
        gone_seconds: float = 0.0,
    ) -> None:
        self._store = store
        self._iterations = iterations
        self._hashes = tuple(hashes)
        self._completion = Completion(store, self._hashes, self._derive, self._completed, spawn)
        self._now = now
        self._clock = clock
        # hashlib lets go of the GIL while it derives a key.
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="derive")
        self._proofs = 0
        self._credentials: Lru[str, Credentials] = Lru(cached_credentials)
        self._exists: Lru[str, bool] = Lru(cached_names)
        self._holds = Holds(self._is_of, self.those)
        self.moving = Moving(self._holds, clock)
        self._removals: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._gone = Gone(store, gone_seconds, now, clock)
        self.erased = Erased(store, now)
        self.ends_sessions = ends_sessions
        self.is_caching = True
        self.changes = Changes()
        self._drops = 0
        self._secret = b""
        self.on_created = [*on_created]
        self.on_leaving: list[Callable[[str], Awaitable[None]]] = []
        self.on_making: list[Callable[[str], Awaitable[None]]] = []
        self.on_removed = [*on_removed]
        self.on_changed: list[Callable[[str], None]] = []
        self.on_unsure: Callable[[str], None] = untold
        self.on_doubted: Callable[[str], None] = untold
        self.on_revoked: Revoke = untold
        self.on_altered: Callable[[str, str], Awaitable[None] | None] = untold
        self.intend: Callable[[str, str], Intent | None] = untold

    async def open(self) -> None:
        """Fetch the server's secret, or make it once: what unknown accounts show must outlive a restart."""
        await self._store.put_if(SECRET, {"name": "decoy", "value": secrets.token_bytes(32)}, None)
        row = await self._store.get(SECRET, ("decoy",))
        assert row is not None, "a row that exists now"
        self._secret = self.erased.key = row["value"]

    @property
    def cached(self) -> Mapping[str, int]:
        """How many entries each cache holds, for operators."""
        return {"credentials": len(self._credentials), "account_names": len(self._exists)}

    @property
    def gone_seconds(self) -> float:
        """How long a name is not given out again; 0: no other server is there."""
        return self._gone.seconds

    @gone_seconds.setter
    def gone_seconds(self, seconds: float) -> None:
        self._gone.seconds = seconds

    def close(self) -> None:
        """End the threads; key derivations that wait are cancelled."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def exists(self, account: str) -> bool | Awaitable[bool]:
        """Whether there is such an account, disabled or not."""
        known = False if self._holds.is_leaving(account) else self._exists.get(account)
        known = True if known is not True and self._holds.is_mine(account) else known
        return known if known is not None else begun(self._load_existence(account))

    def hold(self, account: str, login: Login | None = None) -> Hold:
        """`async with accounts.hold(account) as exists:` around whatever is written for an account. Within,
        the account is not removed; when there is none, nothing may be written that its next owner could find.
        With `login` only the account that this was a login to is meant, and not the next one of its name.
        """
        return self._holds.hold(account, login)

    def hold_many(self, accounts: Sequence[str]) -> HoldMany:
        """The same for many, which gives those that there are, in their order."""
        return self._holds.hold_many(accounts)

    async def those(self, accounts: Sequence[str]) -> list[str]:
        """Those of different accounts that there are, disabled or not, in their order."""
        known = {account: self._exists.get(account) for account in accounts}
        unknown, drops = [account for account, it in known.items() if it is None], self._drops
        for account, row in zip(unknown, await self._store.get_many(ACCOUNT, unknown), strict=True):
            known[account] = is_there = row is not None and not row["leaving"]
            if self.is_caching and drops == self._drops:  # see `_load`
                self._exists.put(account, is_there)
        return [account for account, it in known.items() if it]

    async def _is_of(self, account: str, login: Login | None) -> bool:
        if login is None:
            exists = self.exists(account)
            return exists if isinstance(exists, bool) else await exists
        found = None if self._holds.is_leaving(account) else self.credentials(account)
        found = await found if isinstance(found, Awaitable) else found
        tenure = login.tenure
        if found is None or found.tenure is None or tenure is None:
            return False
        return found.tenure.created == tenure.created

    def credentials(self, account: str) -> Credentials | Awaitable[Credentials | None] | None:
        """The SCRAM keys of an account, None without such an account, or when it is being removed."""
        found = self._credentials.get(account)
        if found is None and self._exists.get(account) is not False:
            return begun(self._load(account))
        return found

    def decoy(self, account: str) -> Credentials:
        """Keys to show for an unknown account: stable for its name over restarts, and matched by no password.

        Only accounts made with the current number of iterations look the same, so change that number rarely.
        """
        keys = {}
        for algorithm in ALGORITHMS.values():
            salt = self._decoy_salt(account, algorithm)
            stored = self._random(account, "stored", algorithm)
            server = self._random(account, "server", algorithm)
            keys[algorithm] = ScramKeys(salt, self._iterations, stored, server)
        return Credentials(keys, decoy=True)

    def complete(self, account: str, password: str, found: Credentials) -> None:
        """Make the keys that are `missing`, of this form of the password that fitted those that are there."""
        self._completion.begin(account, password, found)

    def salted_password(
        self, algorithm: str, password: str, salt: bytes, iterations: int
    ) -> Awaitable[bytes]:
        """`Hi()` of RFC 5802 2.2, computed in a thread; SaslError when too many wait for one."""
        if self._proofs >= MAX_PROOFS:
            raise SaslError("temporary-auth-failure", "Too many log in at once; try later.")
        job = functools.partial(hashlib.pbkdf2_hmac, algorithm, password.encode(), salt, iterations)
        deriving = asyncio.get_running_loop().run_in_executor(self._executor, job)
        self._proofs += 1
        deriving.add_done_callback(self._proved)
        return deriving

    def _proved(self, _: asyncio.Future[bytes]) -> None:
        self._proofs -= 1

    async def create(self, account: str, password: str) -> None:
        """Make an account. AccountExists, BadPassword, JidError (not a bare JID with a localpart)."""
        account = checked(account)
        await self._make(account, await self._derive_anew(account, password))

    async def provision(self, account: str) -> None:
        """Make an account without a password, for those who log in otherwise. AccountExists, JidError."""
        await self._make(checked(account), {})

    async def _make(self, account: str, credentials: Row) -> None:
        if await self._gone.has(account):
            raise NameGone(account)
        if (until := await self.erased.until(account)) is not None:
            raise NameErased(account, until)
        for check in self.on_making:
            await check(account)
        number, made = new_number(), self._now()
        async with around(self.intend(account, "created"), {"created": made, "changed": number}):
            if not await self._insert(account, credentials, number, made, disabled=False):
                raise AccountExists(account)
            if (problem := await tell(self.on_created, account)) is not None:
                raise problem  # it is there, and not acknowledged

    async def adopt(
        self, account: str, credentials: Row, number: int, *, created: float | None, disabled: bool
    ) -> bool:
        """Make an account with the credential columns of one that another server had, made there at `created`
        if that is known; nobody is told. `number` marks this change. False where there is one of that name,
        or its name is not free yet.
        """
        if await self._gone.has(account) or await self.erased.until(account) is not None:
            return False
        made = self._now() if created is None else created
        return await self._insert(account, credentials, number, made, disabled=disabled)

    async def _insert(
        self, account: str, credentials: Row, number: int, created: float, *, disabled: bool
    ) -> bool:
        """Write a row where there is none; whether there was none."""
        row: Row = {
            "account": account,
            "created": created,
            "disabled": disabled,
            "epoch": new_number(),
            "changed": number,
            **credentials,
        }
        try:
            return await self._store.put_if(ACCOUNT, row, None)
        finally:
            self._drop(account)
            self.publish(account)

    async def rekey(self, account: str, credentials: Row) -> int:
        """Replace the credential columns of an account, and end its sessions; the number of this change.
        AccountUnknown.
        """
        return await self._change(account, credentials, ends=True)

    async def unmake(self, account: str, changed: int) -> bool:
        """Take an `adopt` back if the account is still as that left it, without a word to its contacts;
        whether it was.
        """
        async with self._removal(account):
            row = await self._store.get(ACCOUNT, (account,))
            if row is None or row["changed"] != changed:
                return False
            self._holds.close(account)
            try:
                if not await self._store.put_if(
                    ACCOUNT, {"account": account, "leaving": True, "changed": changed}, identity_of(row)
                ):
                    return False
                self._changed(account)
                self.on_revoked(account, None, False)
                await self._holds.emptied(account)
                if (problem := await tell(self.on_removed, account)) is not None:
                    raise problem
                return await self._store.delete_if(ACCOUNT, (account,), {"changed": changed})
            finally:
                self._holds.open(account)
                self._changed(account)

    async def set_password(
        self, account: str, password: str, *, keep_sessions: bool | None = None, spare: Login | None = None
    ) -> None:
        """Replace the keys of an account. AccountUnknown, BadPassword.

        Its sessions end, all but the one of the login to `spare`; with `keep_sessions` (None: as configured)
        none does. It is unknown, too, when the login to spare does not hold any more: who asked is not who
        has the account now.
        """
        keys = {**NO_KEYS, **await self._derive_anew(account, password)}
        keep = not self.ends_sessions if keep_sessions is None else keep_sessions
        await self._change(account, keys, "password", ends=not keep, spare=spare)

    async def disable(self, account: str, created: float | None = None) -> None:
        """Let nobody log in to the account any more, and end its streams; it stays otherwise. AccountUnknown.

        With `created` only the account that was made then: it is unknown when another has its name.
        """
        await self._change(account, {"disabled": True}, "disabled", created, ends=True)

    async def enable(self, account: str) -> None:
        """Undo `disable`. AccountUnknown."""
        await self._change(account, {"disabled": False}, "enabled", ends=False)

    async def remove(self, account: str, created: float | None = None) -> None:
        """End the streams of an account, and delete it and all it owns; AccountUnknown.

        It does not exist any more for those who are told, but its name is taken until they are done: whoever
        has it next inherits nothing, even if this is cut short or the store fails one of those (StoreError),
        for then a repeat goes on. Nobody writes anything for it meanwhile: who does so now (`hold`) is waited
        for. When somebody else has removed it meanwhile, all is done, and who is made under its name is
        spared. With `created` as `disable`.
        """
        async with self._removal(account):
            row = await self._find(account, created)
            self._holds.close(account)
            try:
                if not await self._write_surely(row, functools.partial(self._mark_leaving, account)):
                    return
                self._changed(account)
                self.on_revoked(account, None, False)
                await self._holds.emptied(account)
                await self._delete_owned(account)
                if (told := self.on_altered(account, "removed")) is not None:
                    await told
                await self._gone.give_up(account)
                await self._write_if_same(row, lambda same: self._store.delete_if(ACCOUNT, (account,), same))
            finally:
                self._holds.open(account)
                self._changed(account)

    def _removal(self, account: str) -> asyncio.Lock:
        lock = self._removals.get(account)
        if lock is None:
            lock = self._removals[account] = asyncio.Lock()
        return lock

    async def _mark_leaving(self, account: str, same: Row) -> bool:
        """Written first, for other servers, and for who has to go on if this one stops."""
        row: Row = {"account": account, "leaving": True, "changed": new_number()}
        return await self._store.put_if(ACCOUNT, row, same)

    async def _delete_owned(self, account: str) -> None:
        for delete in self.on_leaving:
            await delete(account)
        if (problem := await tell(self.on_removed, account)) is not None:
            raise problem

    async def still(self, account: str) -> None:
        """Wait for those who write now for an account that is not there any more for who comes next."""
        self.forget(account)
        await self._holds.still(account)

    def late(self) -> list[Late]:
        """The accounts removed some time ago whose `delete_late` is due now."""
        return self._gone.due()

    async def delete_late(self, late: Late) -> None:
        """Delete what another server wrote for the account while it was removed here. Nobody can have its
        name meanwhile, and who has it by now is spared. When the store fails it, it is due again later.
        """
        try:
            await self.scrub(late)
        except StoreError as error:
            self._gone.put_off(late, error)

    async def scrub(self, late: Late) -> None:
        """The same at once; StoreError."""
        account = late.account
        async with self._removal(account):
            if (number := await self._gone.take_name(late)) is not None:
                await self._delete_owned(account)
                await self._store.delete_if(ACCOUNT, (account,), {"changed": number})

    async def info(self, account: str) -> AccountInfo:
        """What may be shown of one account, read from the store. AccountUnknown."""
        row = await self._store.get(ACCOUNT, (account,))
        if row is None:
            raise AccountUnknown(account)
        return info_of(row)

    async def page(self, token: bytes | None, limit: int) -> tuple[Sequence[str], bytes | None]:
        """The names of some accounts in the store's own order, and the token of those that follow."""
        page = await self._store.scan_all(ACCOUNT, limit=limit, page=token)
        return [row["account"] for row in page.rows], page.next

    async def list(self, *, page_size: int = 1000) -> AsyncIterator[AccountInfo]:
        """All accounts in the store's own order, read by pages; for tools."""
        token = None
        while True:
            page = await self._store.scan_all(ACCOUNT, limit=page_size, page=token)
            for row in page.rows:
                yield info_of(row)
            if (token := page.next) is None:
                return

    def forget(self, account: str) -> None:
        """Drop what is cached about one account, because it was changed here or elsewhere."""
        self.changes.note(account)
        self._drop(account)

    def trust(self, is_told: bool) -> None:
        """Whether changes made elsewhere are told here; if not, nothing is cached."""
        self.is_caching = is_told
        self.forget_all()

    def forget_all(self) -> None:
        """Drop what is cached about all accounts, because some were changed elsewhere."""
        self.changes.note_all()
        self._drops += 1
        self.release()

    def release(self) -> None:
        """Give up the memory of what is cached."""
        self._credentials.clear()
        self._exists.clear()

    def _drop(self, account: str) -> None:
        self._drops += 1
        self._credentials.drop(account)
        self._exists.drop(account)

    def _completed(self, account: str) -> None:
        """The account has more keys: nothing that anybody has found out about it is wrong for that."""
        self._drop(account)
        self.publish(account)

    def publish(self, account: str) -> None:
        """Tell the other nodes that something of the account is another than before."""
        for listener in self.on_changed:
            listener(account)

    def _changed(self, account: str) -> None:
        self.forget(account)
        self.publish(account)
        self.on_doubted(account)

    async def _find(self, account: str, created: float | None = None) -> Row:
        """The account's row; AccountUnknown, also when it was not made at `created`."""
        row = await self._store.get(ACCOUNT, (account,))
        if row is None or created not in (None, row["created"]):
            raise AccountUnknown(account)
        return row

    async def _change(
        self,
        account: str,
        columns: Row,
        what: str = "",
        created: float | None = None,
        *,
        ends: bool,
        spare: Login | None = None,
    ) -> int:
        row = await self._find(account, created)
        if row["leaving"] or (spare is not None and spare.tenure != Tenure(row["created"], row["epoch"])):
            raise AccountUnknown(account)
        kept = ("created",) if spare is None else ("created", "epoch")
        tenure = Tenure(row["created"], new_number())
        changed = {"account": account, "changed": new_number(), **columns}
        if ends:
            changed["epoch"] = tenure.epoch
        async with around(self.intend(account, what)) as intent:

            async def write(same: Row) -> bool:
                if intent is not None:  # each attempt anew, so that events come in the order of the changes
                    about = {"created": row["created"], "changed": changed["changed"]}
                    await intent.begin({**about, "before": same["changed"]})
                return await self._store.put_if(ACCOUNT, changed, same)

            # The condition keeps a removal that comes in between, and a later change, from being undone.
            written = await self._write_surely(row, write, kept)
            self._changed(account)
            if not written:
                raise AccountUnknown(account)
            if ends:
                if spare is not None:
                    spare.tenure = tenure
                self.on_revoked(account, tenure, bool(columns.get("disabled")))
            if what and (told := self.on_altered(account, what)) is not None:
                await told
        return int(changed["changed"])

    async def _write_surely(
        self, row: Row, write: Callable[[Row], Awaitable[bool]], kept: Sequence[str] = ("created",)
    ) -> bool:
        """`_write_if_same`, for what ends streams: it may have been written though it failed."""
        try:
            return await self._write_if_same(row, write, kept)
        except BaseException:
            self._changed(row["account"])
            self.on_unsure(row["account"])
            raise

    async def _write_if_same(
        self, row: Row, write: Callable[[Row], Awaitable[bool]], kept: Sequence[str] = ("created",)
    ) -> bool:
        """Write if the account is still the one that was read, in the columns `kept`; whether it was. `write`
        is told what to expect of it.
        """
        found: Row | None = row
        while found is not None and all(found[column] == row[column] for column in kept):
            if await write(identity_of(found)):
                return True
            found = await self._store.get(ACCOUNT, (row["account"],))
        return False

    async def _derive_anew(self, account: str, password: str) -> dict[str, str]:
        """All credential columns of a new password, with a new salt; BadPassword."""
        prepared, salt = prepare_password(password), secrets.token_bytes(SALT_BYTES)
        made = [name for name in self._hashes if name in MADE]
        job = functools.partial(derive_prepared, prepared, salt, self._iterations, made)
        columns = await asyncio.get_running_loop().run_in_executor(self._executor, job)
        return {
            **columns,
            **await self._derive(account, prepared, [n for n in self._hashes if n not in made]),
        }

    async def _derive(self, account: str, prepared: str, hashes: Sequence[str]) -> dict[str, str]:
        """Columns of single hashes with the salts that were shown as long as the account had no keys of them:
        nobody can tell whether it has.
        """
        columns: dict[str, str] = {}
        for name in hashes:
            salt = self._decoy_salt(account, name)
            job = functools.partial(derive_prepared, prepared, salt, self._iterations, [name])
            columns |= await asyncio.get_running_loop().run_in_executor(self._executor, job)
        return columns

    def _decoy_salt(self, account: str, algorithm: str) -> bytes:
        """Of all hashes of which every account made here has keys it is the same, as it is for those."""
        purpose = "salt" if algorithm in MADE else f"salt of {algorithm}"
        return self._random(account, purpose, "sha256")[:SALT_BYTES]

    async def _load(self, account: str) -> Credentials | None:
        drops = self._drops
        row = await self._store.get(ACCOUNT, (account,))
        found = None if row is None else credentials_of(row, self._hashes)
        # A row read before a change that has been made meanwhile must not outlive that change in the cache.
        if self.is_caching and drops == self._drops:
            self._exists.put(account, found is not None)
            if found is not None:
                self._credentials.put(account, found)
        return found

    async def _load_existence(self, account: str) -> bool:
        return await self._load(account) is not None

    def _random(self, account: str, purpose: str, algorithm: str) -> bytes:
        return hmac.digest(self._secret, f"{purpose}\0{account}".encode(), algorithm)
