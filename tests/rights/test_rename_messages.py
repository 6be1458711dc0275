"""What is on its way to an account while that is given another address: held up before each thing that is
asked of the store for it, while the renaming goes on as far as it can. It comes under the new one, or its
sender is told.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from gates import EACH, Gate, go_on, reached, renamed
from several import CHAT, bodies, several

from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

MOST = 24
"""What becomes of one message asks the store for less."""
NODES = pytest.mark.parametrize("nodes", [1, pytest.param(2, marks=pytest.mark.one_node)])


class Message:
    """One to somebody who is given another address, by somebody, who both have no others."""

    def __init__(self, world: World, gate: Gate, number: int) -> None:
        self.world = world
        self.gate = gate
        self.number = number
        self.zoe, self.bob, self.new = (f"{name}{number}" for name in ("zoe", "bob", "anew"))

    async def login(self, name: str, node: int) -> Client:
        await self.world.app.accounts.create(f"{name}@localhost", "secret")
        return await self.world.login(name, node=node)

    async def send(self, bob: Client) -> None:
        bob.write(CHAT.format(to=f"{self.zoe}@localhost", body="hello"))
        await go_on(self.world)

    async def rename(self) -> None:
        """From when something is held up on."""
        await renamed(self.world, self.gate, f"{self.zoe}@localhost", f"{self.new}@localhost")

    @property
    def kept(self) -> int:
        """How many were kept so far."""
        return sum(plugin.stored.value for plugin in self.world.plugins("offline"))

    async def found(self) -> list[str]:
        """What is given to the account when it comes next."""
        again = await self.world.bind(self.new)
        await again.send("<presence/>")
        return await bodies(again)


async def each(nodes: int, redis_url: str, table: str) -> AsyncIterator[Message]:
    """A message held up at each call of the store that is about a table, one after the other."""
    plugins = ("archive", "offline", "blocking")
    async with World(accounts=(), plugins=plugins, nodes=nodes, settings=several(redis_url)) as world:
        gate = Gate(world, nodes - 1, table)
        for number in range(0, MOST, EACH):
            yield Message(world, gate, number)
            if not gate.is_reached:
                assert number > 0
                return
        raise AssertionError("it never ends")


def is_refused(stanzas: list[Any]) -> bool:
    return any(it.get("type") == "error" for it in stanzas)


@NODES
async def test_what_a_session_had_not_acknowledged_is_written_before_anything_moves(
    nodes: int, redis_url: str
) -> None:
    async for it in each(nodes, redis_url, "offline_queue"):
        zoe, bob = await it.login(it.zoe, nodes - 1), await it.login(it.bob, 0)
        await zoe.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        await it.send(bob)
        await it.world.settle()
        it.gate.shut(it.number)
        await it.rename()
        assert not is_refused(await bob.receive_all()), it.number
        assert await it.found() == ["hello"], it.number


@NODES
async def test_what_comes_meanwhile_is_given_to_the_new_account_or_refused(
    nodes: int, redis_url: str
) -> None:
    async for it in each(nodes, redis_url, ""):
        zoe, bob = await it.login(it.zoe, 0), await it.login(it.bob, nodes - 1)
        await zoe.drop()
        is_kept = partial(lambda it, before: it.kept > before, it, it.kept)
        it.gate.shut(it.number)
        await it.send(bob)
        await reached(it.world, it.gate, is_kept)
        it.gate.let()
        await it.rename()
        refused = is_refused(await bob.receive_all())
        assert await it.found() == ([] if refused else ["hello"]), it.number
