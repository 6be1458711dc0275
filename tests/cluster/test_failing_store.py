"""What a store that fails for a moment leaves between two nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from patience import PATIENCE
from several import CHAT, bodies, several

from tests.cluster.test_unkept import BOB, Node, busy
from xmppd.cluster.parcels import FLUSHING, Parcel
from xmppd.cluster.whereabouts import Place
from xmppd.core.sessions import LiveAccount
from xmppd.errors import StanzaError, StoreTimeout, StoreUnavailable
from xmppd.hooks import Outcome
from xmppd.jid import Jid
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Delete, Key, Page, Put, Table
from xmppd.testing import World
from xmppd.xml.stanza import Stanza

pytestmark = pytest.mark.asyncio

HELD = b"doubtful"


class Unsure(SqliteStore):
    """A store that writes some messages when `gate` is done, and does not say so. What is read takes so many
    `turns` of the loop.
    """

    def __init__(self, error: Exception, turns: int) -> None:
        super().__init__(":memory:")
        self._turns = turns
        self.gate = asyncio.get_running_loop().create_future()
        self._error = error

    async def scan(self, table: Table, partition: Key, **how: Any) -> Page:
        for _ in range(self._turns):
            await asyncio.sleep(0)
        return await super().scan(table, partition, **how)

    async def batch(self, table: Table, partition: Key, writes: Sequence[Put | Delete], **how: Any) -> bool:
        puts = [write.row["stanza"] for write in writes if isinstance(write, Put)]
        is_held = table.name == "offline_queue" and any(HELD in stanza for stanza in puts)
        if is_held:
            await self.gate
        became = await super().batch(table, partition, writes, **how)
        if is_held:
            raise self._error
        return became


@pytest.mark.one_node("has two nodes of its own")
@pytest.mark.parametrize(
    ("before", "turns", "error"),
    [
        ((), 0, StoreTimeout("silence")),
        (("before",), 0, StoreUnavailable("once it was written")),
        ((), 1, StoreTimeout("silence, after it was read how much is stored")),
    ],
)
async def test_what_was_stored_without_a_word_is_given_to_who_came_meanwhile_elsewhere(
    redis_url: str, before: tuple[str, ...], turns: int, error: Exception
) -> None:
    """Its sender is told that it failed; it does not wait for the next login."""
    store = Unsure(error, turns)
    async with World(plugins=("offline",), settings=several(redis_url), store=store, nodes=2) as world:
        alice = await world.login("alice", node=0)
        for body in (*before, HELD.decode()):
            await alice.send(CHAT.format(to=BOB, body=body))
        bob = await world.bind("bob", node=1)
        await bob.send("<presence/>")
        assert await bodies(bob) == [*before]
        store.gate.set_result(None)
        assert await bodies(bob) == [HELD.decode()]
        [refused] = await alice.receive_all()
        assert refused.get("type") == "error"
        assert [row async for row in world.plugin("offline").queue.everything()] == []


async def test_what_was_to_be_stored_behind_others_goes_to_who_has_come_here() -> None:
    """And not to the other node, where its receiver is being given what is stored: before it, perhaps."""
    came: list[str] = []

    def keep(to: Jid, stanza: Stanza, otherwise: Any) -> Any:
        """Nothing is kept any more when it is its turn: a session here has been given what was stored."""
        live = node.sessions.accounts[BOB] = LiveAccount(BOB)
        session = busy("here", 0, came)
        live.sessions = (SimpleNamespace(**{**vars(session), "is_flushing": False}),)  # type: ignore[assignment]
        live.refresh()
        return otherwise(stanza, to)

    node = Node(keep)
    node.mesh.whereabouts.put(BOB, Place(node.member.index, "there", 1, 5))
    origin: Any = None
    stanza = Stanza("message", {"to": BOB, "type": "chat"}, b"<message/>")
    parcel = node.messages.route(origin, stanza, Jid.parse(BOB), "chat")
    assert isinstance(parcel, Parcel)
    parcel.missed(StanzaError(FLUSHING))
    assert await asyncio.wait_for(parcel, PATIENCE) is Outcome.DELIVERED
    assert came == ["here"]
