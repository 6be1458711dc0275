"""The log of all that was done through any door: who, from where, what, and what became of it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from xmppd.access.hours import HOUR as HOUR_FORM
from xmppd.access.hours import Hours, id_of, text_of
from xmppd.admin.commands import Caller, Description, Json
from xmppd.errors import CommandError, StoreError
from xmppd.moments import utc_stamp
from xmppd.store.person import Person
from xmppd.store.table import Row, Store, Table

log = logging.getLogger(__name__)

DAY: Final = 86_400.0
HOUR: Final = 3_600.0
AUDIT_LOG: Final = Table(
    "audit_log",
    partition=("hour",),
    cluster=("id",),
    columns={
        "at": "timestamp",
        "node": "text",
        "door": "text",
        "who": "text",
        "address": "text",
        "command": "text",
        "arguments": "text",
        "outcome": "text",
        "detail": "text",
        "ended": "timestamp",
        "receipt": "text",
    },
    descending=True,
    ttl=90 * DAY,
    person=Person(mentions={"who": "masked", "arguments": "masked", "detail": "masked"}),
)
HELD_SECONDS: Final = 1.0
"""How long a command waits until it stands here."""
VALUE_CHARACTERS: Final = 200
"""Of one argument."""
ARGUMENTS_CHARACTERS: Final = 4_000
"""Of all: of more there are the names."""
DETAIL_CHARACTERS: Final = 300
MASKED: Final = "********"
BEFORE: Final = re.compile(r"[0-9]{17}(?:-[0-9a-f~]{0,20})?", re.ASCII)
ROWS: Final = 1_000
"""Looked at for one page."""
HOURS: Final = 240
"""Read for one page."""


class Entry:
    """What is written of one command."""

    def __init__(
        self,
        row: Row,
        secret: Sequence[str],
        write: Callable[[Row], Awaitable[None]],
        *,
        masks: bool = False,
    ) -> None:
        self.row = row
        self._masks = masks
        self._secret = secret
        self._write = write

    async def end(self, outcome: str, detail: str = "") -> None:
        """What became of it: `done`, `refused`, `failed`, or `unknown`."""
        if self._masks:  # a sentence may have the name in another form: the rule is enough
            detail = detail.partition(":")[0]
        for text in self._secret:
            detail = detail.replace(text, MASKED)
        self.row = {**self.row, "outcome": outcome, "detail": detail[:DETAIL_CHARACTERS]}
        await self._write(self.row)


class Audit:
    """Writes down what is done, before it is done and once more when its outcome is known; and what was."""

    def __init__(
        self,
        store: Store,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[Any]],
        now: Callable[[], float],
        node: Callable[[], str],
        days: float,
    ) -> None:
        self.days = days
        self.mask: Callable[[str], str] = lambda account: MASKED
        """What stands for an account that is not named."""
        self._store = store
        self._hours = hours_of(store)
        self._spawn = spawn
        self._now = now
        self._node = node

    async def begin(self, about: Description, arguments: Mapping[str, Json], by: Caller) -> Entry:
        """A command is about to be done. Never raises; a store that does not answer holds it up for a second,
        and the log says so.
        """
        secret = secret_texts(about, arguments)
        if about.masks:
            names = addresses_of(about)
            arguments = {name: self.mask(str(it)) if name in names else it for name, it in arguments.items()}
        row = self._row(about, arguments, by)
        first = self._spawn(self._put(row))

        async def finish(row: Row) -> None:
            self._spawn(self._finish(first, row))

        done, _ = await asyncio.wait({first}, timeout=HELD_SECONDS)
        if not done:
            self._lacks(row, "the store does not answer")
        return Entry(row, secret, finish, masks=about.masks)

    async def note(self, command: str, who: str, arguments: Mapping[str, Json], receipt: str) -> None:
        """Keep the receipt of what was done, at any time after it was asked for; StoreError."""
        row = self._row(Description(command, ""), {}, Caller("server", who))
        told: Row = {"arguments": json.dumps(arguments), "outcome": "done", "receipt": receipt}
        told["ended"] = row["at"]
        await self._hours.mark(row["hour"], self.days * DAY)
        await self._store.put(AUDIT_LOG, {**row, **told}, ttl=self.days * DAY)

    def _row(self, about: Description, arguments: Mapping[str, Json], by: Caller) -> dict[str, Any]:
        now = self._now()
        return {**row_of(about, arguments, by, now, self._node()), "hour": self._hours.place(now)}

    async def _finish(self, first: asyncio.Task[Any], row: Row) -> None:
        await asyncio.wait({first})
        await self._put({**row, "ended": self._now()})

    async def _put(self, row: Row) -> None:
        try:
            await self._hours.mark(row["hour"], self.days * DAY)
            await self._store.put(AUDIT_LOG, row, ttl=self.days * DAY)
        except StoreError as error:
            self._lacks(row, str(error) or type(error).__name__)

    @staticmethod
    def _lacks(row: Row, why: str) -> None:
        log.warning(
            "audit-not-written",
            extra={
                "command": row["command"],
                "door": row["door"],
                "who": row["who"],
                "address": row["address"],
                "outcome": row["outcome"],
                "error": why,
            },
        )

    # looking

    async def some(
        self, since: float | None, who: str, command: str, after: str
    ) -> tuple[list[Mapping[str, Any]], int, str | None]:
        """Some entries since a moment (None: of the last day), the newest first, how many were looked at, and
        the token to go on with; CommandError.
        """
        now = self._now()
        since = now - DAY if since is None else max(since, now - self.days * DAY)
        hour, before = _place(after) if after else (hour_of(now + HOUR), "")
        found: list[Mapping[str, Any]] = []
        looked, last = 0, hour_of(since)
        for _ in range(HOURS):
            if hour < last or looked >= ROWS:
                break
            rows, before = await self._hours.newest(hour, before, ROWS - looked)
            looked += len(rows)
            found += [_shown(row) for row in rows if row["at"] >= since and _fits(row, who, command)]
            if not before:
                hour = _hour_before(hour)
        return found, looked, None if hour < last else f"{hour}/{before}"


class Afterwards:
    """Writes down what was done to a store that may not have been there before; `ready` opens it."""

    def __init__(
        self, store: Store, ready: Callable[[], Awaitable[None]], now: Callable[[], float], days: float
    ) -> None:
        self._store = store
        self._ready = ready
        self._now = now
        self._days = days

    async def begin(self, about: Description, arguments: Mapping[str, Json], by: Caller) -> Entry:
        """A command is about to be done."""

        async def write(row: Row) -> None:
            try:
                await self._ready()
                await self._store.put(AUDIT_LOG, {**row, "ended": self._now()}, ttl=self._days * DAY)
            except StoreError as error:
                Audit._lacks(row, str(error))

        row = row_of(about, arguments, by, self._now(), "")
        return Entry(row, secret_texts(about, arguments), write)


def row_of(
    about: Description, arguments: Mapping[str, Json], by: Caller, now: float, node: str
) -> dict[str, Any]:
    """What is written before a command is done."""
    return {
        "hour": hour_of(now),
        "id": id_of(now, secrets.token_hex(4)),
        "at": now,
        "node": node,
        "door": by.door,
        "who": by.name,
        "address": by.address,
        "command": about.name,
        "arguments": json.dumps(masked(about, arguments), ensure_ascii=False),
        "outcome": "unknown",
        "detail": "",
        "ended": None,
    }


def masked(about: Description, arguments: Mapping[str, Json]) -> dict[str, Json]:
    """Arguments as they may be shown: no secrets, nor what is no parameter, for it may be a secret too."""
    open_ones = {parameter.name for parameter in about.parameters if not parameter.secret}
    found = {name: _cut(value) if name in open_ones else MASKED for name, value in arguments.items()}
    if len(json.dumps(found)) > ARGUMENTS_CHARACTERS:
        found = dict.fromkeys([name[:VALUE_CHARACTERS] for name in found][:20], "...")
    return found


def secret_texts(about: Description, arguments: Mapping[str, Json]) -> list[str]:
    """The secrets among arguments, which no refusal may repeat."""
    open_ones = {parameter.name for parameter in about.parameters if not parameter.secret}
    return [
        value
        for name, value in arguments.items()
        if name not in open_ones and isinstance(value, str) and value
    ]


def addresses_of(about: Description) -> frozenset[str]:
    """The parameters that are addresses."""
    return frozenset(parameter.name for parameter in about.parameters if parameter.kind == "Jid")


def _cut(value: Json) -> Json:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= VALUE_CHARACTERS:
        return value
    return f"{text[:VALUE_CHARACTERS]}... ({len(text)} characters)"


def hours_of(store: Store) -> Hours:
    """Where entries lie in a store."""
    texts = [name for name, kind in AUDIT_LOG.columns.items() if kind == "text" and name != "receipt"]
    return Hours(store, AUDIT_LOG, {**dict.fromkeys(texts, ""), "arguments": "{}", "at": 0.0})


def hour_of(moment: float) -> str:
    """The hour of a moment: `2026-11-29T17`, UTC."""
    return text_of(moment, HOUR_FORM)


def _hour_before(hour: str) -> str:
    return hour_of(datetime.fromisoformat(f"{hour}:00:00+00:00").timestamp() - HOUR)


def _place(after: str) -> tuple[str, str]:
    hour, slash, before = after.partition("/")
    try:
        is_right = bool(slash) and hour_of(datetime.fromisoformat(f"{hour}:00:00+00:00").timestamp()) == hour
    except ValueError:
        is_right = False
    if not is_right or not (BEFORE.fullmatch(before) or not before):
        raise CommandError("after: this is not a token", 2, field="after", rule="parameter")
    return hour, before


def _fits(row: Row, who: str, command: str) -> bool:
    name = row["command"]
    return who in ("", row["who"]) and (command in ("", name) or name.startswith(f"{command} "))


def _shown(row: Row) -> Mapping[str, Any]:
    at = utc_stamp(row["at"], to="milliseconds")
    took = None if row["ended"] is None else round(max(0.0, row["ended"] - row["at"]), 3)
    shown = {name: row[name] for name in ("who", "door", "address", "command")}
    arguments = json.loads(row["arguments"])
    receipt = {"receipt": json.loads(row["receipt"])} if row.get("receipt") else {}
    return {
        "at": at,
        **shown,
        "arguments": arguments,
        "outcome": row["outcome"],
        "detail": row["detail"] or "",
        "seconds": took,
        "node": row["node"] or "",
        **receipt,
    }
