"""Rosters, subscriptions and presence between two users of slixmpp."""

import pytest


def item(subscription, ask="", name="", groups=()):
    return {"subscription": subscription, "ask": ask, "name": name, "groups": list(groups)}


@pytest.mark.asyncio
async def test_two_users_subscribe_to_each_other(pair):
    alice, bob = pair
    alice.xmpp.send_presence_subscription(pto=bob.bare, ptype="subscribe")
    assert await alice.push(bob) == item("none", "subscribe")
    await bob.presence(alice.bare, "subscribe")

    bob.xmpp.send_presence_subscription(pto=alice.bare, ptype="subscribed")
    assert await bob.push(alice) == item("from")
    assert await alice.push(bob) == item("to")
    await alice.presence(bob.bare, "subscribed")
    await alice.presence(bob)

    bob.xmpp.send_presence_subscription(pto=alice.bare, ptype="subscribe")
    assert await bob.push(alice) == item("from", "subscribe")
    await alice.presence(bob.bare, "subscribe")
    alice.xmpp.send_presence_subscription(pto=bob.bare, ptype="subscribed")
    assert await alice.push(bob) == item("both")
    assert await bob.push(alice) == item("both")
    await bob.presence(alice.bare, "subscribed")
    await bob.presence(alice)

    assert await alice.roster() == {bob.bare: item("both")}
    assert await bob.roster() == {alice.bare: item("both")}
    await alice.expect_nothing()
    await bob.expect_nothing()


@pytest.mark.asyncio
async def test_slixmpp_answers_requests_by_itself(pair):
    alice, bob = pair
    bob.xmpp.auto_authorize = bob.xmpp.auto_subscribe = True
    alice.xmpp.auto_authorize = True
    alice.xmpp.send_presence_subscription(pto=bob.bare, ptype="subscribe")
    await alice.presence(bob)
    await bob.presence(alice)
    while (await alice.push(bob))["subscription"] != "both":
        pass
    assert (await bob.roster())[alice.bare]["subscription"] == "both"


@pytest.mark.asyncio
async def test_a_request_can_be_refused(pair):
    alice, bob = pair
    alice.xmpp.send_presence_subscription(pto=bob.bare, ptype="subscribe")
    assert await alice.push(bob) == item("none", "subscribe")
    await bob.presence(alice.bare, "subscribe")
    bob.xmpp.send_presence_subscription(pto=alice.bare, ptype="unsubscribed")
    assert await alice.push(bob) == item("none")
    await alice.presence(bob.bare, "unsubscribed")
    assert await bob.roster() == {}
    await bob.expect_nothing()


@pytest.mark.asyncio
async def test_a_request_waits_for_its_receiver(server, client):
    alice, account = await client(server.account("alice")).login(), server.account("bob")
    alice.xmpp.send_presence_subscription(pto=account.jid, ptype="subscribe")
    await alice.push(account.jid)
    for _ in range(2):  # shown at each login until it is answered
        bob = await client(account).login()
        await bob.presence(alice.bare, "subscribe")
        await bob.logout()
    bob = await client(account).login()
    await bob.presence(alice.bare, "subscribe")
    bob.xmpp.send_presence_subscription(pto=alice.bare, ptype="subscribed")
    await alice.presence(bob)
    await bob.push(alice)
    await bob.logout()
    bob = await client(account).login()
    await bob.expect_nothing()


@pytest.mark.asyncio
async def test_names_and_groups_reach_all_resources(server, client):
    account = server.account("alice")
    desk, phone = await client(account, "desk").login(), await client(account, "phone").login()
    named = item("none", name="Bob & <Söhne>", groups=["Friends", "Öffentlich"])
    await desk.xmpp.update_roster("bob@example.org", name=named["name"], groups=named["groups"])
    assert await desk.push("bob@example.org") == named
    assert await phone.push("bob@example.org") == named
    renamed = item("none", name="Bobby", groups=["Friends"])
    await phone.xmpp.update_roster("bob@example.org", name="Bobby", groups=["Friends"])
    assert await desk.push("bob@example.org") == renamed
    assert await phone.push("bob@example.org") == renamed
    assert await desk.roster() == {"bob@example.org": renamed}


@pytest.mark.asyncio
async def test_removal_parts_both(friends):
    alice, bob = friends
    await alice.xmpp.update_roster(bob.bare, subscription="remove")
    assert (await alice.push(bob))["subscription"] == "remove"
    await alice.presence(bob, "unavailable")
    await bob.presence(alice, "unavailable")
    await bob.presence(alice.bare, "unsubscribe")
    await bob.presence(alice.bare, "unsubscribed")
    while (await bob.push(alice))["subscription"] != "none":
        pass
    assert await alice.roster() == {}
    assert await bob.roster() == {alice.bare: item("none")}
    await alice.expect_nothing()
    await bob.expect_nothing()


@pytest.mark.asyncio
async def test_removal_with_a_word_before(friends):
    alice, bob = friends
    await alice.xmpp.del_roster_item(bob.bare)  # slixmpp unsubscribes first
    assert (await alice.push(bob))["subscription"] == "from"
    assert (await alice.push(bob))["subscription"] == "remove"
    for client, other in ((alice, bob), (bob, alice)):
        await client.presence(other, "unavailable")
    assert await alice.roster() == {}
    assert (await bob.roster())[alice.bare]["subscription"] == "none"


@pytest.mark.asyncio
async def test_a_roster_that_did_not_change_is_not_sent_again(friends):
    alice, bob = friends
    assert "rosterver" in alice.xmpp.features
    iq = alice.xmpp.make_iq_get()
    iq["roster"]["ver"] = alice.xmpp.client_roster.version
    assert len((await iq.send()).xml) == 0
    await alice.xmpp.update_roster(bob.bare, name="Bob")
    await alice.push(bob)
    iq = alice.xmpp.make_iq_get()
    iq["roster"]["ver"] = alice.xmpp.client_roster.version
    assert len((await iq.send()).xml) == 0
    assert (await alice.roster())[bob.bare]["name"] == "Bob"


@pytest.mark.asyncio
async def test_changes_of_presence_are_shown_to_friends(friends):
    alice, bob = friends
    alice.xmpp.send_presence(pshow="dnd", pstatus="Räuber & Gendarm", ppriority=5)
    seen = await bob.presence(alice)
    assert (seen["show"], seen["status"], seen["priority"]) == ("dnd", "Räuber & Gendarm", 5)
    alice.xmpp.send_presence(ptype="unavailable", pstatus="gone fishing")
    seen = await bob.presence(alice, "unavailable")
    assert seen["status"] == "gone fishing"
    await bob.expect_nothing()


@pytest.mark.asyncio
async def test_who_comes_later_sees_who_is_there(friends, client, server):
    alice, bob = friends
    bob.xmpp.send_presence(pshow="away", pstatus="tea")
    await alice.presence(bob)
    await alice.logout()
    await bob.presence(alice, "unavailable")
    await alice.login()
    seen = await alice.presence(bob)
    assert (seen["show"], seen["status"]) == ("away", "tea")
    await bob.presence(alice)


@pytest.mark.asyncio
async def test_a_lost_connection_is_an_end_too(friends):
    alice, bob = friends
    alice.xmpp.abort()
    await bob.presence(alice, "unavailable")
    await bob.expect_nothing()


@pytest.mark.asyncio
async def test_directed_presence_is_taken_back_at_the_end(pair):
    alice, bob = pair
    alice.xmpp.send_presence(pto=bob.jid, pstatus="only for you")
    assert (await bob.presence(alice))["status"] == "only for you"
    await alice.logout()
    await bob.presence(alice, "unavailable")
    await bob.expect_nothing()


@pytest.mark.asyncio
async def test_own_resources_see_each_other(server, client):
    account = server.account("alice")
    desk, phone = await client(account, "desk").login(), await client(account, "phone").login()
    await desk.presence(phone)
    await phone.presence(desk)
    await phone.logout()
    await desk.presence(phone, "unavailable")
    await desk.expect_nothing()
