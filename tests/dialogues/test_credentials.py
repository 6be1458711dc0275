"""What an account's streams learn of its changes: between login and bind, and while they are bound."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from patience import PATIENCE

from xmppd import ns
from xmppd.core.accounts import ACCOUNT, AccountUnknown
from xmppd.errors import StoreTimeout
from xmppd.testing import Client, World

ALICE = "alice@localhost"
pytestmark = pytest.mark.asyncio


async def logged_in(world: World, user: str = "alice") -> Client:
    """A client that has logged in and not bound a resource."""
    client = world.connect()
    await client.open()
    assert (await client.authenticate(user)).tag.endswith("success")
    await client.open()
    return client


async def disable(world: World) -> None:
    await world.app.accounts.disable(ALICE)


async def change_password(world: World) -> None:
    await world.app.accounts.set_password(ALICE, "new")


async def remove(world: World) -> None:
    await world.app.server.remove_account(ALICE)


async def make_anew(world: World) -> None:
    await remove(world)
    world.clock.seconds += 1
    await world.app.accounts.create(ALICE, "secret")


CHANGES = [
    (disable, "not-authorized"),
    (change_password, "reset"),
    (remove, "not-authorized"),
    (make_anew, "not-authorized"),
]
changes = pytest.mark.parametrize(("change", "condition"), CHANGES, ids=[c.__name__ for c, _ in CHANGES])
Change = Callable[[World], Awaitable[None]]


@changes
async def test_all_streams_of_an_account_end(change: Change, condition: str) -> None:
    async with World() as world:
        bound, half, bob = await world.login("alice"), await logged_in(world), await world.login("bob")
        await change(world)
        await bound.expect_closed(condition)
        await half.expect_closed(condition)
        assert not bob.closed


@changes
async def test_a_stream_that_is_overlooked_is_found_when_it_binds(change: Change, condition: str) -> None:
    """As on a server that hears of the change late."""
    async with World() as world:
        world.app.accounts.on_revoked = lambda *about: None
        half = await logged_in(world)
        await change(world)
        await half.send(f"<iq type='set' id='b'><bind xmlns='{ns.BIND}'/></iq>")
        await half.expect_closed(condition)
        assert not world.app.sessions.of(ALICE)


@changes
async def test_a_change_while_the_account_is_looked_up_for_the_bind(
    monkeypatch: pytest.MonkeyPatch, change: Change, condition: str
) -> None:
    async with World() as world:
        half = await logged_in(world)
        world.app.accounts.release()
        opened, get = asyncio.Event(), world.app.store.get

        async def slow(*args: Any) -> Any:
            row = await get(*args)
            await opened.wait()
            return row

        monkeypatch.setattr(world.app.store, "get", slow)
        half.write(f"<iq type='set' id='b'><bind xmlns='{ns.BIND}'/></iq>")
        monkeypatch.setattr(world.app.store, "get", get)
        await change(world)
        opened.set()
        await half.expect_closed(condition)
        assert not world.app.sessions.of(ALICE)


async def test_the_store_is_away_when_a_resource_is_to_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World() as world:
        half = await logged_in(world)
        world.app.accounts.release()
        get = world.app.store.get

        async def fail(*args: Any) -> Any:
            raise StoreTimeout("away")

        monkeypatch.setattr(world.app.store, "get", fail)
        answer = await half.ask("set", f"<bind xmlns='{ns.BIND}'/>")
        assert answer.get("type") == "error" and not half.closed
        monkeypatch.setattr(world.app.store, "get", get)
        await half.bind()
        assert half.jid


async def test_sessions_may_be_kept_when_the_password_changes() -> None:
    async with World(settings={"auth": {"end_sessions_on_password_change": False}}) as world:
        bound, half = await world.login("alice"), await logged_in(world)
        await change_password(world)
        await half.bind()
        assert half.jid and not bound.closed
        await bound.expect_nothing()
    async with World() as world:
        bound, half = await world.login("alice"), await logged_in(world)
        arguments = {"account": ALICE, "password": "new", "keep_sessions": True}
        await world.app.commands.call("user passwd", arguments)
        await half.bind()
        assert half.jid
        await bound.expect_nothing()
        await world.app.commands.call("user passwd", {"account": ALICE, "password": "newer"})
        await bound.expect_closed("reset")
        await half.expect_closed("reset")


async def test_a_new_password_from_within_spares_who_asked() -> None:
    async with World(plugins=("register",)) as world:
        asking, other, half = await world.login("alice"), await world.login("alice"), await logged_in(world)
        payload = f"<query xmlns='{ns.REGISTER}'><username>alice</username><password>new</password></query>"
        await asking.send(f"<iq type='set' id='new'>{payload}</iq>")
        assert "result" in [answer.get("type") for answer in await asking.receive_all()]
        await other.expect_closed("reset")
        await half.expect_closed("reset")
        assert world.app.sessions.of(ALICE) == [asking.session]
        await world.app.logins.look_at(ALICE)
        assert world.app.sessions.of(ALICE) == [asking.session], "it is one of this password now"


async def test_a_change_of_which_nobody_knows_whether_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World() as world:
        bound, half = await world.login("alice"), await logged_in(world)
        put_if = world.app.store.put_if

        async def lost(*args: Any, **how: Any) -> bool:
            await put_if(*args, **how)
            raise StoreTimeout("no answer")

        monkeypatch.setattr(world.app.store, "put_if", lost)
        with pytest.raises(StoreTimeout):
            await change_password(world)
        await bound.expect_closed("reset")
        await half.expect_closed("reset")


async def test_who_is_logged_in_is_looked_at_when_nobody_knows_what_was_changed() -> None:
    async with World(accounts=("alice", "bob")) as world:
        half, bound = await logged_in(world), await world.login("bob")
        row = await world.app.store.get(ACCOUNT, ("alice@localhost",))
        await world.app.store.put(ACCOUNT, {**row, "disabled": True})  # by a node that says nothing of it
        world.app.elsewhere.everything_changed()
        await half.expect_closed("not-authorized")
        await bound.expect_nothing()
        assert not bound.closed


async def test_a_node_that_ended_before_it_said_what_it_changed_is_noticed_in_time() -> None:
    async with World(settings={"cache": {"ttl": 600}}) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        row = await world.app.store.get(ACCOUNT, (ALICE,))
        await world.app.store.put(ACCOUNT, {**row, "disabled": True})
        for _ in range(7):
            world.app.elsewhere.tick()
            await world.settle()
            assert not alice.closed
            for client in (alice, bob):
                await client.send(" ")
            await world.advance(100)
        world.app.elsewhere.tick()
        await alice.expect_closed("not-authorized")
        assert not bob.closed


async def test_who_is_anonymous_has_no_account_that_could_change() -> None:
    async with World(settings={"auth": {"anonymous": True}}) as world:
        guest = await world.guest()
        world.app.elsewhere.everything_changed()
        await guest.expect_nothing()
        assert not guest.closed


@pytest.mark.parametrize("what", ["password", "removal"])
async def test_who_had_the_name_before_does_nothing_to_who_has_it_now(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A request of the former owner that was still being looked at."""
    async with World(plugins=("register",)) as world:
        asking = await world.bind("alice")
        opened, reached, exists = asyncio.Event(), asyncio.Event(), world.app.server.account_exists

        async def slow(account: str) -> bool:
            answer = await exists(account)
            reached.set()
            await opened.wait()
            return answer

        monkeypatch.setattr(world.app.server, "account_exists", slow)
        wanted = "<username>alice</username><password>mine</password>" if what == "password" else "<remove/>"
        asking.write(f"<iq type='set' id='x'><query xmlns='{ns.REGISTER}'>{wanted}</query></iq>")
        async with asyncio.timeout(PATIENCE):
            await reached.wait()
        monkeypatch.setattr(world.app.server, "account_exists", exists)
        await make_anew(world)
        opened.set()
        await world.settle()
        client = world.connect()
        await client.open()
        assert (await client.authenticate("alice", "secret")).tag.endswith("success")


async def test_a_session_that_was_ended_by_a_new_password_sets_none() -> None:
    async with World() as world:
        stolen = await world.bind("alice")
        login = stolen.session.login
        await change_password(world)
        with pytest.raises(AccountUnknown):
            await world.app.accounts.set_password(ALICE, "stolen", spare=login)
        client = world.connect()
        await client.open()
        assert (await client.authenticate("alice", "new")).tag.endswith("success")
