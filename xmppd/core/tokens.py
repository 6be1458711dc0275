"""Tokens of clients (XEP-0484): given out at a login, shown at the next ones, and kept so that who reads the
store cannot log in by what stands there (docs/design/021-logins-in-one-round-trip.md).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from xmppd.core.begun import begun
from xmppd.core.changes import Changes
from xmppd.core.gone import new_number
from xmppd.core.holds import Hold
from xmppd.errors import SaslError
from xmppd.store.person import Person
from xmppd.store.table import Row, Store, Table
from xmppd.stream.hashedtokens import BINDINGS, Redeemed, Shown, initiator_hash, responder_hash
from xmppd.stream.lru import Lru
from xmppd.stream.sasl import Login, Standing, UserAgent
from xmppd.stream.scram import HASHES, Credentials

TOKENS = Table(
    "client_tokens",
    partition=("account",),
    cluster=("client",),
    columns={
        "current": "text",
        "fresh": "text",
        "basis": "text",
        "issued": "timestamp",
        "software": "text",
        "device": "text",
        "change": "int",
    },
    person=Person(
        "account",
        secret={
            "current": "what the token in use is checked by",
            "fresh": "what a new token is checked by",
            "basis": "which keys of the account the tokens hang on",
        },
    ),
)

SECRET_BYTES = 32
DAY = 86_400.0
REPLACED_AFTER = DAY
"""A token that is older is replaced by a fresh one when it is shown."""
LINGER = 7 * DAY
"""How long it is known of a token that it was right once."""
TRIES = 4
"""How often what somebody else changed meanwhile is looked at again."""

Key = Callable[[bool], bytes | None]
"""A key that is not in the store: made, if told so, where there is none yet; None where there is none."""


class Accounts(Protocol):
    """What is asked of accounts; see `xmppd.core.accounts.Accounts`."""

    changes: Changes
    is_caching: bool

    def credentials(self, account: str) -> Credentials | Awaitable[Credentials | None] | None: ...
    def hold(self, account: str, login: Login | None = None) -> Hold: ...
    def publish(self, account: str) -> None: ...


@dataclass(frozen=True, slots=True)
class TokenRules:
    """How many seconds a token lasts, and how many clients of an account have one."""

    lifetime: float = 21 * DAY
    clients: int = 20


class Token(NamedTuple):
    """A token for a client, and when it ends, in seconds since the epoch."""

    text: str
    expires: float


class Kept(NamedTuple):
    """What is kept of a token. `one` and `other` are, without channel binding, the hash of what the client
    shows and what it is answered; else a random number from which the token is made with the key that is
    elsewhere, and nothing.
    """

    mechanism: str
    issued: float
    expires: float
    one: bytes
    other: bytes

    @property
    def text(self) -> str:
        """As it stands in a column."""
        one, other = (binascii.b2a_base64(part, newline=False).decode() for part in (self.one, self.other))
        return f"{self.mechanism}${self.issued:.0f}${self.expires:.0f}${one}${other}"


def kept_in(text: str | None) -> Kept | None:
    """The way back of `Kept.text`."""
    if not text:
        return None
    mechanism, issued, expires, one, other = text.split("$")
    return Kept(
        mechanism, float(issued), float(expires), binascii.a2b_base64(one), binascii.a2b_base64(other)
    )


class Known(NamedTuple):
    """A client's token that was right when the account had this standing, and for which nothing had to be
    written: so it is until either is changed.
    """

    standing: Standing
    kept: Kept


class ClientTokens:
    """The tokens of all accounts, over the table `TOKENS`. Those that were shown lately are remembered as
    credentials are: whatever changes a client's row is told to all nodes as a change of its account.

    A client has two at most: the one that it has shown last (`current`) and one that it was given since
    (`fresh`), so that it can go on if that did not reach it (XEP-0484 5.1).
    """

    def __init__(
        self,
        store: Store,
        accounts: Accounts,
        key: Key,
        rules: TokenRules,
        now: Callable[[], float],
        *,
        remembered: int = 10_000,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._key = key
        self._now = now
        self._known: Lru[tuple[str, str], Known] = Lru(remembered)
        self._changes = 0
        self.rules = rules

    @property
    def cached(self) -> int:
        """How many are remembered."""
        return len(self._known)

    def release(self) -> None:
        """Give up the memory of what is remembered."""
        self._known.clear()

    # showing one

    def redeem(self, account: str, shown: Shown) -> Redeemed | Awaitable[Redeemed]:
        """See `TokenSource.redeem`."""
        return self._redeem_known(account, shown) or begun(self._redeem(account, shown))

    def _redeem_known(self, account: str, shown: Shown) -> Redeemed | None:
        """What the store needs neither be asked nor told about; None for all else."""
        known, accounts = self._known.get((account, shown.agent.id)), self._accounts
        if known is None or shown.is_last or not accounts.is_caching:
            return None
        kept, now = known.kept, self._now()
        if (
            accounts.changes.since(account, known.standing.mark)
            or kept.mechanism != shown.mechanism
            or not kept.issued <= now < min(kept.expires, kept.issued + REPLACED_AFTER)
        ):
            return None
        answer = self._answer(account, shown.agent.id, kept, shown)
        return None if answer is None else Redeemed(known.standing, answer)

    async def _redeem(self, account: str, shown: Shown) -> Redeemed:
        mark = self._accounts.changes.mark
        found = self._accounts.credentials(account)
        found = await found if isinstance(found, Awaitable) else found
        for _ in range(TRIES):
            changes = self._changes
            row = await self._store.get(TOKENS, (account, shown.agent.id))
            matched = self._match(row, shown)
            if row is None or matched is None or found is None:
                raise SaslError("not-authorized")
            column, kept, answer = matched
            if kept.expires <= self._now() or not holds(row["basis"], found):
                raise SaslError("credentials-expired")
            if shown.is_last:
                if await self._delete(row):
                    return Redeemed(found, answer)
                continue
            after, token = self._after(row, column, kept, shown.agent)
            if after is row:
                if self._accounts.is_caching and changes == self._changes:
                    self._know(account, shown.agent.id, Known(Standing(found.tenure, mark), kept), found)
                return Redeemed(found, answer, token)
            if await self._write(after, row):
                return Redeemed(found, answer, token)
        raise SaslError("temporary-auth-failure")

    def _know(self, account: str, client: str, known: Known, found: Credentials) -> None:
        """Remember a token of an account that was not disabled."""
        if not found.disabled and found.tenure is not None:
            self._known.put((account, client), known)

    def _after(self, row: Row, column: str, kept: Kept, agent: UserAgent) -> tuple[Row, Token | None]:
        """A client's row after it has shown the token in this column, and the one that takes its place if it
        is old. In one write: that token is on file, whether or not the client is let in and told of it.
        """
        now = self._now()
        made = None
        if now - kept.issued >= REPLACED_AFTER:
            made = self._make(row["account"], agent.id, kept.mechanism, now)
        if made is None:
            return used(row, column), None
        token, fresh = made
        after = {**row, "current": row[column], **self._issued(agent, fresh, now)}
        return after, Token(token, fresh.expires)

    @staticmethod
    def _issued(agent: UserAgent, fresh: Kept, now: float) -> Row:
        """The columns of a client that is given a fresh token."""
        return {
            "fresh": fresh.text,
            "issued": now,
            "software": agent.software,
            "device": agent.device,
            "change": new_number(),
        }

    def _match(self, row: Row | None, shown: Shown) -> tuple[str, Kept, bytes] | None:
        """Which of a client's tokens was shown, and what to answer."""
        for column in ("fresh", "current"):
            kept = kept_in(row[column]) if row is not None else None
            if row is None or kept is None or kept.mechanism != shown.mechanism:
                continue
            if (answer := self._answer(row["account"], row["client"], kept, shown)) is not None:
                return column, kept, answer
        return None

    def _answer(self, account: str, client: str, kept: Kept, shown: Shown) -> bytes | None:
        """The server's answer to who has this token; None to who has not."""
        if not BINDINGS[kept.mechanism]:
            right = hmac.compare_digest(hashlib.sha256(shown.hashed).digest(), kept.one)
            return kept.other if right else None
        token = self._bound_token(account, client, kept.mechanism, kept.one, create=False)
        if token is None or not hmac.compare_digest(initiator_hash(token, shown.bound), shown.hashed):
            return None
        return responder_hash(token, shown.bound)

    def _bound_token(
        self, account: str, client: str, mechanism: str, number: bytes, *, create: bool
    ) -> bytes | None:
        """The token that a random number stands for; None without a key."""
        key = self._key(create)
        if key is None:
            return None
        about = b"\0".join((mechanism.encode(), account.encode(), client.encode(), number))
        return base64.urlsafe_b64encode(hmac.digest(key, about, "sha256")).rstrip(b"=")

    # giving one out

    async def issue(self, login: Login, mechanism: str, shown: object = None) -> Token | None:
        """A fresh token for the client of a login, in place of one that it was given and has not shown. None
        where it can have none: it has told no id, has no account, or its login does not hold any more.
        StoreError. What the login was proved by (`shown`) is what the token stands on, where that is known:
        so a password that was changed meanwhile is no password for the token either.
        """
        account, agent = login.account, login.agent
        if agent is None or not agent.id or login.tenure is None:
            return None
        changes = self._accounts.changes
        async with self._accounts.hold(account, login) as exists:
            found = self._accounts.credentials(account) if exists else None
            found = await found if isinstance(found, Awaitable) else found
            if found is None or found.tenure != login.tenure:
                return None
            if isinstance(shown, Standing) and changes.since(account, shown.mark):
                return None
            found = shown if isinstance(shown, Credentials) else found
            now = self._now()
            made = self._make(account, agent.id, mechanism, now)
            if made is None:
                return None
            token, kept = made
            key = {"account": account, "client": agent.id, "basis": basis_of(found)}
            row = {**key, **self._issued(agent, kept, now)}
            for _ in range(TRIES):
                before = await self._store.get(TOKENS, (account, agent.id))
                if before is None:
                    await self._make_room(account)
                is_good = before is not None and holds(before["basis"], found)
                # A first token may have been shown without a write.
                row["current"] = (before["current"] or before["fresh"]) if before and is_good else None
                if await self._write(row, before):
                    return Token(token, kept.expires)
        return None

    def _make(self, account: str, client: str, mechanism: str, now: float) -> tuple[str, Kept] | None:
        expires = now + self.rules.lifetime
        if not BINDINGS[mechanism]:
            token = secrets.token_urlsafe(SECRET_BYTES)
            shown = hashlib.sha256(initiator_hash(token.encode(), b"")).digest()
            return token, Kept(mechanism, now, expires, shown, responder_hash(token.encode(), b""))
        number = secrets.token_bytes(SECRET_BYTES)
        bound = self._bound_token(account, client, mechanism, number, create=True)
        if bound is None:
            return None
        return bound.decode(), Kept(mechanism, now, expires, number, b"")

    async def _make_room(self, account: str) -> None:
        """Forget the clients that were given one before all others, when there are too many."""
        rows = await self._rows(account)
        rows.sort(key=lambda row: float(row["issued"]))
        for row in rows[: max(0, len(rows) + 1 - self.rules.clients)]:
            await self._delete(row)

    # the table

    async def _rows(self, account: str) -> list[Row]:
        return (await self._store.scan(TOKENS, (account,))).rows

    async def _write(self, row: Row, before: Row | None) -> bool:
        """Write a client's row if it is the one that was read; whether it was."""
        ends = [kept.expires for column in ("current", "fresh") if (kept := kept_in(row[column])) is not None]
        ttl = max(ends) - self._now() + LINGER
        expect = None if before is None else {"change": before["change"]}
        change = self._store.put_if(TOKENS, row, expect, ttl=ttl)
        return await change if before is None else await self._changing(row, change)

    async def _delete(self, row: Row) -> bool:
        key = (row["account"], row["client"])
        return await self._changing(row, self._store.delete_if(TOKENS, key, {"change": row["change"]}))

    async def _changing(self, row: Row, change: Awaitable[bool]) -> bool:
        """Change a client's row, of which nothing is remembered anywhere then; nor if nobody knows whether it
        was changed.
        """
        is_changed = True
        try:
            is_changed = await change
        finally:
            if is_changed:
                self._changes += 1
                self._known.drop((row["account"], row["client"]))
                self._accounts.publish(row["account"])
        return is_changed

    async def of(self, account: str) -> Sequence[Row]:
        """What is on file of an account's clients whose tokens count, sorted by client. StoreError."""
        found = self._accounts.credentials(account)
        found = await found if isinstance(found, Awaitable) else found
        if found is None:
            return []
        return [row for row in await self._rows(account) if holds(row["basis"], found) and self._ends(row)]

    def _ends(self, row: Row) -> bool:
        """Whether one of a client's tokens has not ended yet."""
        kept = (kept_in(row[column]) for column in ("current", "fresh"))
        return any(one is not None and one.expires > self._now() for one in kept)

    async def revoke(self, account: str, client: str) -> list[str]:
        """Let the tokens of a client ("": of all clients) count no more; whose they were. StoreError."""
        revoked: list[str] = []
        for row in await self._rows(account):
            mine: Row | None = row if client in ("", row["client"]) else None
            while mine is not None and not await self._delete(mine):
                mine = await self._store.get(TOKENS, (account, row["client"]))
            if client in ("", row["client"]):
                revoked.append(row["client"])
        return revoked

    async def forget(self, account: str) -> None:
        """The tokens go with their account."""
        await self._store.delete(TOKENS, (account,))


def used(row: Row, column: str) -> Row:
    """A client's row after it has shown the token in this column: those that end before it count no more. The
    same row where there is none.
    """
    if column == "fresh":
        if row["current"] is None:
            return row
        return {**row, "current": row["fresh"], "fresh": None, "change": new_number()}
    current, fresh = kept_in(row["current"]), kept_in(row["fresh"])
    if current is None or fresh is None or fresh.expires >= current.expires:
        return row
    return {**row, "fresh": None, "change": new_number()}


def basis_of(found: Credentials) -> str:
    """What a token stands on: which account it is, since when its sessions count, and one of its keys. A new
    password, a disabled account and the next owner of a name have another one.
    """
    name = next((name for name in HASHES if name in found.keys), "")
    return _basis(found, name)


def holds(basis: str, found: Credentials) -> bool:
    """Whether what a token stands on is still there. Keys of other hashes may have come."""
    name = basis.rpartition(" ")[2].partition(":")[0]
    if not name and found.keys:
        return False
    return (not name or name in found.keys) and hmac.compare_digest(basis, _basis(found, name))


def _basis(found: Credentials, name: str) -> str:
    created, epoch = found.tenure if found.tenure is not None else (None, None)
    key = hashlib.sha256(found.keys[name].stored).hexdigest()[:32] if name else ""
    return f"{created} {epoch} {name}:{key}"
