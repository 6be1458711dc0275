"""Acts of which web hooks tell, killed at each of their writes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from dying import Dying
from patience import until
from receiver import Receiver

from xmppd.core.happenings import LOST
from xmppd.errors import XmppdError
from xmppd.testing import Client, World

WRITES = 12
"""More than any of these acts takes."""
LOCAL = {"allowed": ["127.0.0.0/8"], "settle": 0.01}
Act = Callable[[World, Client, str], Awaitable[Any]]
Look = Callable[[World, str], Awaitable[bool]]
Whom = Callable[[dict[str, Any]], str]


@asynccontextmanager
async def told(
    receiver: Receiver, *kinds: str, plugins: tuple[str, ...], config: Mapping[str, Mapping[str, Any]]
) -> AsyncIterator[World]:
    """A server whose web hook leads to the receiver, and all nodes know."""
    settings = {"webhooks": LOCAL, **config}
    async with World(plugins=("webhooks", *plugins), plugin_config=settings) as world:
        arguments = {"name": "game", "url": receiver.url, "event": [*kinds]}
        await world.app.commands.call("webhook add", arguments)
        await world.advance(6)
        yield world


async def killed_at_each_write(
    kind: str,
    act: Act,
    look: Look,
    whom: Whom,
    *plugins: str,
    config: Mapping[str, Mapping[str, Any]] | None = None,
    before: Act | None = None,
    is_unsure: bool = False,
) -> None:
    """Do it again and again, each time with another name, and killed at another write, done or not: what is
    there by `look` is told, and nothing else, unless it `is_unsure`, and what is told again has its id.
    What has to be done `before` is done by who lives on.
    """
    async with (
        Receiver() as receiver,
        told(receiver, kind, "node.lost", plugins=plugins, config=config or {}) as world,
    ):
        dying, durable, names = Dying(world), set[str](), list[str]()
        for write, is_done in itertools.product(range(1, WRITES), (False, True)):
            name = f"zoe{write}{'done' if is_done else ''}"
            if kind not in ("account.created", "message.routed"):
                await world.app.accounts.provision(f"{name}@localhost")
                await world.advance(1)
            client = await world.login("alice", "phone", node=0)
            if before is not None:
                await before(world, client, name)
                await world.settle()
            dying.die_at(write, is_done=is_done)
            doing = asyncio.ensure_future(act(world, client, name))
            was_killed = await dying.happen(doing)
            await dying.reborn("webhooks")
            doing.cancel()
            with suppress(XmppdError, asyncio.CancelledError):
                await doing
            names.append(name)
            await world.advance(2)
            if await look(world, name):
                durable.add(name)
            if not was_killed and write > 1:
                break
        assert not was_killed, "there are more writes"
        assert 0 < len(durable) < len(names), "kills before and after"
        world.app.events.tell(LOST, "", {"lost": "last"})

        def of(kind: str) -> set[str]:
            return {whom(event) for event in receiver.events if event["kind"] == kind}

        def is_all() -> bool:
            return durable <= of(kind) and any(event["kind"] == LOST.name for event in receiver.events)

        await until(is_all, lambda: world.advance(0.5))
        assert is_unsure or of(kind) & {*names} <= durable, "what is not there is not told"
        ids: dict[str, str] = {}
        for event in receiver.events:
            if event["kind"] == kind and whom(event) in durable:
                assert ids.setdefault(whom(event), event["id"]) == event["id"], "a repeat has its id"
