"""Accounts: who may log in, kept as SCRAM keys and never as passwords.

An account is named by its bare JID, normalised (`Jid.bare`). The credentials column of each hash is a text in
the form of RFC 5803: "SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>".
"""

from __future__ import annotations

import asyncio
import binascii
import functools
import hashlib
import hmac
import inspect
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from xmppd.core.begun import begun
from xmppd.errors import JidError, StoreError, XmppdError
from xmppd.jid import Jid
from xmppd.store.table import Row, Store, Table
from xmppd.stream.lru import Lru
from xmppd.stream.scram import ALGORITHMS, Credentials, ScramKeys, derive_keys, prepare_password

ACCOUNT = Table(
    name="account",
    partition=("account",),
    columns={
        "scram_sha_1": "text",
        "scram_sha_256": "text",
        "created": "timestamp",
        "disabled": "bool",
        "changed": "int",
    },
)
SECRET = Table(name="account_secret", partition=("name",), columns={"value": "blob"})
TABLES = (ACCOUNT, SECRET)
"""What the store must have open before `Accounts.open`."""

SALT_BYTES = 16

Listener = Callable[[str], Awaitable[None] | None]

_COLUMNS = {mechanism: mechanism.lower().replace("-", "_") for mechanism in ALGORITHMS}

_log = logging.getLogger(__name__)


class AccountExists(XmppdError):
    """There is an account of this name already."""

    def __init__(self, account: str) -> None:
        super().__init__(f"the account {account} exists already")


class AccountUnknown(XmppdError):
    """There is no account of this name."""

    def __init__(self, account: str) -> None:
        super().__init__(f"there is no account {account}")


@dataclass(frozen=True, slots=True)
class AccountInfo:
    """What may be shown of an account. `created` is in seconds since the epoch, None when unknown."""

    account: str
    created: float | None
    disabled: bool
    mechanisms: tuple[str, ...]


def derive(password: str, salt: bytes, iterations: int) -> dict[str, str]:
    """The credential columns of a row for this password; BadPassword. Costs milliseconds."""
    prepared = prepare_password(password)
    columns = {}
    for mechanism, algorithm in ALGORITHMS.items():
        keys = derive_keys(algorithm, prepared, salt, iterations)
        text = f"{mechanism}${iterations}:{_base64(salt)}${_base64(keys.stored)}:{_base64(keys.server)}"
        columns[_COLUMNS[mechanism]] = text
    return columns


class Accounts:
    """The accounts of all domains over the tables `TABLES`, with their credentials cached.

    Every method that returns `X | Awaitable[X]` answers (or raises) at once where nothing has to be
    waited for. `on_created` and `on_removed` are told the account, in order; what they raise is logged and
    changes nothing, except that a StoreError holds up a removal. `on_changed` is told of every account that
    was made, changed or removed here.
    """

    def __init__(
        self,
        store: Store,
        *,
        iterations: int = 10_000,
        now: Callable[[], float] = time.time,
        threads: int = min(4, os.cpu_count() or 1),
        cached_credentials: int = 2_000,
        cached_names: int = 100_000,
        on_created: Sequence[Listener] = (),
        on_removed: Sequence[Listener] = (),
    ) -> None:
        self._store = store
        self._iterations = iterations
        self._now = now
        # hashlib lets go of the GIL while it derives a key. What waits here is bounded by the connections
        # that have not logged in, one step each, and by their time to log in.
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="derive")
        self._credentials: Lru[str, Credentials] = Lru(cached_credentials)
        self._exists: Lru[str, bool] = Lru(cached_names)
        self._leaving: set[str] = set()
        self._is_caching = True
        self.on_changed: list[Callable[[str], None]] = []
        self._changes = 0
        self._secret = b""
        self.on_created = [*on_created]
        self.on_removed = [*on_removed]

    async def open(self) -> None:
        """Fetch the server's secret, or make it once: what unknown accounts show must outlive a restart."""
        await self._store.put_if(SECRET, {"name": "decoy", "value": secrets.token_bytes(32)}, None)
        row = await self._store.get(SECRET, ("decoy",))
        assert row is not None, "a row that exists now"
        self._secret = row["value"]

    @property
    def cached(self) -> Mapping[str, int]:
        """How many entries each cache holds, for operators."""
        return {"credentials": len(self._credentials), "account_names": len(self._exists)}

    def close(self) -> None:
        """End the threads; key derivations that wait are cancelled."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def exists(self, account: str) -> bool | Awaitable[bool]:
        """Whether there is such an account, disabled or not."""
        known = False if account in self._leaving else self._exists.get(account)
        return known if known is not None else begun(self._load_existence(account))

    def credentials(self, account: str) -> Credentials | Awaitable[Credentials | None] | None:
        """The SCRAM keys of an account, None without such an account."""
        found = self._credentials.get(account)
        if found is None and self._exists.get(account) is not False:
            return begun(self._load(account))
        return found

    def decoy(self, account: str) -> Credentials:
        """Keys to show for an unknown account: stable for its name over restarts, and matched by no password.

        Only accounts made with the current number of iterations look the same, so change that number rarely.
        """
        salt = self._random(account, "salt", "sha256")[:SALT_BYTES]
        keys = {}
        for algorithm in ALGORITHMS.values():
            stored = self._random(account, "stored", algorithm)
            server = self._random(account, "server", algorithm)
            keys[algorithm] = ScramKeys(salt, self._iterations, stored, server)
        return Credentials(keys, decoy=True)

    def salted_password(
        self, algorithm: str, password: str, salt: bytes, iterations: int
    ) -> Awaitable[bytes]:
        """`Hi()` of RFC 5802 2.2, computed in a thread."""
        job = functools.partial(hashlib.pbkdf2_hmac, algorithm, password.encode(), salt, iterations)
        return asyncio.get_running_loop().run_in_executor(self._executor, job)

    async def create(self, account: str, password: str) -> None:
        """Make an account. AccountExists, BadPassword, JidError (not a bare JID with a localpart)."""
        jid = Jid.parse(account)
        if not jid.local or jid.resource:
            raise JidError(f"{account} is not the name of an account: that is user@domain")
        account = jid.bare
        row: Row = {"account": account, "created": self._now(), "disabled": False}
        row.update(await self._derive(password))
        try:
            if not await self._store.put_if(ACCOUNT, row, None):
                raise AccountExists(account)
        finally:
            self._changed(account)
        await _tell(self.on_created, account)

    async def set_password(self, account: str, password: str) -> None:
        """Replace the keys of an account. AccountUnknown, BadPassword."""
        await self._change(account, dict(await self._derive(password)))

    async def disable(self, account: str, created: float | None = None) -> None:
        """Let nobody log in to the account any more; it stays otherwise. AccountUnknown.

        With `created` only the account that was made then: it is unknown when another has its name.
        """
        await self._change(account, {"disabled": True}, created)

    async def enable(self, account: str) -> None:
        """Undo `disable`. AccountUnknown."""
        await self._change(account, {"disabled": False})

    async def remove(self, account: str, created: float | None = None) -> None:
        """Delete the account; AccountUnknown. What others keep about it is deleted by those told.

        It does not exist any more for those, but its name is taken until they are done: whoever has it next
        inherits nothing, even if this is cut short or the store fails one of those (StoreError), for then a
        repeat goes on. When somebody else has removed it meanwhile, all is done, and who is made under its
        name is spared. With `created` as `disable`.
        """
        row = await self._find(account, created)
        self._leaving.add(account)
        try:
            if (problem := await _tell(self.on_removed, account)) is not None:
                raise problem
            await self._write_if_same(row, lambda same: self._store.delete_if(ACCOUNT, (account,), same))
        finally:
            self._leaving.discard(account)
            self._changed(account)

    async def info(self, account: str) -> AccountInfo:
        """What may be shown of one account, read from the store. AccountUnknown."""
        row = await self._store.get(ACCOUNT, (account,))
        if row is None:
            raise AccountUnknown(account)
        return _info_of(row)

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
                yield _info_of(row)
            if (token := page.next) is None:
                return

    def forget(self, account: str) -> None:
        """Drop what is cached about one account, because it was changed here or elsewhere."""
        self._changes += 1
        self._credentials.drop(account)
        self._exists.drop(account)

    def trust(self, is_told: bool) -> None:
        """Whether changes made elsewhere are told here; if not, nothing is cached."""
        self._is_caching = is_told
        self.forget_all()

    def forget_all(self) -> None:
        """Drop what is cached about all accounts, because some were changed elsewhere."""
        self._changes += 1
        self.release()

    def release(self) -> None:
        """Give up the memory of what is cached."""
        self._credentials.clear()
        self._exists.clear()

    def _changed(self, account: str) -> None:
        self.forget(account)
        for listener in self.on_changed:
            listener(account)

    async def _find(self, account: str, created: float | None = None) -> Row:
        """The account's row; AccountUnknown, also when it was not made at `created`."""
        row = await self._store.get(ACCOUNT, (account,))
        if row is None or created not in (None, row["created"]):
            raise AccountUnknown(account)
        return row

    async def _change(self, account: str, columns: Row, created: float | None = None) -> None:
        row = await self._find(account, created)
        changed = {"account": account, "changed": secrets.randbits(62), **columns}
        try:
            # The condition keeps a removal that comes in between, and a later change, from being undone.
            written = await self._write_if_same(row, lambda same: self._store.put_if(ACCOUNT, changed, same))
        finally:
            self._changed(account)
        if not written:
            raise AccountUnknown(account)

    async def _write_if_same(self, row: Row, write: Callable[[Row], Awaitable[bool]]) -> bool:
        """Write if the account is still the one that was read; whether it was. `write` is told what to expect
        of it.
        """
        found: Row | None = row
        while found is not None and found["created"] == row["created"]:
            if await write(_identity(found)):
                return True
            found = await self._store.get(ACCOUNT, (row["account"],))
        return False

    async def _derive(self, password: str) -> dict[str, str]:
        job = functools.partial(derive, password, secrets.token_bytes(SALT_BYTES), self._iterations)
        return await asyncio.get_running_loop().run_in_executor(self._executor, job)

    async def _load(self, account: str) -> Credentials | None:
        changes = self._changes
        row = await self._store.get(ACCOUNT, (account,))
        found = None if row is None else _credentials_of(row)
        # A row read before a change that has been made meanwhile must not outlive that change in the cache.
        if self._is_caching and changes == self._changes:
            self._exists.put(account, found is not None)
            if found is not None:
                self._credentials.put(account, found)
        return found

    async def _load_existence(self, account: str) -> bool:
        return await self._load(account) is not None

    def _random(self, account: str, purpose: str, algorithm: str) -> bytes:
        return hmac.digest(self._secret, f"{purpose}\0{account}".encode(), algorithm)


async def _tell(listeners: Sequence[Listener], account: str) -> StoreError | None:
    """Tell all of them; the first StoreError there was. What else they raise is logged."""
    problem: StoreError | None = None
    for listener in listeners:
        try:
            waiting = listener(account)
            if inspect.isawaitable(waiting):
                await waiting
        except StoreError as error:
            _log.warning("store-failed", extra={"kind": "listener", "error": str(error)})
            problem = problem or error
        except Exception:  # noqa: BLE001 - a listener is a plugin, and may do anything
            _log.exception("a listener failed for the account %s", account)
    return problem


def _credentials_of(row: Row) -> Credentials:
    keys = {}
    for mechanism, algorithm in ALGORITHMS.items():
        if text := row[_COLUMNS[mechanism]]:
            keys[algorithm] = _parse_keys(text)
    return Credentials(keys, disabled=bool(row["disabled"]))


def _parse_keys(text: str) -> ScramKeys:
    _, parameters, pair = text.split("$")
    iterations, salt = parameters.split(":")
    stored, server = map(binascii.a2b_base64, pair.split(":"))
    return ScramKeys(binascii.a2b_base64(salt), int(iterations), stored, server)


def _identity(row: Row) -> Row:
    """What no other account of the name has, nor this one after a change: when it was made and the number of
    its last change, or all of the row where the former is not known.
    """
    columns = ACCOUNT.columns if row["created"] is None else ("created", "changed")
    return {column: row[column] for column in columns}


def _info_of(row: Row) -> AccountInfo:
    mechanisms = tuple(mechanism for mechanism, column in _COLUMNS.items() if row[column])
    return AccountInfo(row["account"], row["created"], bool(row["disabled"]), mechanisms)


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")
