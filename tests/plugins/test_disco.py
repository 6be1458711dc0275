"""Service discovery (XEP-0030), service discovery extensions (XEP-0128) and contact addresses (XEP-0157)."""

import pytest

from xmppd import ns
from xmppd.testing import Client, World, refusal

INFO = f"<query xmlns='{ns.DISCO_INFO}'/>"
ITEMS = f"<query xmlns='{ns.DISCO_ITEMS}'/>"
FORM = f"{{{ns.DATA_FORM}}}x"


async def features(client: Client, to: str) -> list[str | None]:
    answer = await client.ask("get", INFO, to=to)
    assert answer.get("type") == "result"
    return [feature.get("var") for feature in answer.iter(f"{{{ns.DISCO_INFO}}}feature")]


@pytest.mark.asyncio
async def test_the_server_says_what_it_is() -> None:
    async with World(plugins=("disco",), settings={"server": {"name": "Elsinore"}}) as world:
        alice = await world.login("alice")
        await alice.send(f"<iq type='get' id='d' to='localhost'>{INFO}</iq>")
        await alice.expect(
            f"<iq type='result' id='d' from='localhost' to='{alice.jid}'><query xmlns='{ns.DISCO_INFO}'>"
            "<identity category='server' type='im' name='Elsinore'/>"
            f"<feature var='{ns.DISCO_INFO}'/><feature var='{ns.DISCO_ITEMS}'/></query></iq>"
        )


@pytest.mark.asyncio
async def test_the_server_advertises_what_plugins_answer_and_declare() -> None:
    plugins = ("disco", "ping", "version", "time", "last", "vcard", "private", "offline")
    async with World(plugins=plugins) as world:
        alice = await world.login("alice")
        found = await features(alice, "localhost")
        assert found == sorted(
            (
                ns.DISCO_INFO,
                ns.DISCO_ITEMS,
                ns.LAST,
                ns.OFFLINE,
                ns.PING,
                ns.PRIVATE,
                ns.TIME,
                ns.VCARD,
                ns.VERSION,
            )
        )


@pytest.mark.asyncio
async def test_contact_addresses_are_a_form() -> None:
    contact = {
        "abuse": ("mailto:abuse@localhost", "xmpp:abuse@localhost"),
        "admin": ("xmpp:admin@localhost",),
    }
    async with World(plugins=("disco",), settings={"server": {"contact": contact}}) as world:
        alice = await world.login("alice")
        await alice.send(f"<iq type='get' id='d' to='localhost'>{INFO}</iq>")
        await alice.expect(
            f"<iq type='result' id='d' from='localhost' to='{alice.jid}'><query xmlns='{ns.DISCO_INFO}'>"
            "<identity category='server' type='im' name='xmppd'/>"
            f"<feature var='{ns.DISCO_INFO}'/><feature var='{ns.DISCO_ITEMS}'/>"
            f"<x xmlns='{ns.DATA_FORM}' type='result'>"
            f"<field var='FORM_TYPE' type='hidden'><value>{ns.CONTACT_INFO}</value></field>"
            "<field var='abuse-addresses'>"
            "<value>mailto:abuse@localhost</value><value>xmpp:abuse@localhost</value></field>"
            "<field var='admin-addresses'><value>xmpp:admin@localhost</value></field>"
            "</x></query></iq>"
        )


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["", "alice@localhost"])
async def test_the_own_account(to: str) -> None:
    async with World(plugins=("disco",)) as world:
        alice = await world.login("alice")
        answer = await alice.ask("get", INFO, to=to)
        identity = answer[0][0]
        assert identity.attrib == {"category": "account", "type": "registered"}
        found = [feature.get("var") for feature in answer[0][1:]]
        assert found == [ns.DISCO_INFO, ns.DISCO_ITEMS, ns.ROSTER]
        assert answer[0].find(FORM) is None


@pytest.mark.asyncio
async def test_an_account_shows_itself_to_those_who_may_see_its_presence() -> None:
    async with World(plugins=("disco",)) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        assert refusal(await bob.ask("get", INFO, to="alice@localhost")) == "cancel service-unavailable"
        await world.befriend(alice, bob)
        answer = await bob.ask("get", INFO, to="alice@localhost")
        assert answer[0][0].attrib == {"category": "account", "type": "registered"}


@pytest.mark.asyncio
async def test_to_be_subscribed_the_other_way_round_is_not_enough() -> None:
    async with World(plugins=("disco",)) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await bob.send("<presence type='subscribed' to='alice@localhost'/>")
        await alice.send("<presence type='subscribe' to='bob@localhost'/>")
        await alice.receive_all()
        await bob.receive_all()
        assert (await alice.ask("get", INFO, to="bob@localhost")).get("type") == "result"
        assert refusal(await bob.ask("get", INFO, to="alice@localhost")) == "cancel service-unavailable"


@pytest.mark.asyncio
@pytest.mark.parametrize("node", ["", " node='x'"])
async def test_an_unknown_account_looks_like_one_that_may_not_be_seen(node: str) -> None:
    async with World(plugins=("disco",)) as world:
        bob = await world.login("bob")
        for address in ("alice@localhost", "nobody@localhost"):
            await bob.send(
                f"<iq type='get' id='i' to='{address}'><query xmlns='{ns.DISCO_INFO}'{node}/></iq>"
                f"<iq type='get' id='t' to='{address}'><query xmlns='{ns.DISCO_ITEMS}'{node}/></iq>"
            )
            await bob.expect(
                f"<iq type='error' id='i' from='{address}' to='{bob.jid}'>"
                f"<error type='cancel'><service-unavailable xmlns='{ns.STANZA_ERRORS}'/></error></iq>"
            )
            await bob.expect(
                f"<iq type='result' id='t' from='{address}' to='{bob.jid}'>"
                f"<query xmlns='{ns.DISCO_ITEMS}'{node}/></iq>"
            )


@pytest.mark.asyncio
async def test_the_items_of_an_account_are_its_available_resources() -> None:
    async with World(plugins=("disco",)) as world:
        alice, bob = await world.login("alice", "balcony"), await world.login("bob")
        await world.bind("alice", "silent")
        await world.befriend(alice, bob)
        await bob.send(f"<iq type='get' id='t' to='alice@localhost'>{ITEMS}</iq>")
        await bob.expect(
            f"<iq type='result' id='t' from='alice@localhost' to='{bob.jid}'>"
            f"<query xmlns='{ns.DISCO_ITEMS}'><item jid='alice@localhost/balcony'/></query></iq>"
        )


@pytest.mark.asyncio
async def test_the_server_has_no_items() -> None:
    async with World(plugins=("disco",)) as world:
        alice = await world.login("alice")
        await alice.send(f"<iq type='get' id='t' to='localhost'>{ITEMS}</iq>")
        await alice.expect(f"<iq type='result' id='t' from='localhost' to='{alice.jid}'>{ITEMS}</iq>")


@pytest.mark.asyncio
@pytest.mark.parametrize("namespace", [ns.DISCO_INFO, ns.DISCO_ITEMS])
@pytest.mark.parametrize("to", ["localhost", "alice@localhost"])
async def test_there_are_no_nodes(namespace: str, to: str) -> None:
    async with World(plugins=("disco",)) as world:
        alice = await world.login("alice")
        answer = await alice.ask("get", f"<query xmlns='{namespace}' node='urn:none'/>", to=to)
        assert refusal(answer) == "cancel item-not-found"


@pytest.mark.asyncio
async def test_an_anonymous_account_says_so() -> None:
    async with World(plugins=("disco",), settings={"auth": {"anonymous": True}}) as world:
        guest = await world.guest()
        answer = await guest.ask("get", INFO)
        assert answer[0][0].attrib == {"category": "account", "type": "anonymous"}
