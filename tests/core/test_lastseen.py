"""What a node remembers of last words while others may have heard later ones."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from xmppd.core.lastseen import LAST_PRESENCE, SILENCE, LastSeen
from xmppd.core.sessions import Broadcast
from xmppd.errors import StoreTimeout
from xmppd.jid import Jid
from xmppd.testing import World

BOB = "bob@localhost"


def words(text: str) -> Broadcast:
    """What somebody says who leaves."""
    return Broadcast(b"<presence from='bob@localhost'", f"><status>{text}</status></presence>".encode())


@pytest.mark.asyncio
@pytest.mark.parametrize("account", [BOB, ""])
async def test_later_words_of_another_node_are_heard_behind_own_ones(account: str) -> None:
    async with World() as world:
        app, later = world.app, list[Coroutine[Any, Any, None]]()
        spawn, hold = later.append, app.accounts.hold
        seen = LastSeen(app.store, app.sessions, app.rosters, app.visibility, spawn, time.time, hold)
        seen.remember(BOB, words("here"))
        seen.overtaken(account)
        assert b"here" in (await seen.words(Jid.parse(BOB))).tail, "as long as it is being written"
        await later.pop()
        await app.store.put(LAST_PRESENCE, {"account": BOB, **words("there")._asdict(), "at": time.time()})
        assert b"there" in (await seen.words(Jid.parse(BOB))).tail
        seen.remember(BOB, words("again"))
        await later.pop()
        assert seen.cached == 1, "nobody said anything since"


class Backwards:
    """A store that is asked by several connections: the first write is there after a while, and behind what
    was asked for meanwhile; it may fail.
    """

    def __init__(self, *, fails: bool) -> None:
        self.row: Any = None
        self.first: asyncio.Future[None] | None = asyncio.get_running_loop().create_future()
        self._fails = fails

    async def _wait(self) -> None:
        first, self.first = self.first, None
        if first is not None:
            await first
            if self._fails:
                raise StoreTimeout("it does not answer")

    async def put(self, table: Any, row: Any) -> None:
        await self._wait()
        self.row = row

    async def delete(self, table: Any, key: Any) -> None:
        await self._wait()
        self.row = None

    async def get(self, table: Any, key: Any) -> Any:
        return self.row


@pytest.mark.asyncio
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("last", ["two", ""])
async def test_of_two_words_the_last_ones_stay(*, fails: bool, last: str) -> None:
    async with World() as world:
        app, spawned = world.app, list[asyncio.Task[None]]()
        store, hold = Backwards(fails=fails), app.accounts.hold
        assert (first := store.first) is not None
        seen = LastSeen(
            store,  # type: ignore[arg-type]
            app.sessions,
            app.rosters,
            app.visibility,
            lambda work: spawned.append(asyncio.create_task(work)),
            time.time,
            hold,
        )
        seen.remember(BOB, words("one"))
        await asyncio.sleep(0)
        for said in (words("between"), words(last) if last else SILENCE):
            seen.remember(BOB, said)
            await asyncio.sleep(0)
        first.set_result(None)
        found = await asyncio.gather(*spawned, return_exceptions=True)
        assert [type(one) for one in found if one] == [StoreTimeout] * fails
        told = (await seen.words(Jid.parse(BOB))).tail
        assert (last.encode() in told and b"status" in told) if last else b"status" not in told
        assert (store.row is not None and last.encode() in store.row["tail"]) if last else store.row is None
