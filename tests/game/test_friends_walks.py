"""Friends are of both sides after whatever both sides, their clients of all kinds, back ends and operators
did at once: random walks, on one node and on three. `XMPPD_TEST_FRIENDS` says how many, from which seed on
`XMPPD_TEST_FRIENDS_FROM`, and of how many rounds `XMPPD_TEST_FRIENDS_ROUNDS`.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from contextlib import suppress
from typing import Any

import pytest
from mortal import dawdle
from mutual import half, is_mutual
from several import several

from xmppd import ns
from xmppd.errors import XmppdError
from xmppd.testing import Client, World
from xmppd.testing.client import PASSWORD

NS = "urn:xmppd:friends:0"
SEEDS = int(os.environ.get("XMPPD_TEST_FRIENDS", "3"))
FIRST = int(os.environ.get("XMPPD_TEST_FRIENDS_FROM", "0"))
REMOVED_BESIDE = 317, 5947
"""In them a client removes a contact while a back end makes the two friends; in the second one he who
removes is removed himself.
"""
NAMES = ("alice", "bob", "carol")
ROUNDS = int(os.environ.get("XMPPD_TEST_FRIENDS_ROUNDS", "4"))
LATE_SECONDS = 400.0
PATIENCE = 30.0
"""Real seconds that a round may take."""

PLAYER_DEEDS = ("request", "request", "accept", "accept", "decline", "cancel", "remove")
SUBSCRIPTIONS = ("subscribe", "subscribe", "subscribed", "subscribed", "unsubscribe", "unsubscribed")
ITEMS = (" name='x'", " subscription='remove'", " subscription='both'", "><group>g</group></item")
COMMANDS = ("befriend", "befriend", "part", "request", "accept", "replace", "befriend-many")


class Walk:
    """Three players who do what they can, several things at once."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.chance = random.Random(seed)
        self.clients: dict[str, list[Client]] = {name: [] for name in NAMES}
        self.address = {name: f"{name}@localhost" for name in NAMES}
        self.numbers = 0
        self.is_renaming = False
        self.due: set[str] = set()
        self.log: list[str] = []

    @property
    def node(self) -> int:
        return self.chance.randrange(len(self.world.apps))

    async def come(self, name: str) -> None:
        """Be there: now and then with two clients."""
        self.clients[name] = []
        for _ in range(self.chance.choice((1, 1, 2))):
            client = await self.world.login(self.address[name].partition("@")[0], node=self.node)
            if self.chance.random() < 0.7:
                await client.send(f"<iq type='get' id='l'><friends xmlns='{NS}'/></iq>")
            self.clients[name].append(client)

    def said(self, one: str, peer: str) -> str:
        """Something that a client sends."""
        chance = self.chance
        kind = chance.randrange(4)
        if kind == 0:
            return self.iq(f"<{chance.choice(PLAYER_DEEDS)} xmlns='{NS}' jid='{peer}'/>")
        if kind == 1:
            return f"<presence type='{chance.choice(SUBSCRIPTIONS)}' to='{peer}'/>"
        if kind == 2:
            return self.iq(f"<query xmlns='{ns.ROSTER}'>{item(peer, chance.choice(ITEMS))}</query>")
        what = chance.choice(("block", "unblock", "unblock"))
        return self.iq(f"<{what} xmlns='{ns.BLOCKING}'><item jid='{peer}'/></{what}>")

    def iq(self, payload: str) -> str:
        self.numbers += 1
        return f"<iq type='set' id='w{self.numbers}'>{payload}</iq>"

    async def call(self, command: str, **arguments: Any) -> None:
        """A command, on some node; that it is refused is none of our matter."""
        with suppress(XmppdError):
            await self.world.apps[self.node].commands.call(command, arguments)

    def commanded(self, one: str, peer: str) -> Any:
        what = self.chance.choice(COMMANDS)
        if what == "replace" and self.is_renaming:  # which parts from all others
            what = "part"
        if what == "replace":
            return self.call("friend replace", player=one, friend=self.chance.choice(([], [peer])))
        if what == "befriend-many":
            return self.call("friend befriend-many", pair=[f"{one} {peer}"])
        return self.call(f"friend {what}", one=one, other=peer)

    async def moved(self, name: str, *, is_renamed: bool) -> None:
        """The player is renamed, or removed and made anew."""
        old = self.address[name]
        if not is_renamed:
            await self.call("user remove", account=old)
            with suppress(XmppdError):
                await self.world.app.accounts.create(old, PASSWORD)
        else:
            new = f"{self.chance.choice('az')}{self.numbers}{name}@localhost"
            self.numbers += 1
            await self.call("account rename", old=old, new=new)
            self.address[name] = new

    async def round(self) -> None:
        """Several things at once."""
        chance, tasks = self.chance, []
        goes = chance.choice(NAMES) if chance.random() < 0.15 else ""
        is_renamed = chance.random() < 0.5
        self.is_renaming = bool(goes) and is_renamed
        for name in NAMES:
            if name != goes and all(is_over(it) for it in self.clients[name]):
                await self.come(name)
        for _ in range(chance.randrange(2, 9)):
            name, other = chance.sample(NAMES, 2)
            one, peer = self.address[name], self.address[other]
            there = [it for it in self.clients[name] if not is_over(it)]
            if chance.random() < 0.3 or not there:
                tasks.append(asyncio.ensure_future(self.commanded(one, peer)))
                self.log.append(f"command {one} {peer}")
            else:
                sent = self.said(one, peer)
                self.log.append(f"{one}: {sent}")
                chance.choice(there).write(sent)
        if goes:
            tasks.append(asyncio.ensure_future(self.moved(goes, is_renamed=is_renamed)))
            self.log.append(f"moves {goes}")
        await self.still(tasks)
        if goes:  # rosters of others follow who is renamed, some of them late
            await self.world.advance(LATE_SECONDS)

    async def still(self, tasks: list[asyncio.Future[Any]]) -> None:
        """Wait until all of it is done: each client is answered what it asks last."""
        end = time.monotonic() + PATIENCE
        waiting = []
        for number, client in enumerate(it for some in self.clients.values() for it in some):
            if not is_over(client):
                client.write(f"<iq type='get' id='still{number}'><query xmlns='{ns.ROSTER}'/></iq>")
                waiting.append((client, f"id='still{number}'".encode()))
        while any(not it.done() for it in tasks) or any(
            not is_over(it) and id not in it.raw for it, id in waiting
        ):
            await self.world.settle()
            assert time.monotonic() < end, self.log
        for task in tasks:
            task.result()
        for _ in range(3):
            await self.world.settle()
        for client, _ in waiting:
            client.raw = b""


def is_over(client: Client) -> bool:
    """Whether its stream was ended, however long its connection takes."""
    return client.closed or client._wire.ending_since is not None


def item(peer: str, more: str) -> str:
    return f"<item jid='{peer}'{more}{'' if more.endswith('</item') else '/'}>"


async def check(walk: Walk) -> None:
    """All agree: both rosters, both cards and the row of each pair, on every node, and `friend check`."""
    world = walk.world
    for one, other in (("alice", "bob"), ("alice", "carol"), ("bob", "carol")):
        mine, theirs = walk.address[one], walk.address[other]
        assert await is_mutual(world, mine, theirs), (await looks(world, mine, theirs), walk.log)
        friends = world.plugin("friends")
        assert not await friends.is_barred(mine, theirs) or (
            (await friends.between(mine, theirs)).state == "none"
        ), walk.log
    for name in NAMES:
        found = await world.app.commands.call("friend check", {"player": walk.address[name]})
        assert found == [], (found, walk.log)


async def looks(world: World, one: str, other: str) -> list[Any]:
    """What is said of two, where they are not the same to each other."""
    friends = world.plugin("friends")
    found: list[Any] = [await friends.between(one, other)]
    found += [await half(world, *pair) for pair in ((one, other), (other, one))]
    return [*found, *[await friends.cards.get(*pair) for pair in ((one, other), (other, one))]]


async def play(world: World, seed: int) -> None:
    walk = Walk(world, seed)
    for name in NAMES:
        await walk.come(name)
    dawdle(world, random.Random(seed))
    for _ in range(ROUNDS):
        await walk.round()
        await check(walk)
    await world.advance(1000)
    await check(walk)
    rows = [row async for row in world.plugin("friends").pairs.everything()]
    addresses = set(walk.address.values())
    left = [row for row in rows if row["state"] != "none" and not {row["one"], row["other"]} <= addresses]
    assert left == [], walk.log


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", [*range(FIRST, FIRST + SEEDS), *REMOVED_BESIDE])
async def test_friends_are_mutual_whatever_clients_and_back_ends_do(seed: int) -> None:
    async with World(plugins=("friends", "blocking")) as world:
        await play(world, seed)


@pytest.mark.asyncio
@pytest.mark.one_node
@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
async def test_the_same_on_three_nodes(seed: int, redis_url: str) -> None:
    async with World(plugins=("friends", "blocking"), nodes=3, settings=several(redis_url)) as world:
        await play(world, 10_000 + seed)
