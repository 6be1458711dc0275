"""slixmpp blocks, reports, and reads the same as a privacy list."""

import asyncio
from types import SimpleNamespace

import pytest

SECONDS = 20.0


def heard(client, event, name):
    """The addresses that the next push of this kind names."""
    found = asyncio.get_running_loop().create_future()

    def take(iq):
        if not found.done():
            found.set_result({str(item["jid"]) for item in iq[name]})

    client.xmpp.add_event_handler(event, take)
    return asyncio.wait_for(found, SECONDS)


@pytest.mark.asyncio
async def test_a_friend_is_blocked_and_unblocked(friends, client, refused):
    alice, bob = friends
    account = SimpleNamespace(jid=alice.bare, password=alice.xmpp.password)
    second = await client(account, "second").login()
    assert await second.plugin["xep_0191"].get_blocked_jids() == set()
    told = heard(second, "blocked", "block")
    await alice.plugin["xep_0191"].block(bob.bare)
    assert await told == {bob.bare}
    await bob.presence(alice.jid, "unavailable")
    assert {str(jid) for jid in await second.plugin["xep_0191"].get_blocked_jids()} == {bob.bare}
    bob.xmpp.send_message(mto=alice.bare, mbody="are you there?")
    answer = await bob.message(alice.bare)
    assert (answer["type"], answer["error"]["condition"]) == ("error", "service-unavailable")
    assert await refused(bob.plugin["xep_0199"].send_ping(alice.jid)) == ("cancel", "service-unavailable")
    alice.xmpp.send_message(mto=bob.bare, mbody="go away")
    answer = await alice.message(bob.bare)
    assert (answer["type"], answer["error"]["condition"]) == ("error", "not-acceptable")
    assert answer.xml.find(".//{urn:xmpp:blocking:errors}blocked") is not None
    told = heard(second, "unblocked", "unblock")
    await alice.plugin["xep_0191"].unblock(bob.bare)
    assert await told == {bob.bare}
    await bob.presence(alice.jid)
    await alice.presence(bob.jid)
    bob.xmpp.send_message(mto=alice.jid, mbody="hello again")
    assert (await alice.message(bob.jid))["body"] == "hello again"


@pytest.mark.asyncio
async def test_a_report_reaches_operators(pair, server):
    alice, bob = pair
    await alice.plugin["xep_0377"].report(bob.bare, "abuse")
    rows = server.run("block", "reports", "--reported", bob.bare)
    assert [(row["account"], row["reason"]) for row in rows] == [(alice.bare, "urn:xmpp:reporting:abuse")]
    assert [row["address"] for row in server.run("block", "list", alice.bare)] == [bob.bare]


@pytest.mark.asyncio
async def test_an_old_client_has_the_same_list(pair, refused):
    alice, bob = pair
    await alice.plugin["xep_0191"].block("a.example")
    names = (await alice.plugin["xep_0016"].get_privacy_lists())["privacy"]
    assert names["default"]["name"] == "blocklist"
    rules = [{"value": bob.bare, "action": "deny", "order": "1", "type": "jid"}]
    await alice.plugin["xep_0016"].edit_list("blocklist", rules)
    await alice.plugin["xep_0016"].activate("blocklist")
    assert {str(jid) for jid in await alice.plugin["xep_0191"].get_blocked_jids()} == {bob.bare}
    asked = alice.plugin["xep_0016"].edit_list("mine", rules)
    assert await refused(asked) == ("cancel", "feature-not-implemented")
