"""Displayed markers (XEP-0333) and retractions (XEP-0424) as slixmpp sends and reads them."""

import asyncio

import pytest
from slixmpp.xmlstream import ET

PLUGINS = {"enabled": ["disco", "ping", "carbons", "archive"]}
CONVERSATIONS = "urn:xmppd:conversations:0"


async def listed(client):
    """With whom, what is not read, and how far the other side has read: of each conversation."""
    iq = client.xmpp.make_iq_get()
    iq.xml.append(ET.Element(f"{{{CONVERSATIONS}}}query"))
    answer = await iq.send(timeout=20)
    found = []
    for one in answer.xml.iter(f"{{{CONVERSATIONS}}}conversation"):
        peer = one.get("with")
        read = [mark.get("by") for mark in one.iter(f"{{{CONVERSATIONS}}}read")]
        found.append((peer, one.get("unread"), peer in read))
    return found


async def until(client, expected):
    """What is noted of a marker is noted behind it."""
    for _ in range(400):
        if (found := await listed(client)) == expected:
            return
        await asyncio.sleep(0.05)
    assert found == expected


@pytest.mark.asyncio
async def test_a_marker_is_seen_by_the_other_side_and_by_all_devices(own_server, client):
    server = own_server(plugins=PLUGINS)
    account = server.account("bob")
    alice = await client(server.account("alice"), "desk", server=server).login()
    phone = await client(account, "phone", server=server).login()
    desk = await client(account, "desk", server=server).login()
    for one in (alice, phone):
        one.xmpp.register_plugin("xep_0333")
    for text in ("one", "two"):
        sent = alice.xmpp.make_message(mto=account.jid, mbody=text, mtype="chat")
        sent.enable("markable")
        sent.send()
        received = await phone.message(alice)
        assert received["markable"] is not None
    assert await listed(desk) == [(alice.bare, "2", False)]
    phone.plugin["xep_0333"].send_marker(received["from"].bare, received["id"], "displayed", mtype="chat")
    marker = await alice.message(phone)
    assert marker["displayed"]["id"] == received["id"]
    await until(desk, [(alice.bare, "0", False)])
    await until(alice, [(account.jid, "0", True)])


@pytest.mark.asyncio
async def test_what_was_taken_back_is_a_tombstone_in_the_archive(own_server, client):
    server = own_server(plugins=PLUGINS)
    account = server.account("bob")
    alice = await client(server.account("alice"), "desk", server=server).login()
    bob = await client(account, "phone", server=server).login()
    for one in (alice, bob):
        one.xmpp.register_plugin("xep_0424")
        one.xmpp.register_plugin("xep_0313")
    info = await bob.plugin["xep_0030"].get_info(jid=account.jid, timeout=20)
    assert "urn:xmpp:message-retract:1#tombstone" in info["disco_info"]["features"]
    sent = alice.xmpp.make_message(mto=account.jid, mbody="secret", mtype="chat")
    sent.send()
    await bob.message(alice)
    alice.plugin["xep_0424"].send_retraction(
        account.jid, sent["id"], mtype="chat", include_fallback=True, fallback_text="taken back"
    )
    told = await bob.message(alice)
    assert told["retract"]["id"] == sent["id"]

    async def history():
        results = bob.plugin["xep_0313"].iterate(rsm={"max": 10})
        return [result["mam_result"]["forwarded"]["stanza"] async for result in results]

    for _ in range(400):
        first, second = await history()
        if "retracted" in first:
            break
        await asyncio.sleep(0.05)
    assert first["retracted"]["id"] == told["id"] and not first["body"]
    assert second["body"] == "taken back"
