"""Message archives (XEP-0313) as slixmpp reads them."""

import pytest

PLUGINS = {"enabled": ["disco", "ping", "offline", "archive"]}


async def history(client, **about):
    """The bodies that slixmpp collects from the archive."""
    client.xmpp.register_plugin("xep_0313")
    results = client.plugin["xep_0313"].iterate(**about)
    return [result["mam_result"]["forwarded"]["stanza"]["body"] async for result in results]


@pytest.mark.asyncio
async def test_all_that_was_said_is_found_page_by_page(own_server, client):
    server = own_server(plugins=PLUGINS)
    alice = await client(server.account("alice"), "desk", server=server).login()
    bob = await client(server.account("bob"), "phone", server=server).login()
    for number in range(25):
        sender, receiver = (alice, bob) if number % 2 else (bob, alice)
        sender.xmpp.send_message(mto=receiver.bare, mbody=str(number), mtype="chat")
        await receiver.message(sender)
    expected = [str(number) for number in range(25)]
    assert await history(alice, rsm={"max": 10}) == expected
    assert await history(bob, rsm={"max": 7}) == expected
    assert await history(bob, with_jid=alice.bare, rsm={"max": 100}) == expected


@pytest.mark.asyncio
async def test_who_was_away_catches_up_behind_the_last_message_seen(own_server, client):
    server = own_server(plugins={"enabled": ["disco", "archive"]})
    account = server.account("bob")
    alice = await client(server.account("alice"), "desk", server=server).login()
    bob = await client(account, "phone", server=server).login()
    alice.xmpp.send_message(mto=bob.bare, mbody="seen", mtype="chat")
    bob.xmpp.register_plugin("xep_0359")
    seen = (await bob.message(alice)).xml.find("{urn:xmpp:sid:0}stanza-id").get("id")
    await bob.logout()
    for text in ("one", "two"):
        alice.xmpp.send_message(mto=account.jid, mbody=text, mtype="chat")
    await alice.expect_nothing()
    bob = await client(account, "phone", server=server).login()
    assert await history(bob, rsm={"max": 10, "after": seen}) == ["one", "two"]


@pytest.mark.asyncio
async def test_it_is_there_after_a_restart(own_server, client):
    server = own_server(plugins=PLUGINS)
    account = server.account("bob")
    alice = await client(server.account("alice"), "desk", server=server).login()
    bob = await client(account, "phone", server=server).login()
    alice.xmpp.send_message(mto=bob.bare, mbody="kept", mtype="chat")
    await bob.message(alice)
    await alice.logout()
    await bob.logout()
    server.stop()
    server.start()
    bob = await client(account, "phone", server=server).login()
    assert await history(bob, rsm={"max": 10}) == ["kept"]
