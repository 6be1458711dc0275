"""What the server answers to slixmpp's plugins."""

import datetime as dt
import re

import pytest
from slixmpp.xmlstream import ET

import xmppd


@pytest.mark.asyncio
async def test_the_server_tells_what_it_is(pair):
    alice, _ = pair
    info = (await alice.plugin["xep_0030"].get_info(jid="localhost"))["disco_info"]
    assert ("server", "im") in {(category, kind) for category, kind, *_ in info["identities"]}
    assert info["features"] >= {
        "http://jabber.org/protocol/disco#info",
        "http://jabber.org/protocol/disco#items",
        "jabber:iq:last",
        "jabber:iq:version",
        "msgoffline",
        "urn:xmpp:ping",
        "urn:xmpp:time",
        "vcard-temp",
    }
    items = await alice.plugin["xep_0030"].get_items(jid="localhost")
    assert items["type"] == "result"


@pytest.mark.asyncio
async def test_an_account_tells_what_it_is_to_friends_only(pair, refused):
    alice, bob = pair
    info = (await alice.plugin["xep_0030"].get_info(jid=alice.bare, local=False))["disco_info"]
    assert ("account", "registered") in {(category, kind) for category, kind, *_ in info["identities"]}
    asked = alice.plugin["xep_0030"].get_info(jid=bob.bare)
    assert await refused(asked) == ("cancel", "service-unavailable")
    await alice.befriend(bob)
    info = (await alice.plugin["xep_0030"].get_info(jid=bob.bare))["disco_info"]
    assert ("account", "registered") in {(category, kind) for category, kind, *_ in info["identities"]}


@pytest.mark.asyncio
async def test_clients_ask_each_other(friends):
    alice, bob = friends
    version = (await alice.plugin["xep_0092"].get_version(bob.jid))["software_version"]
    assert version["name"] == "Slixmpp"
    assert await bob.plugin["xep_0199"].ping(jid=alice.jid) >= 0


@pytest.mark.asyncio
async def test_ping(pair):
    alice, _ = pair
    for target in (None, "localhost", alice.bare):
        assert await alice.plugin["xep_0199"].ping(jid=target) >= 0


@pytest.mark.asyncio
async def test_version(pair):
    alice, _ = pair
    version = (await alice.plugin["xep_0092"].get_version("localhost"))["software_version"]
    assert (version["name"], version["version"]) == ("xmppd", xmppd.__version__)


@pytest.mark.asyncio
async def test_time(pair):
    alice, _ = pair
    answer = await alice.plugin["xep_0202"].get_entity_time("localhost")
    # Not by slixmpp: its reader of the element adds a Z to one that XEP-0202 wants to be there.
    told = dt.datetime.fromisoformat(answer["entity_time"].xml.findtext("{urn:xmpp:time}utc"))
    assert abs(told - dt.datetime.now(dt.UTC)) < dt.timedelta(seconds=30)
    assert re.fullmatch(r"[+-]\d\d:\d\d", answer["entity_time"].xml.findtext("{urn:xmpp:time}tzo"))


@pytest.mark.asyncio
async def test_last_activity(friends):
    alice, bob = friends
    uptime = await alice.plugin["xep_0012"].get_last_activity("localhost")
    assert uptime["last_activity"]["seconds"] >= 0
    await bob.logout()
    await alice.presence(bob, "unavailable")
    idle = await alice.plugin["xep_0012"].get_last_activity(bob.bare)
    assert 0 <= idle["last_activity"]["seconds"] < 30


@pytest.mark.asyncio
async def test_vcards_are_kept_and_shown(pair):
    alice, bob = pair
    vcard = alice.plugin["xep_0054"].make_vcard()
    vcard["FN"] = "Alice Müller"
    vcard["JABBERID"] = alice.bare
    await alice.plugin["xep_0054"].publish_vcard(vcard)
    shown = await bob.plugin["xep_0054"].get_vcard(jid=alice.bare)
    assert shown["vcard_temp"]["FN"] == "Alice Müller"


@pytest.mark.asyncio
async def test_private_storage_is_private(pair, refused):
    alice, bob = pair

    async def ask(client, payload, **more):
        iq = client.xmpp.make_iq(**more)
        query = ET.SubElement(iq.xml, "{jabber:iq:private}query")
        query.append(payload)
        return (await iq.send()).xml.find("{jabber:iq:private}query")

    settings = ET.fromstring("<settings xmlns='urn:example:game'><volume>11</volume></settings>")
    question = ET.Element("{urn:example:game}settings")
    await ask(alice, settings, itype="set")
    found = await ask(alice, question, itype="get")
    assert found.findtext("{urn:example:game}settings/{urn:example:game}volume") == "11"
    empty = await ask(bob, question, itype="get")
    assert [len(child) for child in empty] == [0]
    assert (await refused(ask(bob, question, itype="get", ito=alice.bare)))[1] in (
        "forbidden",
        "service-unavailable",
    )


@pytest.mark.asyncio
async def test_unknown_questions_are_refused(friends, refused):
    alice, bob = friends
    for target in (None, "localhost", alice.bare, bob.bare, f"{bob.bare}/nowhere"):
        iq = alice.xmpp.make_iq_get(queryxmlns="urn:example:nothing", ito=target)
        assert await refused(iq.send()) == ("cancel", "service-unavailable"), target


@pytest.mark.asyncio
async def test_an_account_made_by_its_user(own_server, client):
    server = own_server(plugins={"enabled": ["register"], "config": {"register": {"registration": True}}})
    alice = client(server.account("x")._replace(jid="alice@localhost"), server=server)
    alice.xmpp.register_plugin("xep_0077")

    async def register(_form):
        iq = alice.xmpp.make_iq_set()
        iq["register"]["username"] = "alice"
        iq["register"]["password"] = alice.xmpp.password
        await iq.send()

    alice.xmpp.add_event_handler("register", register)
    await alice.login()
    assert alice.bare == "alice@localhost"
    await alice.plugin["xep_0077"].change_password("another one")
    await alice.logout()
    alice.xmpp.password = "another one"
    alice.xmpp.del_event_handler("register", register)
    await alice.login()


@pytest.mark.asyncio
async def test_an_announcement_from_the_command_line(server, pair):
    sent = server.run("announce", "send", "closing at ten")["sent"]
    sessions = server.status()["sessions"]  # others may have left some that can be resumed
    assert len(pair) <= sent <= sessions
    for client in pair:
        message = await client.message("localhost")
        assert (message["type"], message["body"]) == ("headline", "closing at ten")
