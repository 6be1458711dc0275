"""Servers that are killed, one life behind the other on one file, and clients that come back after that."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from archives import BODY, world
from managing import enable

from xmppd import ns
from xmppd.store.sqlite.store import SqliteStore
from xmppd.testing import Client, World

MESSAGE = f"{{{ns.CLIENT}}}message"

Lives = Callable[..., AbstractAsyncContextManager[World]]


def lives_in(folder: Path) -> Lives:
    """Servers on one file, each of which begins with what the one before had written when it was killed."""
    paths = [folder / "0.db"]
    ended: list[World] = []

    @asynccontextmanager
    async def begin(*more: str, **about: Any) -> AsyncIterator[World]:
        if ended:
            before = paths[-1]
            paths.append(folder / f"{len(paths)}.db")
            with sqlite3.connect(before) as old, sqlite3.connect(paths[-1]) as new:
                old.backup(new)
        store = SqliteStore(paths[-1])
        accounts = () if ended else ("alice", "bob", "carol")
        w = world("offline", *more, store=store, accounts=accounts, **about)
        w.clock.seconds = ended[-1].clock.seconds + 5 if ended else w.clock.seconds
        async with w:
            ended.append(w)
            yield w

    return begin


async def anew(w: World, user: str, resource: str = "", more: str = "", *, node: int | None = None) -> Client:
    """A client that comes without the id of any session, and acknowledges."""
    client = await w.bind(user, resource, node=node)
    await enable(client, more)
    return client


def messages(stanzas: list[Element]) -> list[Element]:
    return [one for one in stanzas if one.tag == MESSAGE and one.findtext(BODY)]


def texts(stanzas: list[Element]) -> list[str | None]:
    return [one.findtext(BODY) for one in messages(stanzas)]


async def given(client: Client) -> list[Element]:
    """What a client is given that becomes available."""
    await client.receive_all()
    await client.send("<presence/>")
    return messages(await client.receive_all())


async def acknowledge(client: Client) -> None:
    """It has all that it was sent."""
    await client.send(f"<a xmlns='{ns.SM}' h='{client.session.managed.sent}'/>")
