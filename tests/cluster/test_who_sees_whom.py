"""Clients see in the end what rosters and block lists say in the end, whoever changes them at once, and on
whatever nodes. `XMPPD_TEST_SEES` says how many walks, from which seed on `XMPPD_TEST_SEES_FROM`.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress

import pytest
from mortal import dawdle
from several import presences, several

from xmppd import ns
from xmppd.errors import XmppdError
from xmppd.testing import Client, World

SEEDS = int(os.environ.get("XMPPD_TEST_SEES", "3"))
FIRST = int(os.environ.get("XMPPD_TEST_SEES_FROM", "0"))
ROUNDS = 8
ALICE, BOB = "alice@localhost", "bob@localhost"
SUBSCRIPTIONS = ("subscribe", "subscribed", "unsubscribe", "unsubscribed")
RELATIONS = ("both", "none", "asking")
DEEDS = (
    *SUBSCRIPTIONS,
    *(f"send {kind}" for kind in SUBSCRIPTIONS),
    *RELATIONS,
    "befriend",
    "part",
    "remove",
)
BLOCKS = ("block", "unblock")
REMOVED = (
    f"<iq type='set' id='r'><query xmlns='{ns.ROSTER}'><item jid='{{}}' subscription='remove'/></query></iq>"
)

Deed = tuple[str, str, str, int]
"""Who, to whom, what, and on which node."""


class Walk:
    """Two accounts with a client each. `shown`: whether each is shown that the other one is there."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.chance = random.Random(seed)
        self.clients: dict[str, Client] = {}
        self.shown = {ALICE: [False], BOB: [False]}

    async def come(self) -> None:
        for number, account in enumerate((ALICE, BOB)):
            node = number % len(self.world.apps)
            self.clients[account] = await self.world.login(account.partition("@")[0], node=node)

    def deed(self) -> Deed:
        """What somebody does, by a client, a back end or an operator; alice alone blocks."""
        one, other = self.chance.sample((ALICE, BOB), 2)
        what = self.chance.choice((*DEEDS, *BLOCKS) if one == ALICE else DEEDS)
        return one, other, what, self.chance.randrange(len(self.world.apps))

    async def do(self, one: str, other: str, what: str, node: int) -> None:
        app = self.world.apps[node]
        rosters, blocks = app.server.rosters, app.server.blocks
        with suppress(XmppdError):
            if what in SUBSCRIPTIONS:
                await app.contacts.send(one, other, what, by="test")  # type: ignore[arg-type]
            elif what.startswith("send "):
                self.clients[one].write(f"<presence type='{what[5:]}' to='{other}'/>")
            elif what in RELATIONS:
                await rosters.relate(one, other, what)  # type: ignore[arg-type]
            elif what in BLOCKS:
                await (blocks.block if what == "block" else blocks.unblock)(one, [other])
            elif what == "remove" and node == 0:
                self.clients[one].write(REMOVED.format(other))
            elif what == "remove":
                await rosters.remove_item(one, other)
            else:
                await getattr(rosters, what)(one, other)

    async def round(self) -> None:
        deeds = [self.deed() for _ in range(3)]
        await asyncio.gather(*(self.do(*deed) for deed in deeds))
        await self.world.settle()
        is_barred = await self.world.app.server.blocks.bars(ALICE, BOB)
        for account, client in self.clients.items():
            self.shown[account] = [self.shown[account][-1], *presences(await client.receive_all())]
        sees = {BOB: await self.lets(ALICE, BOB) and not is_barred, ALICE: await self.lets(BOB, ALICE)}
        if is_barred or any(what in BLOCKS for _, _, what, _ in deeds):
            self.shown[ALICE].append(sees[ALICE])  # it is the client's to show nothing of whom she blocks
        assert {account: shown[-1] for account, shown in self.shown.items()} == sees, (deeds, self.shown)

    async def lets(self, account: str, viewer: str) -> bool:
        """Whether the account's roster lets the other one see it."""
        item = await self.world.app.server.rosters.item(account, viewer)
        return item is not None and item.state.is_followed


@pytest.mark.asyncio
@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
async def test_clients_see_what_rosters_and_block_lists_say(seed: int, nodes: int, redis_url: str) -> None:
    async with World(plugins=("blocking",), nodes=nodes, settings=several(redis_url)) as world:
        walk = Walk(world, seed)
        await walk.come()
        dawdle(world, walk.chance, most=40)
        for _ in range(ROUNDS):
            await walk.round()
