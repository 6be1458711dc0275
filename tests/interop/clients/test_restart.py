"""The end of the server, well or badly, and what is there when it comes back."""

import asyncio
import signal

import pytest


async def in_thread(do):
    """The server is waited for in a thread, so that clients go on."""
    await asyncio.to_thread(do)


async def prepare(server, client):
    """Two friends, and two accounts that are away with things waiting for one of them."""
    alice = await client(server.account("alice"), "desk", server=server).login()
    bob = await client(server.account("bob"), "phone", server=server).login()
    away = server.account("carol")
    await alice.befriend(bob)
    await alice.xmpp.update_roster(bob.bare, name="Bob", groups=["Friends"])
    vcard = alice.plugin["xep_0054"].make_vcard()
    vcard["FN"] = "Alice"
    await alice.plugin["xep_0054"].publish_vcard(vcard)
    bob.xmpp.send_presence_subscription(pto=away.jid, ptype="subscribe")
    await bob.push(away.jid)
    for number in range(20):
        alice.xmpp.send_message(mto=away.jid, mbody=str(number), mtype="chat")
    await alice.xmpp.plugin["xep_0199"].send_ping("localhost")  # a request waits for what was sent before it
    return alice, bob, away


async def check(server, client, alice, bob, away):
    """Everything is still there."""
    await alice.login()
    await bob.login()
    seen = await alice.presence(bob)
    assert seen["type"] == "available"
    await bob.presence(alice)
    kept = {"subscription": "both", "ask": "", "name": "Bob", "groups": ["Friends"]}
    assert await alice.roster() == {bob.bare: kept}
    assert (await bob.roster())[alice.bare]["subscription"] == "both"
    assert (await bob.roster())[away.jid]["ask"] == "subscribe"
    vcard = await bob.plugin["xep_0054"].get_vcard(jid=alice.bare)
    assert vcard["vcard_temp"]["FN"] == "Alice"
    carol = await client(away, server=server).login()
    await carol.presence(bob.bare, "subscribe")
    assert [(await carol.message(alice))["body"] for _ in range(20)] == [str(number) for number in range(20)]
    await carol.expect_nothing()


@pytest.mark.asyncio
async def test_nothing_is_lost_by_a_restart(own_server, client):
    server = own_server(server={"drain_seconds": 600})  # not needed: clients hang up when they are told to
    alice, bob, away = await prepare(server, client)
    await in_thread(server.stop)
    for one in (alice, bob):
        assert await one.stream_error() == "system-shutdown"
        await one.disconnected()
    await in_thread(server.start)
    await check(server, client, alice, bob, away)


@pytest.mark.asyncio
async def test_nothing_is_lost_by_a_crash(own_server, client):
    server = own_server()
    alice, bob, away = await prepare(server, client)
    await in_thread(server.kill)
    for one in (alice, bob):
        await one.disconnected()
    await in_thread(server.start)
    await check(server, client, alice, bob, away)


@pytest.mark.asyncio
async def test_accounts_made_by_hand_with_no_server_running(own_server, client):
    server = own_server()
    server.stop()
    server.run("user", "add", "dave@localhost", "--password-stdin", given="by hand")
    server.start()
    dave = server.account("x")._replace(jid="dave@localhost", password="by hand")
    assert (await client(dave, server=server).login()).bare == "dave@localhost"
    assert server.status()["sessions"] == 1


@pytest.mark.asyncio
async def test_sessions_outlive_a_reload(own_server, client):
    server = own_server()
    alice = await client(server.account("alice"), server=server).login()
    server.signal(signal.SIGHUP)
    await in_thread(lambda: server.wait_for("reloaded"))
    await alice.plugin["xep_0199"].ping(jid="localhost")
    alice.xmpp.send_message(mto=alice.jid, mbody="still here")
    assert (await alice.message(alice))["body"] == "still here"
    await client(server.account("bob"), server=server).login()
