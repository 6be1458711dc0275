"""What a node remembers of last words while others may have heard later ones."""

import time
from collections.abc import Coroutine
from typing import Any

import pytest

from xmppd.core.lastseen import LAST_PRESENCE, LastSeen
from xmppd.core.sessions import Broadcast
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
