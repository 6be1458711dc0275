"""Messages between users of slixmpp, with the receiver there and away."""

import datetime as dt

import pytest
from slixmpp.xmlstream import ET

BODIES = [
    "plain",
    "Grüße & <b>nothing bold</b> ]]>",
    "\N{GRINNING FACE} \U0001d11e",
    "two\nlines\tand a tab",
    "x" * 100_000,
]


def now():
    return dt.datetime.now(dt.UTC)


@pytest.mark.asyncio
async def test_a_chat_goes_both_ways(pair):
    alice, bob = pair
    for body in BODIES:
        alice.xmpp.send_message(mto=bob.bare, mbody=body, mtype="chat")
        message = await bob.message(alice)
        assert (message["type"], message["body"], str(message["to"])) == ("chat", body, bob.bare)
        message.reply(body[::-1]).send()
        answer = await alice.message(bob)
        assert (answer["type"], answer["body"]) == ("chat", body[::-1])
    await alice.expect_nothing()
    await bob.expect_nothing()


@pytest.mark.asyncio
async def test_all_of_a_burst_arrives_in_order(pair):
    alice, bob = pair
    for number in range(500):
        alice.xmpp.send_message(mto=bob.bare, mbody=str(number), mtype="chat")
    received = [(await bob.message(alice))["body"] for _ in range(500)]
    assert received == [str(number) for number in range(500)]


@pytest.mark.asyncio
async def test_what_the_server_does_not_know_passes_through(pair):
    alice, bob = pair
    message = alice.xmpp.make_message(mto=bob.jid, mbody="move", mtype="normal")
    message["subject"] = "chess"
    message["thread"] = "t1"
    message.append(ET.fromstring("<move xmlns='urn:example:chess' from='e2' to='e4'><check/></move>"))
    message.send()
    received = await bob.message(alice)
    assert (received["subject"], received["thread"], received["type"]) == ("chess", "t1", "normal")
    assert received["from"].full == alice.jid
    move = received.xml.find("{urn:example:chess}move")
    assert move.attrib == {"from": "e2", "to": "e4"}
    assert [child.tag for child in move] == ["{urn:example:chess}check"]


@pytest.mark.asyncio
async def test_nobody_of_that_name(pair):
    alice, _ = pair
    alice.xmpp.send_message(mto="nobody@localhost", mbody="hello?", mtype="chat")
    answer = await alice.message("nobody@localhost")
    assert answer["type"] == "error"
    assert answer["error"]["condition"] == "service-unavailable"


@pytest.mark.asyncio
async def test_messages_wait_for_who_is_away(server, client):
    alice, account = await client(server.account("alice")).login(), server.account("bob")
    begin = now()
    for body in BODIES:
        alice.xmpp.send_message(mto=account.jid, mbody=body, mtype="chat")
    await alice.expect_nothing()
    sent = now()

    bob = await client(account).login()
    received = [await bob.message(alice) for _ in BODIES]
    assert [message["body"] for message in received] == BODIES
    for message in received:
        assert begin - dt.timedelta(seconds=1) <= message["delay"]["stamp"] <= sent
        assert message["delay"]["from"].bare in (account.jid, "localhost")
    await bob.expect_nothing()

    again = await client(account).login()
    alice.xmpp.send_message(mto=again.jid, mbody="live", mtype="chat")
    live = await again.message(alice)
    assert (live["body"], live.get_plugin("delay", check=True)) == ("live", None)
    await again.presence(bob)
    await again.expect_nothing()


@pytest.mark.asyncio
async def test_a_session_that_takes_no_messages_leaves_them_waiting(server, client):
    alice = await client(server.account("alice")).login()
    robot = await client(server.account("bob")).login(ppriority=-1)
    alice.xmpp.send_message(mto=robot.bare, mbody="for a human", mtype="chat")
    await alice.expect_nothing()
    await robot.expect_nothing()
    await robot.appear(ppriority=0)
    message = await robot.message(alice)
    assert message["body"] == "for a human"
    assert message.get_plugin("delay", check=True) is not None


@pytest.mark.asyncio
async def test_a_headline_does_not_wait(server, client):
    alice, account = await client(server.account("alice")).login(), server.account("bob")
    alice.xmpp.send_message(mto=account.jid, mbody="news", mtype="headline")
    alice.xmpp.send_message(mto=account.jid, mbody="letter", mtype="normal")
    await alice.expect_nothing()
    bob = await client(account).login()
    assert (await bob.message(alice))["body"] == "letter"
    await bob.expect_nothing()


@pytest.mark.asyncio
async def test_a_stanza_beyond_the_limit_ends_the_stream(own_server, client):
    server = own_server(limits={"stanza_bytes": 10_000})
    alice = await client(server.account("alice"), server=server).login()
    alice.xmpp.send_message(mto=alice.jid, mbody="x" * 9_000)
    await alice.message(alice)
    alice.xmpp.send_message(mto=alice.jid, mbody="x" * 10_000)
    assert await alice.stream_error() == "policy-violation"
    await alice.disconnected()
