"""Bearer tokens that operators make, list and revoke by command: the table, and what a node knows of it."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from xmppd.access.callers import MOST_SCOPES, Configured, Known, covers, is_scope
from xmppd.admin.commands import NO_PERMISSION, USAGE, Caller
from xmppd.errors import CommandError
from xmppd.moments import utc_stamp
from xmppd.store.person import Person
from xmppd.store.table import Row, Store, Table

API_TOKENS: Final = Table(
    "api_tokens",
    partition=("kind",),
    cluster=("name",),
    columns={
        "id": "text",
        "digest": "blob",
        "scopes": "text",
        "made": "timestamp",
        "made_by": "text",
        "expires": "timestamp",
        "used": "timestamp",
    },
    person=Person(mentions={"made_by": "masked"}, secret={"digest": "what the token is checked by"}),
)
BEARER: Final = "bearer"
"""The one partition, which each node holds in memory."""
PREFIX: Final = "xmppd_"
"""What all begin with, so that whoever looks for lost secrets finds them."""
MOST_TOKENS: Final = 1_000
DAY: Final = 86_400.0
MOST_DAYS: Final = 3_650
LINGER: Final = 7 * DAY
"""How long one that has ended is listed."""
FRESH_SECONDS: Final = 2.0
"""From which age on what is known is read again, by the way."""
STALE_SECONDS: Final = 5.0
"""From which age on nobody is let in by it: so a revocation of which this node was not told holds, too."""
USED_SECONDS: Final = 600.0
"""How long the last use is not written again."""
NAME: Final = re.compile(r"[A-Za-z0-9_.@-]{1,64}", re.ASCII)

Tell = Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]
"""Tells all nodes that there are other tokens; a row for each that did not hear it."""


class ApiTokens:
    """The tokens in the store, all of which are known here for some seconds: a request asks the store for
    nothing, nor does one with a token that is none.
    """

    def __init__(
        self,
        store: Store,
        configured: Callable[[], Configured],
        tell: Tell,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[Any]],
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._configured = configured
        self._tell = tell
        self._spawn = spawn
        self._now = now
        self._clock = clock
        self._rows: dict[bytes, Row] = {}
        self._read_at: float | None = None
        self._changes = 0
        self._reading: asyncio.Task[Any] | None = None

    # showing one

    def who(self, secret: str, digest: bytes) -> Known | Awaitable[Known | None] | None:
        """See `Source`; StoreError when nothing could be read for some seconds."""
        if not secret.startswith(PREFIX):
            return None
        age = self._age
        if age >= STALE_SECONDS:
            return self._read_and_find(digest)
        if age >= FRESH_SECONDS and self._reading is None:
            self._reading = self._spawn(self._read())
        return self._find(digest)

    @property
    def _age(self) -> float:
        return STALE_SECONDS if self._read_at is None else self._clock() - self._read_at

    async def _read_and_find(self, digest: bytes) -> Known | None:
        while self._age >= STALE_SECONDS:
            if self._reading is None:
                self._reading = self._spawn(self._read())
            await asyncio.shield(self._reading)
        return self._find(digest)

    def _find(self, digest: bytes) -> Known | None:
        row = self._rows.get(digest)
        if row is None or self._has_ended(row):
            return None
        if self._now() - (row["used"] or 0.0) >= USED_SECONDS:
            before, row["used"] = row["used"], self._now()
            self._spawn(self._note_use(dict(row), before))
        return Known(row["name"], frozenset(row["scopes"].split()), f"token:{row['name']}:{row['id']}")

    def _has_ended(self, row: Row) -> bool:
        return row["expires"] is not None and row["expires"] <= self._now()

    async def _read(self) -> None:
        try:
            changes = -1
            while changes != self._changes:
                changes, at = self._changes, self._clock()
                rows = (await self._store.scan(API_TOKENS, (BEARER,))).rows
            self._rows = {row["digest"]: row for row in rows}
            self._read_at = at
        finally:
            self._reading = None

    async def _note_use(self, row: Row, before: float | None) -> None:
        """Never of one that was revoked, or made anew, meanwhile."""
        await self._store.put_if(API_TOKENS, row, {"id": row["id"], "used": before}, ttl=self._life(row))

    def forget(self) -> None:
        """There are others: what is known here counts no more."""
        self._changes += 1
        self._read_at = None

    # commands

    async def every(self) -> Sequence[Mapping[str, Any]]:
        """A row for each, and for each of the configuration."""
        rows = (await self._store.scan(API_TOKENS, (BEARER,))).rows
        known = [
            {
                "name": row["name"],
                "scopes": row["scopes"].split(),
                "made": _moment(row["made"]),
                "made_by": row["made_by"],
                "expires": _moment(row["expires"]),
                "used": _moment(row["used"]),
                "state": "ended" if self._has_ended(row) else "good",
            }
            for row in rows
        ]
        nothing = dict.fromkeys(("made", "made_by", "expires", "used"))
        return known + [
            {"name": token.name, "scopes": sorted(token.scopes), **nothing, "state": "configured"}
            for token in self._configured().tokens
        ]

    async def add(self, name: str, scopes: Sequence[str], days: int, by: Caller) -> Mapping[str, Any]:
        """Make one that ends after so many days (0: never), with its text; CommandError."""
        self._check(name, scopes, days, by)
        rows = {row["name"]: row for row in (await self._store.scan(API_TOKENS, (BEARER,))).rows}
        before, now = rows.get(name), self._now()
        if before is not None and not self._has_ended(before):
            raise CommandError(f"there is a token {name} already", rule="api-token-exists")
        if len(rows) >= MOST_TOKENS and before is None:
            raise CommandError(f"there are {MOST_TOKENS} tokens already: revoke some")
        text = PREFIX + secrets.token_urlsafe(32)
        row: Row = {
            "kind": BEARER,
            "name": name,
            "id": secrets.token_hex(8),
            "digest": hashlib.sha256(text.encode()).digest(),
            "scopes": " ".join(dict.fromkeys(scopes)),
            "made": now,
            "made_by": by.name,
            "expires": now + days * DAY if days else None,
            "used": None,
        }
        expect = None if before is None else {"id": before["id"]}
        if not await self._store.put_if(API_TOKENS, row, expect, ttl=self._life(row)):
            raise CommandError(f"there is a token {name} already", rule="api-token-exists")
        await self._tell()
        shown = {"name": name, "token": text, "scopes": row["scopes"].split()}
        return {**shown, "expires": _moment(row["expires"])}

    def _check(self, name: str, scopes: Sequence[str], days: int, by: Caller) -> None:
        if not NAME.fullmatch(name):
            raise _wrong("name", "must be 1 to 64 of A-Z, a-z, 0-9 and _.@-")
        if not 0 <= days <= MOST_DAYS:
            raise _wrong("days", f"must be 0 to {MOST_DAYS}")
        if not 0 < len(scopes) <= MOST_SCOPES:
            raise _wrong("scope", f"must be 1 to {MOST_SCOPES}")
        for scope in scopes:
            if not is_scope(scope):
                raise _wrong("scope", f"{scope!r} is none (roster:show, roster:read, roster:*, *:read, *)")
            if by.scopes is not None and not covers(by.scopes, scope):
                message = f"who has not the scope {scope} cannot give it"
                raise CommandError(message, NO_PERMISSION, field="scope", rule="scope")
        if any(token.name == name for token in self._configured().tokens):
            message = f"the configuration has a token {name} already"
            raise CommandError(message, rule="api-token-exists")

    async def revoke(self, name: str) -> Sequence[Mapping[str, Any]]:
        """Let one count no more, on all nodes; CommandError. A row with a `problem` is for a node that was
        not told: there it ends within seconds.
        """
        key = (BEARER, name)
        row = await self._store.get(API_TOKENS, key)
        if row is None:
            is_fixed = any(token.name == name for token in self._configured().tokens)
            where = "in the configuration: take it out there, and reload" if is_fixed else "not known"
            raise CommandError(f"the token {name} is {where}", rule="" if is_fixed else "api-token-unknown")
        try:
            while row is not None and not await self._store.delete_if(API_TOKENS, key, {"id": row["id"]}):
                row = await self._store.get(API_TOKENS, key)
        finally:
            self.forget()
        return [{"revoked": name}, *await self._tell()]

    def _life(self, row: Row) -> float | None:
        return None if row["expires"] is None else max(1.0, row["expires"] + LINGER - self._now())


def _wrong(field: str, why: str) -> CommandError:
    return CommandError(f"{field}: {why}", USAGE, field=field, rule="parameter")


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else utc_stamp(seconds)
