"""profanity, a client for the terminal, with carbons (XEP-0280) and the archive (XEP-0313)."""

import asyncio

import pytest
from terminals import ENTER

PLUGINS = {"enabled": ["disco", "ping", "carbons", "archive"]}


@pytest.mark.asyncio
async def test_profanity_catches_up_by_the_archive_and_sees_what_other_devices_say(
    own_server, client, profanity
):
    server = own_server(plugins=PLUGINS)
    account = server.account("bob")
    alice = await client(server.account("alice"), "desk", server=server).login()
    alice.xmpp.send_message(mto=account.jid, mbody="said-before", mtype="chat")
    await alice.expect_nothing()
    bob = await profanity(server, account, "/mam on", "/carbons on")
    carol = await client(server.account("carol"), "desk", server=server).login()
    carol.xmpp.send_message(mto=account.jid, mbody="ready", mtype="chat")
    await bob.see(f"chat message: {carol.bare}")  # so it knows by now what the server can do
    bob.type(f"/msg {alice.bare}{ENTER}")
    await bob.see("said-before")
    bob.type(f"from-profanity{ENTER}")
    assert (await alice.message(account.jid))["body"] == "from-profanity"
    phone = await client(account, "phone", server=server).login()
    phone.xmpp.send_message(mto=alice.bare, mbody="from-the-phone", mtype="chat")
    await bob.see("from-the-phone")
    alice.xmpp.send_message(mto=phone.jid, mbody="to-the-phone", mtype="chat")
    await bob.see("to-the-phone")
    bob.type(f"/quit{ENTER}")
    await asyncio.to_thread(bob.wait)
