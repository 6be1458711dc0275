"""What comes into archives in one turn of the loop is written together, and refused each for itself."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from archives import BODY, chat, find, world
from stores import new_store

from xmppd.errors import StoreBug, StoreError, StoreTimeout, StoreUnavailable
from xmppd.store.table import Prepared, Store
from xmppd.testing import World, refusal

pytestmark = [pytest.mark.asyncio, pytest.mark.one_node("nodes agree to each message in its own turn")]


class Watched:
    """What is written to a store; those of more than `most` rows fail, and those with `bad` in one."""

    def __init__(self, store: Store) -> None:
        self.rows: list[int] = []
        self.most = 1000
        self.error: StoreError | None = None
        self.bad = b"nothing"
        self.write = store.write
        store.write = self.look  # type: ignore[method-assign]

    def look(self, rows: Sequence[Prepared], *, ttl: float | None = None) -> Any:
        values = [row for _, some in rows for row in some]
        self.rows.append(len(values))
        is_bad = any(isinstance(value, bytes) and self.bad in value for row in values for value in row)
        error = StoreBug("bad") if is_bad else self.error if len(values) > self.most else None
        if error is None:
            return self.write(rows, ttl=ttl)
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        failed.set_exception(error)
        return failed


async def talk(
    w: World, watched: Watched, *texts: str, most: int = 1000, error: StoreError | None = None
) -> tuple[list[str | None], list[str]]:
    """Alice writes to bob, in one turn: what he is given, and how she is refused."""
    alice, bob = await w.login("alice"), await w.login("bob")
    await chat(alice, "bob@localhost", "known")
    await bob.receive_all()
    watched.rows.clear()
    watched.most, watched.error = most, error
    alice.write("".join(f"<message to='bob@localhost' id='{t}'><body>{t}</body></message>" for t in texts))
    await w.settle()
    got = [message.findtext(BODY) for message in await bob.receive_all()]
    refused = [f"{answer.get('id')} {refusal(answer)}" for answer in await alice.receive_all()]
    assert (await find(bob)).texts[1 : len(got) + 1] == got
    return got, refused


async def test_they_are_written_at_once() -> None:
    async with world(store=(store := new_store())) as w:
        watched = Watched(store)
        assert await talk(w, watched, *"123") == ([*"123"], [])
        assert watched.rows == [6]


@pytest.mark.parametrize("bound", ["AT_ONCE", "BYTES_AT_ONCE"])
async def test_not_too_many_are(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(store=(store := new_store())) as w:
        filing = sys.modules[type(w.plugin("archive").filer).__module__]
        monkeypatch.setattr(filing, bound, {"AT_ONCE": 2, "BYTES_AT_ONCE": 160}[bound])
        watched = Watched(store)
        assert await talk(w, watched, *"123") == ([*"123"], [])
        assert watched.rows == [4, 2]


async def test_where_nobody_knows_whether_they_are_each_is_written_until_it_is() -> None:
    async with world(store=(store := new_store())) as w:
        watched = Watched(store)
        assert await talk(w, watched, *"123", most=2, error=StoreTimeout("slow")) == ([*"123"], [])
        assert watched.rows == [6, 2, 2, 2]


async def test_one_that_the_store_refuses_is_refused_alone() -> None:
    async with world(store=(store := new_store())) as w:
        watched = Watched(store)
        watched.bad = b"<body>2</body>"
        got, refused = await talk(w, watched, *"123")
        assert got == ["1", "3"] and refused == ["2 wait resource-constraint"]


async def test_where_nothing_was_written_all_are_refused_at_once() -> None:
    async with world(store=(store := new_store())) as w:
        watched = Watched(store)
        got, refused = await talk(w, watched, *"12", most=2, error=StoreUnavailable("full"))
        assert got == [] and refused == [f"{n} wait resource-constraint" for n in "12"]
        assert watched.rows == [4]
