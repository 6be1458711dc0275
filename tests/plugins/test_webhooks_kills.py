"""Web hooks: what is durable is told, at whatever write the process was killed that did it."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from dying import Dying
from patience import until
from receiver import Receiver

from xmppd import ns
from xmppd.core.credentials import ACCOUNT
from xmppd.errors import StanzaError, StoreError
from xmppd.testing import Client, World

WRITES = 10
"""More than any of these acts takes."""
LOCAL = {"webhooks": {"allowed": ["127.0.0.0/8"], "settle": 0.01}}
Act = Callable[[World, Client, str], Awaitable[None]]
Look = Callable[[World, str], Awaitable[bool]]


@asynccontextmanager
async def told(receiver: Receiver, kind: str, *plugins: str) -> AsyncIterator[World]:
    async with World(plugins=("webhooks", *plugins), plugin_config=LOCAL) as world:
        arguments = {"name": "game", "url": receiver.url, "event": [kind, "account.created"]}
        await world.app.commands.call("webhook add", arguments)
        await world.advance(6)  # until all nodes know of it
        yield world


async def create(world: World, client: Client, name: str) -> None:
    await world.app.accounts.provision(f"{name}@localhost")


async def is_there(world: World, name: str) -> bool:
    return await world.app.store.get(ACCOUNT, (f"{name}@localhost",)) is not None


async def disable(world: World, client: Client, name: str) -> None:
    await world.app.accounts.disable(f"{name}@localhost")


async def is_disabled(world: World, name: str) -> bool:
    return (await world.app.accounts.info(f"{name}@localhost")).disabled


async def know(world: World, client: Client, name: str) -> None:
    query = f"<query xmlns='{ns.ROSTER}'><item jid='{name}@localhost' name='x'/></query>"
    await client.send(f"<iq type='set' id='{name}'>{query}</iq>")


async def is_known(world: World, name: str) -> bool:
    return await world.app.rosters.get_item("alice@localhost", f"{name}@localhost") is not None


async def report(world: World, client: Client, name: str) -> None:
    await client.send(
        f"<iq type='set' id='{name}'><block xmlns='{ns.BLOCKING}'><item jid='{name}@localhost'>"
        f"<report xmlns='{ns.REPORTING}' reason='{ns.REPORTING_SPAM}'/></item></block></iq>"
    )


async def is_blocked(world: World, name: str) -> bool:
    return f"{name}@localhost" in await world.app.blocking.of("alice@localhost")


async def write(world: World, client: Client, name: str) -> None:
    await client.send(f"<message to='bob@localhost' id='{name}' type='chat'><body>{name}</body></message>")


async def is_kept(world: World, name: str) -> bool:
    rows = (await world.plugin("offline").queue.scan("bob@localhost")).rows
    return any(f"id='{name}'".encode() in row["stanza"] for row in rows)


def whom(event: dict[str, Any]) -> str:
    """The name that an act was about."""
    data = event["data"]
    name = data.get("contact") or data.get("reported") or data.get("id") or event["account"]
    return str(name).partition("@")[0]


ACTS: dict[str, tuple[str, Act, Look, tuple[str, ...]]] = {
    "created": ("account.created", create, is_there, ()),
    "disabled": ("account.changed", disable, is_disabled, ()),
    "roster": ("roster.changed", know, is_known, ()),
    "report": ("report.made", report, is_blocked, ("blocking",)),
    "message": ("message.routed", write, is_kept, ("offline",)),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("act", ACTS)
async def test_what_is_durable_is_told_after_a_kill_at_each_write(act: str) -> None:
    kind, do, look, plugins = ACTS[act]
    async with Receiver() as receiver, told(receiver, kind, *plugins) as world:
        dying, durable, names = Dying(world), set(), []
        for write, is_done in itertools.product(range(1, WRITES), (False, True)):
            name = f"{act}{write}{'done' if is_done else ''}"
            if act not in ("created", "message"):
                await world.app.accounts.provision(f"{name}@localhost")
                await world.advance(1)
            client = await world.login("alice", "phone", node=0)
            dying.die_at(write, is_done=is_done)
            doing = asyncio.ensure_future(do(world, client, name))
            was_killed = await dying.happen()
            await dying.reborn("webhooks")
            doing.cancel()
            with suppress(StoreError, StanzaError, asyncio.CancelledError):
                await doing
            names.append(name)
            if await look(world, name):
                durable.add(name)
            await world.advance(2)
            if not was_killed and write > 1:
                break
        assert 2 < len(durable) < len(names), "kills before and after"
        await world.app.accounts.provision("last@localhost")

        def of(kind: str) -> set[str]:
            return {whom(event) for event in receiver.events if event["kind"] == kind}

        await until(
            lambda: durable <= of(kind) and "last" in of("account.created"), lambda: world.advance(0.5)
        )
        extra = (of(kind) & {*names}) - durable
        assert not extra or act == "message", "what is not there is not told"
        ids = {}
        for event in receiver.events:
            if event["kind"] == kind and whom(event) in durable:
                assert ids.setdefault(whom(event), event["id"]) == event["id"], "a repeat has its id"
