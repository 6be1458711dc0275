"""vCards (XEP-0054)."""

import pytest

from xmppd import ns
from xmppd.testing import World, refusal

EMPTY = f"<vCard xmlns='{ns.VCARD}'/>"
CARD = f"<vCard xmlns='{ns.VCARD}'><FN>Alice &amp; more</FN><N><GIVEN>Alice</GIVEN><MIDDLE/></N></vCard>"


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["", " to='alice@localhost'"])
async def test_an_owner_writes_and_everybody_reads(to: str) -> None:
    async with World(plugins=("vcard",)) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(f"<iq type='set' id='v2'{to}>{CARD}</iq><iq type='get' id='v1'{to}>{EMPTY}</iq>")
        sender = to.replace("to=", "from=")
        await alice.expect(f"<iq type='result' id='v2' to='{alice.jid}'{sender}/>")
        await alice.expect(f"<iq type='result' id='v1' to='{alice.jid}'{sender}>{CARD}</iq>")
        await bob.send(f"<iq type='get' id='v3' to='alice@localhost'>{EMPTY}</iq>")
        await bob.expect(f"<iq type='result' id='v3' from='alice@localhost' to='{bob.jid}'>{CARD}</iq>")


@pytest.mark.asyncio
async def test_a_vcard_is_replaced_as_a_whole_and_an_empty_one_deletes_it() -> None:
    async with World(plugins=("vcard",)) as world:
        alice = await world.login("alice")
        other = f"<vCard xmlns='{ns.VCARD}'><NICKNAME>al</NICKNAME></vCard>"
        await alice.ask("set", CARD)
        await alice.ask("set", other)
        await alice.send(f"<iq type='get' id='v'>{EMPTY}</iq>")
        await alice.expect(f"<iq type='result' id='v' to='{alice.jid}'>{other}</iq>")
        await alice.ask("set", EMPTY)
        assert refusal(await alice.ask("get", EMPTY)) == "cancel item-not-found"


@pytest.mark.asyncio
async def test_an_account_without_a_vcard_looks_like_one_that_does_not_exist() -> None:
    async with World(plugins=("vcard",)) as world:
        alice = await world.login("alice")
        assert refusal(await alice.ask("get", EMPTY)) == "cancel item-not-found"
        for address in ("bob@localhost", "nobody@localhost"):
            await alice.send(f"<iq type='get' id='v3' to='{address}'>{EMPTY}</iq>")
            await alice.expect(
                f"<iq type='error' id='v3' from='{address}' to='{alice.jid}'>"
                f"<error type='cancel'><service-unavailable xmlns='{ns.STANZA_ERRORS}'/></error></iq>"
            )


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["bob@localhost", "nobody@localhost", "localhost"])
async def test_nobody_writes_the_vcard_of_another(to: str) -> None:
    async with World(plugins=("vcard",)) as world:
        alice = await world.login("alice")
        assert refusal(await alice.ask("set", CARD, to=to)) == "auth forbidden"
        assert refusal(await alice.ask("get", EMPTY, to=to)) == "cancel service-unavailable"


@pytest.mark.asyncio
async def test_its_size_is_bounded() -> None:
    async with World(plugins=("vcard",), plugin_config={"vcard": {"max_bytes": len(CARD)}}) as world:
        alice = await world.login("alice")
        assert (await alice.ask("set", CARD)).get("type") == "result"
        longer = CARD.replace("more", "more.")
        assert refusal(await alice.ask("set", longer)) == "modify policy-violation"
        await alice.send(f"<iq type='get' id='v'>{EMPTY}</iq>")
        await alice.expect(f"<iq type='result' id='v' to='{alice.jid}'>{CARD}</iq>")


@pytest.mark.asyncio
async def test_it_goes_with_its_account() -> None:
    async with World(plugins=("vcard",)) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.ask("set", CARD)
        await world.app.commands.call("user remove", {"account": "alice@localhost"})
        await world.app.accounts.create("alice@localhost", "secret")
        assert refusal(await bob.ask("get", EMPTY, to="alice@localhost")) == "cancel service-unavailable"


@pytest.mark.asyncio
async def test_anonymous_sessions_have_none() -> None:
    async with World(plugins=("vcard",), settings={"auth": {"anonymous": True}}) as world:
        guest = await world.guest()
        assert refusal(await guest.ask("set", CARD)) == "cancel not-allowed"
        assert refusal(await guest.ask("get", EMPTY)) == "cancel item-not-found"
