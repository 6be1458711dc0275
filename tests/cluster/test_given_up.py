"""Messages of one sender to one account that are on their way to several nodes, which are given up one after
the other: none is overtaken by a later one, whichever comes back first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import count

import pytest
from managing import managed
from several import CHAT, bodies, several

from xmppd.cluster.mesh import STEP
from xmppd.testing import Client, World

pytestmark = [pytest.mark.asyncio, pytest.mark.one_node("has nodes of its own")]

BETWEEN_SECONDS = 2
"""How much later the second node is cut off."""

GIVEN_UP_SECONDS = 8
"""When both are given up."""

ADDRESSES = {
    "all to the account": ("bare", "bare", "bare", "bare"),
    "to both sessions in turn": ("far", "near", "far", "near"),
    "to the account and one session": ("bare", "near", "near", "bare"),
    "to each": ("near", "bare", "far", "bare"),
}


@pytest.mark.parametrize(
    ("first", "comes", "plugins"),
    [
        (1, "before", ("archive", "offline")),
        (1, "between", ("offline",)),
        (2, "between", ("archive", "offline")),
        (2, "after", ("offline",)),
    ],
)
@pytest.mark.parametrize("to", ADDRESSES.values(), ids=ADDRESSES.keys())
async def test_what_comes_back_from_several_nodes_keeps_its_order(
    redis_url: str, first: int, comes: str, plugins: tuple[str, ...], to: Sequence[str]
) -> None:
    async with World(plugins=plugins, settings=several(redis_url), nodes=3) as world:
        far = await world.login("bob", "far", 5, node=1)
        near = await world.login("bob", "near", 0, node=2)
        alice = await world.login("alice", node=0)
        at = {"bare": near.bare, "far": far.jid, "near": near.jid}
        numbers = iter(range(1, 100))

        async def write() -> None:
            for address in to:
                await alice.send(CHAT.format(to=at[address], body=str(next(numbers))))

        async def come(when: str) -> Client | None:
            return await world.bind("bob", "here", node=0) if comes == when else None

        world.cut(0, first)
        await write()
        bob = await come("before")
        if bob is not None:
            bob.write("<presence><priority>9</priority></presence>")
        await world.advance(BETWEEN_SECONDS)
        world.cut(0, 3 - first)
        await write()
        found = await come("between")
        if found is not None:
            bob = found
            bob.write("<presence/>")
        await write()
        await world.advance(GIVEN_UP_SECONDS)
        await write()
        bob = bob or await come("after")
        assert bob is not None
        await bob.send("<presence/>")
        got = [[int(body) for body in await bodies(client)] for client in (bob, far, near)]
        assert got == [sorted(each) for each in got]
        assert sorted(number for each in got for number in each) == [*range(1, next(numbers))]
        await alice.expect_nothing()


@pytest.mark.parametrize("to", ["bob@localhost", "bob@localhost/far"])
async def test_what_is_sent_while_unacknowledged_messages_come_back_waits_for_them(
    redis_url: str, to: str
) -> None:
    """They come back in several turns of the loop, and what was in a session's queue first or last."""
    async with World(plugins=("offline",), settings=several(redis_url), nodes=2) as world:
        alice = await world.login("alice", node=0)
        await managed(world, "bob", "far", node=1)
        await managed(world, "carol", node=1)
        await alice.send("".join(CHAT.format(to="carol@localhost", body="many") for _ in range(3 * STEP)))
        await alice.send(CHAT.format(to=to, body="1"))
        world.cut(0, 1)
        mesh = world.cluster(0).mesh
        [member] = mesh.present()
        slices = count()
        world.apps[0].sessions.rounds._clock = lambda: float(next(slices))  # each turn is one step
        mesh.give_up(member, "it is silent")
        await alice.send(CHAT.format(to=to, body="2"))
        rows = [
            row async for row in world.plugin("offline").queue.everything() if b"to='bob" in row["stanza"]
        ]
        found = [re.search(rb"<body>(.)", row["stanza"]) for row in rows]
        assert [match and match[1] for match in found] == [b"1", b"2"]
        assert len(world.cluster(0).messages) == 0
