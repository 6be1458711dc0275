"""slixmpp loses its connection and resumes its session (XEP-0198)."""

import asyncio

import pytest

SECONDS = 20.0


def managed(one):
    """With stream management."""
    one.xmpp.register_plugin("xep_0198")
    one.resumed = asyncio.Event()
    one.managing = asyncio.Event()
    one.xmpp.add_event_handler("session_resumed", lambda _: one.resumed.set())
    one.xmpp.add_event_handler("sm_enabled", lambda _: one.managing.set())
    return one


async def lose(one):
    """The connection is gone without a word."""
    one.resumed.clear()
    one.xmpp.abort()
    await one.disconnected()


async def come_back(one):
    """Connect, log in, and resume the session."""
    one.xmpp.connect(*one.address)
    async with asyncio.timeout(SECONDS):
        await one.resumed.wait()


@pytest.mark.asyncio
async def test_a_session_is_resumed_and_nothing_lost(server, client):
    alice = managed(client(server.account("alice"), "desk"))
    bob = await client(server.account("bob"), "phone").login()
    await alice.login()
    async with asyncio.timeout(SECONDS):
        await alice.managing.wait()
    await alice.befriend(bob)
    jid, said = alice.jid, 0
    for round in range(5):
        for _ in range(round):
            bob.xmpp.send_message(mto=alice.bare, mbody=str(said), mtype="chat")
            said += 1
        await lose(alice)
        for _ in range(3):
            bob.xmpp.send_message(mto=jid, mbody=str(said), mtype="chat")
            said += 1
        alice.xmpp.send_message(mto=bob.jid, mbody=f"away {round}", mtype="chat")
        await come_back(alice)
        assert alice.jid == jid
        assert (await bob.message(jid))["body"] == f"away {round}"
    got = [(await alice.message(bob))["body"] for _ in range(said)]
    assert got == [str(number) for number in range(said)]
    await alice.expect_nothing()
    await bob.expect_nothing()  # nor was alice shown as gone


@pytest.mark.asyncio
async def test_what_is_acknowledged_is_known(server, client):
    alice = managed(client(server.account("alice"), "desk"))
    await alice.login()
    acked = []
    alice.xmpp.add_event_handler("stanza_acked", acked.append)
    alice.plugin["xep_0198"].window = alice.plugin["xep_0198"].window_counter = 1
    for number in range(10):
        alice.xmpp.send_message(mto=alice.bare, mbody=str(number), mtype="chat")
    for _ in range(10):
        await alice.message(alice)
    await alice.plugin["xep_0199"].ping(jid="localhost")
    await alice.expect_nothing()
    assert sum(stanza.name == "message" for stanza in acked) >= 10


@pytest.mark.asyncio
async def test_who_cannot_resume_gets_a_new_session_and_what_it_missed(own_server, client):
    server = own_server(sessions={"resume_seconds": 1, "resume_seconds_at_most": 1})
    account = server.account("alice")
    alice = managed(client(account, "desk", server=server))
    bob = await client(server.account("bob"), "phone", server=server).login()
    await alice.login()
    async with asyncio.timeout(SECONDS):
        await alice.managing.wait()
    await alice.befriend(bob)
    await lose(alice)
    bob.xmpp.send_message(mto=alice.bare, mbody="missed", mtype="chat")
    await bob.presence(alice, "unavailable")
    again = await client(account, "desk", server=server).login()
    message = await again.message(bob)
    assert message["body"] == "missed" and message["delay"]["stamp"]
