"""Service discovery (XEP-0030), service discovery extensions (XEP-0128) and contact addresses (XEP-0157)."""

from pathlib import Path

import pytest

from xmppd import ns
from xmppd.section import changed
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


# what plugins declare

SHELF = '''
from xmppd.plugin import (
    ACCOUNT, SERVER, SERVICE, DiscoIdentity, DiscoInfo, DiscoItem, Plugin, StanzaError, disco_info,
    disco_items, form, service,
)

class Shelf(Plugin):
    """Declares in all ways."""
    features = {SERVER: ("urn:x:server",), ACCOUNT: ("urn:x:account",), SERVICE: ("urn:x:service",)}
    identities = {ACCOUNT: (DiscoIdentity("pubsub", "pep"),), SERVICE: (DiscoIdentity("store", "file"),)}

    @service("shelf", category="component", type="generic", title="Shelf")
    def serve(self, origin, stanza, to):
        if to.local == "book":
            return DiscoInfo((DiscoIdentity("hierarchy", "leaf", "Book"),), ("urn:x:book",)).xml()
        raise StanzaError("item-not-found")

    @disco_info()
    def limits(self, request):
        return DiscoInfo(features=("urn:x:server", "urn:x:more"), forms=(form("urn:x:limits", {"most":
        ["5"]}),))

    @disco_info(SERVER, ACCOUNT, node="urn:x:node")
    async def node(self, request):
        return DiscoInfo((DiscoIdentity("hierarchy", "branch"),), ("urn:x:" + request.target,))

    @disco_info(node=None)
    def any(self, request):
        if request.payload.get("node").startswith("shelf/"):
            return DiscoInfo(features=("urn:x:any",))

    @disco_items()
    def books(self, request):
        return [DiscoItem("book@shelf.localhost", "Book", "shelf/1")]

    @disco_items(SERVER, SERVICE, node="shelf/1")
    async def pages(self, request):
        return [DiscoItem(f"page@{request.target}")]
'''


async def shown(client: Client, to: str, node: str = "") -> tuple[list[tuple[str, ...]], list[str]]:
    """Identities and features."""
    about = f" node='{node}'" if node else ""
    answer = await client.ask("get", f"<query xmlns='{ns.DISCO_INFO}'{about}/>", to=to)
    assert answer.get("type") == "result", refusal(answer)
    assert answer[0].get("node", "") == node
    identities = [tuple(each.attrib.values()) for each in answer[0].iter(f"{{{ns.DISCO_INFO}}}identity")]
    return identities, [each.get("var", "") for each in answer.iter(f"{{{ns.DISCO_INFO}}}feature")]


async def listed(client: Client, to: str, node: str = "") -> list[dict[str, str]]:
    about = f" node='{node}'" if node else ""
    answer = await client.ask("get", f"<query xmlns='{ns.DISCO_ITEMS}'{about}/>", to=to)
    assert answer.get("type") == "result", refusal(answer)
    return [item.attrib for item in answer[0]]


@pytest.mark.asyncio
async def test_plugins_declare_what_their_addresses_are_and_can_do(tmp_path: Path) -> None:
    (tmp_path / "shelf.py").write_text(SHELF)
    async with World(plugins=("disco", "shelf"), plugin_folders=(tmp_path,)) as world:
        alice, disco = await world.login("alice"), [ns.DISCO_INFO, ns.DISCO_ITEMS]
        assert await shown(alice, "localhost") == (
            [("server", "im", "xmppd")],
            [*disco, "urn:x:more", "urn:x:server"],
        )
        form = (await alice.ask("get", INFO, to="localhost"))[0].find(FORM)
        assert form is not None
        assert [field.get("var") for field in form] == ["FORM_TYPE", "most"]
        assert await shown(alice, "alice@localhost") == (
            [("pubsub", "pep"), ("account", "registered")],
            [*disco, ns.ROSTER, "urn:x:account"],
        )
        assert await shown(alice, "shelf.localhost") == (
            [("component", "generic", "Shelf"), ("store", "file")],
            [*disco, "urn:x:service"],
        )
        assert await shown(alice, "book@shelf.localhost") == (
            [("hierarchy", "leaf", "Book")],
            ["urn:x:book"],
        )


@pytest.mark.asyncio
async def test_plugins_declare_nodes_and_items(tmp_path: Path) -> None:
    (tmp_path / "shelf.py").write_text(SHELF)
    async with World(plugins=("disco", "shelf"), plugin_folders=(tmp_path,)) as world:
        alice = await world.login("alice")
        for to in ("localhost", "alice@localhost"):
            assert await shown(alice, to, "urn:x:node") == ([("hierarchy", "branch")], [f"urn:x:{to}"])
        assert await shown(alice, "localhost", "shelf/1") == ([], ["urn:x:any"])
        book = {"jid": "book@shelf.localhost", "node": "shelf/1", "name": "Book"}
        assert await listed(alice, "localhost") == [{"jid": "shelf.localhost", "name": "Shelf"}, book]
        assert await listed(alice, "localhost", "shelf/1") == [{"jid": "page@localhost"}]
        assert await listed(alice, "shelf.localhost", "shelf/1") == [{"jid": "page@shelf.localhost"}]
        for query, to in ((INFO, "localhost"), (ITEMS, "alice@localhost"), (INFO, "shelf.localhost")):
            asked = query.replace("/>", " node='nobody'/>")
            assert refusal(await alice.ask("get", asked, to=to)) == "cancel item-not-found"
        none = changed(world.config.plugins, enabled=("disco",))
        await world.app.loader.load(changed(world.config, plugins=none))
        assert await listed(alice, "localhost") == []
