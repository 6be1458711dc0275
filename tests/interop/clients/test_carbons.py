"""slixmpp on two devices of one account (XEP-0280)."""

import pytest


def copied(one):
    """With what came as copies."""
    one.xmpp.register_plugin("xep_0280")
    one.copies = []
    for way in ("sent", "received"):
        one.xmpp.add_event_handler(
            f"carbon_{way}", lambda copy, way=way: one.copies.append((way, copy[f"carbon_{way}"]))
        )
    return one


def told(one):
    """What they say, and to whom it went."""
    found = [(way, message["body"], str(message["to"])) for way, message in one.copies]
    one.copies.clear()
    return found


@pytest.mark.asyncio
async def test_each_device_has_both_sides(server, client):
    account = server.account("alice")
    desk, phone = copied(client(account, "desk")), copied(client(account, "phone"))
    await desk.login(ppriority=5)
    await phone.login(ppriority=1)
    for one in (desk, phone):
        assert await one.plugin["xep_0030"].supports("localhost", feature="urn:xmpp:carbons:rules:0")
        await one.plugin["xep_0280"].enable()
    bob = await client(server.account("bob")).login()
    bob.xmpp.send_message(mto=desk.bare, mbody="one", mtype="chat")
    assert (await desk.message(bob))["body"] == "one"
    phone.xmpp.send_message(mto=bob.jid, mbody="two", mtype="chat")
    assert (await bob.message(phone))["body"] == "two"
    for one in (desk, phone):
        await one.xmpp.get_roster()
    assert told(desk) == [("sent", "two", bob.jid)]
    assert told(phone) == [("received", "one", desk.bare)]
    await phone.plugin["xep_0280"].disable()
    bob.xmpp.send_message(mto=desk.bare, mbody="three", mtype="chat")
    assert (await desk.message(bob))["body"] == "three"
    await phone.xmpp.get_roster()
    assert told(phone) == []
