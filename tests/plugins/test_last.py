"""Last activity (XEP-0012)."""

import pytest

from xmppd import ns
from xmppd.testing import Client, World, refusal

QUERY = f"<query xmlns='{ns.LAST}'/>"


async def seconds(client: Client, to: str) -> str | None:
    answer = await client.ask("get", QUERY, to=to)
    assert answer.get("type") == "result"
    return answer[0].get("seconds")


@pytest.mark.asyncio
async def test_the_server_tells_how_long_it_has_been_up() -> None:
    async with World(plugins=("last",)) as world:
        await world.advance(47)
        alice = await world.login("alice")
        await alice.send(f"<iq type='get' id='l' to='localhost'>{QUERY}</iq>")
        await alice.expect(
            f"<iq type='result' id='l' from='localhost' to='{alice.jid}'>"
            f"<query xmlns='{ns.LAST}' seconds='47'/></iq>"
        )


@pytest.mark.asyncio
async def test_a_contact_learns_how_long_ago_the_last_session_ended() -> None:
    async with World(plugins=("last",)) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        second = await world.bind("alice")
        await second.send(f"<iq type='get' id='l' to='alice@localhost'>{QUERY}</iq>")
        await second.expect(
            f"<iq type='result' id='l' from='alice@localhost' to='{second.jid}'>"
            f"<query xmlns='{ns.LAST}' seconds='0'/></iq>"
        )
        await alice.drop()
        await world.advance(5)
        await bob.receive_all()
        assert await seconds(bob, "alice@localhost") == "0", "another session is connected"
        assert [row async for row in world.plugin("last").logouts.everything()] == []
        await second.send("</stream:stream>")
        await world.advance(33)
        assert await seconds(bob, "alice@localhost") == "33"


@pytest.mark.asyncio
async def test_who_may_not_see_presence_is_forbidden_to_ask() -> None:
    async with World(plugins=("last",)) as world:
        bob = await world.login("bob")
        for address in ("alice@localhost", "nobody@localhost"):
            await bob.send(f"<iq type='get' id='l' to='{address}'>{QUERY}</iq>")
            await bob.expect(
                f"<iq type='error' id='l' from='{address}' to='{bob.jid}'>"
                f"<error type='auth'><forbidden xmlns='{ns.STANZA_ERRORS}'/></error></iq>"
            )


@pytest.mark.asyncio
async def test_an_account_that_was_never_seen_to_leave() -> None:
    async with World(plugins=("last",)) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        await alice.drop()
        await bob.receive_all()
        await world.plugin("last").logouts.delete("alice@localhost")
        assert refusal(await bob.ask("get", QUERY, to="alice@localhost")) == "cancel item-not-found"


@pytest.mark.asyncio
async def test_anonymous_accounts_leave_nothing_behind() -> None:
    async with World(plugins=("last",), settings={"auth": {"anonymous": True}}) as world:
        guest = await world.guest()
        await guest.drop()
        rows = [row async for row in world.plugin("last").logouts.everything()]
        assert rows == []


@pytest.mark.asyncio
async def test_it_is_forgotten_with_the_account() -> None:
    async with World(plugins=("last",)) as world:
        alice = await world.login("alice")
        await alice.drop()
        await world.app.commands.call("user remove", {"account": "alice@localhost"})
        bob = await world.login("bob")
        await world.app.commands.call("user remove", {"account": "bob@localhost"})
        await bob.expect_closed()
        assert [row async for row in world.plugin("last").logouts.everything()] == []
