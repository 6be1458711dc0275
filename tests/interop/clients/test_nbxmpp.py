"""nbxmpp, the engine of Gajim: it logs in by SASL2, resumes, and reads history, copies and markers."""

import asyncio
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import pytest_asyncio
from driven import Driven

CLIENT = "{jabber:client}"
SM = "{urn:xmpp:sm:3}"
SASL2 = "{urn:xmpp:sasl:2}"
PLUGINS = {"enabled": ["disco", "ping", "blocking", "offline", "carbons", "archive"]}
PYTHON = "/usr/bin/python3"

HERE = Path(__file__).parent / "nbxmpp"
INSTALLED = Path(__file__).parents[3] / ".tools" / "nbxmpp"


@pytest_asyncio.fixture
async def nbxmpp(server):
    """Starts a client that logs in: `await nbxmpp(account, "desk", port=port)`."""
    if not INSTALLED.is_dir():
        pytest.fail("nbxmpp is not installed: scripts/test installs it")
    started, shared = [], server

    async def start(account, resource, *, server=None, port=0):
        server = server or shared
        one = Driven([PYTHON, str(HERE / "driver.py")], {"PYTHONPATH": str(INSTALLED)})
        started.append(one)
        name, _, domain = account.jid.partition("@")
        settings = {"domain": domain, "username": name, "password": account.password, "resource": resource}
        settings["certificate"] = str(server.certificate)
        await one.start(port=port or server.ports["starttls"], **settings)
        one.tell("start")
        one.jid = (await one.hear("connected"))["jid"]
        one.send("<presence xmlns='jabber:client'/>")
        await one.received(f"{CLIENT}presence", lambda presence: presence.get("from") == one.jid)
        return one

    yield start
    for one in started:
        await one.close()


async def understood(one, body):
    """What it made of the next message with a body."""
    return await one.hear("understood", lambda event: event["body"] == body)


@pytest.mark.asyncio
async def test_a_login(server, client, nbxmpp):
    alice = await nbxmpp(server.account("alice"), "desk")
    assert (await alice.sent(f"{SASL2}authenticate")).get("mechanism") == "SCRAM-SHA-256"
    enabled = await alice.received(f"{SM}enabled")
    assert enabled.get("resume") == "true"
    bob = await client(server.account("bob"), "phone").login()
    alice.send(f"<message xmlns='jabber:client' to='{bob.jid}' type='chat'><body>hello</body></message>")
    assert (await bob.message(alice.jid))["body"] == "hello"
    bob.xmpp.send_message(mto=alice.jid, mbody="good day", mtype="chat")
    assert (await understood(alice, "good day"))["sender"] == bob.jid


@pytest.mark.asyncio
async def test_a_session_is_resumed_and_nothing_lost(server, client, nbxmpp, tunnel):
    way, account = await tunnel(server), server.account("alice")
    alice = await nbxmpp(account, "desk", port=way.port)
    bob = await client(server.account("bob"), "phone").login()
    for number in range(3):
        way.silence()
        text = f"away {number}"
        alice.send(f"<message xmlns='jabber:client' to='{bob.jid}' type='chat'><body>{text}</body></message>")
        await alice.hear("sent", lambda event, text=text: text in event["xml"])
        for to in (account.jid, alice.jid):
            bob.xmpp.send_message(mto=to, mbody=f"{number} to {to}", mtype="chat")
        way.cut()
        await alice.hear("disconnected")
        way.mend()
        alice.tell("start")
        assert (await alice.hear("resume-successful"))["jid"] == alice.jid
        assert (await bob.message(alice.jid))["body"] == text
        for to in (account.jid, alice.jid):
            await understood(alice, f"{number} to {to}")
    bob.xmpp.send_message(mto=alice.jid, mbody="last", mtype="chat")
    assert (await understood(alice, "last"))["sender"] == bob.jid
    await bob.expect_nothing()
    assert alice.heard("understood") == alice.heard("resume-failed") == []


@pytest.mark.asyncio
async def test_what_cannot_be_resumed_is_a_new_session(own_server, client, nbxmpp, tunnel):
    server = own_server(sessions={"resume_seconds": 1, "resume_seconds_at_most": 1}, plugins=PLUGINS)
    way, account = await tunnel(server), server.account("alice")
    alice = await nbxmpp(account, "desk", server=server, port=way.port)
    bob = await client(server.account("bob"), "phone", server=server).login()
    way.cut()
    await alice.hear("disconnected")
    await asyncio.to_thread(server.wait_until, lambda: server.status()["sessions"] == 1)
    bob.xmpp.send_message(mto=account.jid, mbody="missed", mtype="chat")
    await bob.expect_nothing()
    way.mend()
    alice.tell("start")
    await alice.hear("resume-failed")
    assert (await alice.hear("connected"))["jid"] == alice.jid
    alice.send("<presence xmlns='jabber:client'/>")
    await understood(alice, "missed")


@pytest.mark.asyncio
async def test_history_in_pages_then_copies_and_a_marker(own_server, client, nbxmpp):
    server = own_server(plugins=PLUGINS)
    account = server.account("alice")
    bob = await client(server.account("bob"), "desk", server=server).login()
    for number in range(5):
        bob.xmpp.send_message(mto=account.jid, mbody=str(number), mtype="chat")
    await bob.expect_nothing()
    alice = await nbxmpp(account, "desk", server=server)
    for number in range(5):  # which were stored, too
        assert (await understood(alice, str(number)))["archived"] is None
    after, found = "", []
    for is_last in (False, False, True):
        alice.tell("history", after=after, most=2)
        page = await alice.hear("page")
        assert page["complete"] is is_last
        after = page["last"]
        found += alice.heard("understood")
    assert [one["body"] for one in found] == ["0", "1", "2", "3", "4"]
    assert found[-1]["archived"] == after

    assert (await alice.ask("set", "<enable xmlns='urn:xmpp:carbons:2'/>")).get("type") == "result"
    phone = await client(account, "phone", server=server).login()
    phone.xmpp.send_message(mto=bob.jid, mbody="from the phone", mtype="chat")
    assert (await understood(alice, "from the phone"))["carbon"] == "sent"
    bob.xmpp.send_message(mto=phone.jid, mbody="to the phone", mtype="chat")
    copy = await understood(alice, "to the phone")
    assert copy["carbon"] == "received" and len(copy["ids"]) == 1

    await phone.message(bob)
    received = await bob.message(phone)
    alice.tell("displayed", to=bob.bare, id="m1")
    marker = (await bob.message(alice.jid)).xml.find("{urn:xmpp:chat-markers:0}displayed")
    assert marker.get("id") == "m1"
    sent = bob.xmpp.make_message(mto=account.jid, mtype="chat")
    sent.append(ET.Element("{urn:xmpp:chat-markers:0}displayed", id=received["id"]))
    sent.send()
    heard = await alice.hear("understood", lambda event: event["marker"])
    assert heard["marker"] == ["displayed", received["id"]]


@pytest.mark.asyncio
async def test_blocking(server, client, nbxmpp):
    account = server.account("alice")
    alice = await nbxmpp(account, "desk")
    bob = await client(server.account("bob"), "phone").login()
    alice.tell("blocklist")
    assert (await alice.hear("blocklist"))["jids"] == []
    alice.tell("block", jid=bob.bare)
    assert (await alice.hear("blocked"))["done"]
    bob.xmpp.send_message(mto=account.jid, mbody="are you there?", mtype="chat")
    assert (await bob.message(account.jid))["type"] == "error"
    alice.send(f"<message xmlns='jabber:client' to='{bob.jid}' type='chat'><body>no</body></message>")
    refusal = await alice.hear("understood", lambda event: event["sender"].startswith(bob.bare))
    assert refusal["error"] == "not-acceptable"
    alice.tell("blocklist")
    assert (await alice.hear("blocklist"))["jids"] == [bob.bare]
