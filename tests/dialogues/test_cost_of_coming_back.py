"""What the store is asked when a client comes back, by each way to do so."""

import base64
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from managing import ask_to_resume, managed, ready
from sasl2 import PHONE, agent, fast, login, opened, tagged, token_in, wanted
from stores import new_store

from xmppd import ns
from xmppd.core.tokens import REPLACED_AFTER
from xmppd.settings import PluginsConfig
from xmppd.store.table import Store, Table
from xmppd.testing import PASSWORD, Client, World

PLUGINS = (*PluginsConfig().enabled, "archive")
ENABLE = f"<enable xmlns='{ns.SM}' resume='true'/>"
COPIES = f"<enable xmlns='{ns.CARBONS}'/>"

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.one_node("counts what one node asks for one login"),
]


class Watched:
    """A store that counts what it is asked, by method and table."""

    def __init__(self, store: Store) -> None:
        self._store: Any = store
        self._asked: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._counting(name, found) if callable(found) else found

    def _counting(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if args and isinstance(args[0], Table):
                self._asked[f"{name} {args[0].name}"] += 1
            elif name == "write":
                self._asked[name] += 1
            return method(*args, **more)

        return call

    def take(self) -> dict[str, int]:
        """What was asked since the last look; that something is prepared for later is no request."""
        asked, self._asked = self._asked, Counter()
        return {what: count for what, count in asked.items() if not what.startswith("writer ")}


async def asked_by(world: World, store: Watched, back: Callable[[], Any]) -> dict[str, int]:
    """What a client asks that comes back, when all is quiet before and afterwards."""
    await world.settle()
    store.take()
    await back()
    await world.settle()
    return store.take()


async def whole(world: World, user: str) -> Client:
    """All that a client does that has neither token nor session."""
    client = await ready(world, user)
    await client.bind("phone")
    await client.send(f"<enable xmlns='{ns.SM}'/><iq type='set' id='c'>{COPIES}</iq>")
    await client.send(f"<iq type='get' id='r'><query xmlns='{ns.ROSTER}'/></iq>")
    await client.send("<presence/>")
    await client.receive_all()
    return client


async def by_password(world: World, user: str) -> tuple[Client, str, str]:
    """A client that has logged in in one piece, its token and the id of its session."""
    client = await opened(world)
    initial = base64.b64encode(f"\0{user}\0{PASSWORD}".encode()).decode()
    more = agent(PHONE) + wanted() + tagged("phone", COPIES + ENABLE)
    success = await login(client, user, more, initial=initial)
    enabled = success.find(f".//{{{ns.SM}}}enabled")
    assert enabled is not None
    await client.send(f"<iq type='get' id='r'><query xmlns='{ns.ROSTER}'/></iq><presence/>")
    await client.receive_all()
    return client, token_in(success), enabled.get("id", "")


async def test_a_whole_login_of_who_was_there_before_looks_for_stored_messages() -> None:
    store: Any = Watched(new_store())
    async with World(plugins=PLUGINS, store=store) as world:
        await (await whole(world, "alice")).drop()
        assert await asked_by(world, store, lambda: whole(world, "alice")) == {"scan offline_queue": 1}


async def test_a_session_that_is_resumed_asks_for_nothing() -> None:
    store: Any = Watched(new_store())
    async with World(plugins=PLUGINS, store=store) as world:
        client, id = await managed(world, "alice")
        await client.drop()

        async def back() -> None:
            answer = await ask_to_resume(await ready(world, "alice"), id)
            assert answer.tag == f"{{{ns.SM}}}resumed"

        assert await asked_by(world, store, back) == {}


async def test_with_a_token_that_was_shown_before_it_asks_for_nothing_either() -> None:
    store: Any = Watched(new_store())
    async with World(plugins=PLUGINS, store=store) as world:
        client, token, id = await by_password(world, "alice")

        async def back() -> None:
            nonlocal client, token
            await client.drop()
            client = await opened(world)
            resume = f"<resume xmlns='{ns.SM}' previd='{id}' h='1'/>"
            success = await fast(client, "alice", token, more=resume + tagged("phone", COPIES + ENABLE))
            assert success.find(f"{{{ns.SM}}}resumed") is not None
            token = token_in(success) or token

        assert await asked_by(world, store, back) == {"get client_tokens": 1}
        assert await asked_by(world, store, back) == {}
        world.app.accounts.release()
        assert await asked_by(world, store, back) == {}, "nor for the account"
        world.clock.seconds += REPLACED_AFTER
        client.write(" ")  # it was heard of
        replaced = {"get client_tokens": 1, "get account": 1, "put_if client_tokens": 1}
        assert await asked_by(world, store, back) == replaced
        shown = await asked_by(world, store, back)
        assert shown == {"get client_tokens": 1, "put_if client_tokens": 1}, "the old one counts no more"
        assert await asked_by(world, store, back) == {"get client_tokens": 1}
        assert await asked_by(world, store, back) == {}


async def test_a_new_session_by_a_token_asks_for_what_was_stored_and_the_ends_of_the_archive() -> None:
    store: Any = Watched(new_store())
    async with World(plugins=PLUGINS, store=store) as world:
        client, token, _ = await by_password(world, "alice")
        await client.drop()

        async def back() -> None:
            nonlocal client
            await client.drop()
            client = await opened(world)
            success = await fast(client, "alice", token, more=tagged("phone", COPIES + ENABLE))
            assert success.find(f".//{{{ns.SM}}}enabled") is not None
            await client.send(f"<iq type='get' id='r'><query xmlns='{ns.ROSTER}'/></iq><presence/>")

        await back()
        asked = await asked_by(world, store, back)
        assert asked == {"scan archive_months": 1, "scan offline_queue": 1}
