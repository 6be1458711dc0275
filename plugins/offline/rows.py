"""What is kept of a message, what was given of it, and what is deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from zlib import crc32

from xmppd import ns
from xmppd.plugin import Put, Stanza, Timer, stamped

from .queue import size_of

REMEMBERED = 1000
"""How many messages of those that a session was given are remembered until they are seen to be deleted."""
CHAT_STATE = f"{{{ns.CHAT_STATES}}}"
THREAD = f"{{{ns.CLIENT}}}thread"
DELAY = f"{{{ns.DELAY}}}delay"
NO_STORE = f"{{{ns.HINTS}}}no-store"
STANZA_ID = f"{{{ns.STANZA_ID}}}stanza-id"


LIVE = "~"
"""What the id of a row ends with whose message was given to somebody as it is, and so has no stamp."""


class Given:
    """The ids of what a session was given from the store, until it is seen that they are not there any more:
    where the clocks of an engine's nodes differ, a delete may have no effect. `reading` is done when it has
    read all that it drew of its last page.
    """

    __slots__ = ("_again", "_page", "_refs", "ids", "reading")

    def __init__(self) -> None:
        self.ids: dict[str, None] = {}
        self._refs: dict[str, None] = {}
        self.reading: asyncio.Future[None] | None = None
        self._page = 0
        self._again: Timer | None = None

    def draw(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[bytes]:
        """The messages of a page that are new to it, one by one as its client reads, until the `stop`."""
        self._page += 1
        page = self._page
        for row in rows:
            if self._page != page:
                break
            is_due = _is_new(self.ids, row["id"]) and row["stanza"]
            if is_due and (not row["ref"] or _is_new(self._refs, row["ref"])):
                yield row["stanza"]

    def stop(self, reading: asyncio.Future[None]) -> None:
        """It is not given what it did not draw by now."""
        self._page += 1
        self.reading = reading

    def look_again(self, timer: Timer) -> None:
        """What is left is looked for by this timer, and by no earlier one."""
        if self._again is not None:
            self._again.cancel()
        self._again = timer


def _is_new(known: dict[str, None], id: str) -> bool:
    """Whether it was not known; it is from now on."""
    if id in known:
        return False
    known[id] = None
    if len(known) > REMEMBERED:
        del known[next(iter(known))]
    return True


def in_order_of(found: Mapping[str, bytes], rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows with what was found of those that are in the archive, in its order where these stand."""
    place = {ref: number for number, ref in enumerate(found)}
    ordered = iter(sorted([row for row in rows if row["ref"] in place], key=lambda row: place[row["ref"]]))
    placed = [next(ordered) if row["ref"] in place else row for row in rows]
    return [{**row, "stanza": found.get(row["ref"])} if row["ref"] else row for row in placed]


def with_older(
    missed: Sequence[tuple[str, int]], waiting: Sequence[Mapping[str, Any]], at: Callable[[str], int]
) -> Sequence[tuple[str, int]]:
    """Messages that were missed, with those that wait and are older than some of them. A row has its place
    by when it was stored, so these would come behind others that were taken in later; `at` tells when one
    was.
    """
    found = dict(missed)
    newest = max(found.values(), default=0)
    for row in waiting:
        if row["ref"] and row["ref"] not in found:
            taken_in = at(row["ref"])
            if taken_in < min(newest, int(row["id"][:16], 16)):
                found[row["ref"]] = taken_in
    return sorted(found.items(), key=lambda one: one[1])


def rows_of_missed(
    missed: Sequence[tuple[str, int]], resource: str, waiting: Sequence[Mapping[str, Any]]
) -> list[Put]:
    """What to write of messages that are in the archive and that this resource missed, each with its id there
    and the microsecond of it, so that a repeat writes the same rows, and another resource its own. Their
    totals go on to those of the oldest that is `waiting`, so that the oldest and the newest tell how much
    there is.
    """
    messages = waiting[0]["messages"] - 1 - len(missed) if waiting else 0
    size = waiting[0]["bytes"] - size_of(waiting[0]) - sum(len(ref) for ref, _ in missed) if waiting else 0
    writes = []
    for ref, at in missed:
        messages, size = messages + 1, size + len(ref)
        id = f"{at:016x}{crc32(f'{ref} {resource}'.encode()):08x}"
        writes.append(Put({"id": id, "stanza": None, "ref": ref, "messages": messages, "bytes": size}))
    return writes


def is_live(row: Mapping[str, Any]) -> bool:
    """Whether a row has a message as it was given."""
    return str(row.get("id", "")).endswith(LIVE)


def dated(row: Mapping[str, Any], account: str) -> Mapping[str, Any]:
    """The row with its message stamped, for who is given it later."""
    message, at = Stanza("message", {}, row["stanza"]), int(row["id"][:16], 16) / 1_000_000
    return {**row, "stanza": stamped(message, account.rpartition("@")[2], at)}


def address(stanza: bytes) -> str | None:
    """Whom a stored message is for."""
    return Stanza("message", {}, stanza).xml.get("to")


def names(message: Stanza, namespace: str) -> bool:
    """Whether the namespace may occur in the bytes: as it is, or written with character references."""
    raw = message.raw
    return not message.is_plain and (raw.find(namespace.encode()) >= 0 or raw.find(b"&#") >= 0)


def is_chat_state(message: Stanza) -> bool:
    """Whether a message tells a chat state and nothing else (XEP-0085 5.1)."""
    return ns.CHAT_STATES.encode() in message.raw and all(
        child.tag.startswith(CHAT_STATE) or child.tag in (THREAD, DELAY) or child.tag.endswith("}no-store")
        for child in message.xml
    )


def id_of(message: Stanza, account: str) -> str:
    """By which id a message is in the archive of the account it is for; "" for none."""
    if not names(message, ns.STANZA_ID):
        return ""
    ids = (child.get("id", "") for child in message.xml.iterfind(STANZA_ID) if child.get("by") == account)
    return next(ids, "")
