"""kill -9 in the midst of an erasure or a renaming: who starts next finishes it, and web hooks are told."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
import stores
from receiver import Receiver

from xmppd.errors import CommandError

ROUNDS = 1 if stores.ON_CASSANDRA else 3
"""There a killed process holds its lock for half a minute."""
FRIENDS = [f"f{number}" for number in range(40)]
PLUGINS = {
    "enabled": ["ping", "offline", "blocking", "vcard", "archive", "webhooks"],
    "config": {"webhooks": {"allowed": ["127.0.0.0/8"]}},
}


async def ask(server: Any, name: str, /, **arguments: Any) -> Any:
    return await asyncio.to_thread(lambda: server.command(name, **arguments))


async def state_of(server: Any, command: str, account: str) -> str:
    """What an operator is told of what goes on with it; "" for nothing."""
    try:
        if command == "account rename":
            rows = await ask(server, "account renamed")
            return next((row["state"] for row in rows if row["account"] == account), "")
        row: dict[str, str] = await ask(server, "account receipt", account=account)
    except CommandError:
        return ""
    return row["state"]


async def cut_short(server: Any, command: str, account: str, chance: random.Random, /, **how: str) -> str:
    """Begin, kill the server in the midst of it, start it again; how it stood then."""
    asked = asyncio.ensure_future(ask(server, command, **how))
    async with asyncio.timeout(30):
        while not (asked.done() or await state_of(server, command, account)):  # noqa: ASYNC110
            await asyncio.sleep(0)
    await asyncio.sleep(chance.random() * 0.1)
    was_done = asked.done()
    await server.kill()
    await asyncio.gather(asked, return_exceptions=True)
    await server.start()
    return "done" if was_done else await state_of(server, command, account)


async def until_done(server: Any, command: str, account: str) -> None:
    async with asyncio.timeout(90):
        while await state_of(server, command, account) != "done":  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def begun(prepared: Callable[..., Any], url: str, kind: str) -> Any:
    """A server with some accounts, which tells a receiver of one kind of event."""
    server = prepared(plugins=PLUGINS)
    await server.start()
    server.add(*FRIENDS)
    await ask(server, "webhook add", name="game", url=url, event=[kind])
    return server


async def lived(server: Any, name: str) -> None:
    """An account that all know, some of whom block it; and that has something of its own."""
    server.add(name)
    me = f"{name}@localhost"
    pairs = [f"{me} {friend}@localhost" for friend in FRIENDS]
    await ask(server, "roster befriend-many", pair=pairs)
    for friend in FRIENDS[:5]:
        await ask(server, "block add", account=f"{friend}@localhost", address=f"{me}/x")
    friend = await server.login(FRIENDS[0])
    await friend.send(f"<message to='{me}' type='chat'><body>for {name}</body></message>")
    await friend.ping()
    friend.cut()


async def named(server: Any, address: str) -> tuple[int, int]:
    """How many rosters and block lists of the others have an address."""
    rosters = [await ask(server, "roster show", account=f"{friend}@localhost") for friend in FRIENDS]
    blocks = [await ask(server, "block list", account=f"{friend}@localhost") for friend in FRIENDS]
    return (
        sum(row["contact"] == address for rows in rosters for row in rows),
        sum(row["address"] == f"{address}/x" for rows in blocks for row in rows),
    )


@pytest.mark.asyncio
async def test_a_renaming_is_finished_by_who_starts_next(prepared: Callable[..., Any]) -> None:
    chance, stood = random.Random(15), []
    async with Receiver() as receiver:
        server = await begun(prepared, receiver.url, "account.renamed")
        for number in range(ROUNDS):
            old, new = f"zoe{number}@localhost", f"zoey{number}@localhost"
            await lived(server, f"zoe{number}")
            stood.append(await cut_short(server, "account rename", old, chance, old=old, new=new))
            await until_done(server, "account rename", old)
            assert (await named(server, old), await named(server, new)) == ((0, 0), (len(FRIENDS), 5))
            assert len(await ask(server, "roster show", account=new)) == len(FRIENDS)
            assert await (await server.login(f"zoey{number}")).bodies() == [f"for zoe{number}"]
            with pytest.raises(CommandError):
                await ask(server, "user show", account=old)
        names = {f"zoe{n}@localhost" for n in range(ROUNDS)} | {f"zoey{n}@localhost" for n in range(ROUNDS)}
        await receiver.until(lambda: {event["account"] for event in receiver.events} == names, 30)
        await server.stop()
    assert "under way" in stood, "no kill came in the midst"


@pytest.mark.asyncio
async def test_an_erasure_is_finished_by_who_starts_next(prepared: Callable[..., Any]) -> None:
    chance, stood = random.Random(16), []
    async with Receiver() as receiver:
        server = await begun(prepared, receiver.url, "account.erased")
        for number in range(ROUNDS):
            me = f"zoe{number}@localhost"
            await lived(server, f"zoe{number}")
            stood.append(await cut_short(server, "account erase", me, chance, account=me))
            await until_done(server, "account erase", me)
            assert await named(server, me) == (0, 0)
            with pytest.raises(CommandError):
                await ask(server, "user show", account=me)
            receipt = await ask(server, "account receipt", account=me)
            rows = {row["table"]: row["rows"] for row in receipt["rows"] if row["became"] == "deleted"}
            assert rows["account"] == 1, "counted before anything was deleted"
        names = {f"zoe{n}@localhost" for n in range(ROUNDS)}
        await receiver.until(lambda: {event["account"] for event in receiver.events} == names, 30)
        await server.stop()
    assert "under way" in stood, "no kill came in the midst"
