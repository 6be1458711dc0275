"""Adds a row where there may be so many only, however many come at once on whatever nodes."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from xmppd.plugin import Put, StanzaError, Table

ATTEMPTS: Final = 16

Rows = Sequence[Mapping[str, Any]]


async def add(
    table: Table, account: str, row: Mapping[str, Any], ttl: float, look: Callable[[Rows], Awaitable[bool]]
) -> bool:
    """Add a row to those of an account, unless `look` at all of them says that there is no need, or raises
    StanzaError. Whoever adds one moves the partition's `mark` on, and has his write refused if somebody else
    did since it was read. Whether the row was added; StanzaError resource-constraint if others never stop.
    """
    for _ in range(ATTEMPTS):
        static = await table.get_static(account)
        if not await look((await table.scan(account)).rows):
            return False
        expect = {"mark": None if static is None else static["mark"]}
        moved = {"mark": secrets.randbits(62)}
        if await table.batch(account, writes=[Put(row, ttl)], static=moved, expect=expect):
            return True
    raise StanzaError("resource-constraint", "Too many invite at once; try again.", type="wait")
