"""@xmpp/client: it logs in by SASL2, Bind2 and FAST, resumes by itself, and sends what its user writes."""

import asyncio
import shutil
import uuid
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import pytest_asyncio
from driven import Driven

CLIENT = "{jabber:client}"
SM = "{urn:xmpp:sm:3}"
SASL2 = "{urn:xmpp:sasl:2}"
BIND2 = "{urn:xmpp:bind:0}"
FAST = "{urn:xmpp:fast:0}"
CARBONS = "{urn:xmpp:carbons:2}"
FORWARDED = "{urn:xmpp:forward:0}forwarded"
RSM = "{http://jabber.org/protocol/rsm}"
MAM = "{urn:xmpp:mam:2}"
BLOCKING = "{urn:xmpp:blocking}"
PLUGINS = {"enabled": ["disco", "ping", "blocking", "offline", "carbons", "archive"]}

HERE = Path(__file__).parent / "xmppjs"
INSTALLED = Path(__file__).parents[3] / ".tools" / "xmppjs"


@pytest_asyncio.fixture
async def xmppjs(server):
    """Starts a client that logs in: `await xmppjs(account, "desk", port=port)`."""
    node = shutil.which("node")
    if node is None or not (INSTALLED / "node_modules").is_dir():
        pytest.fail("@xmpp/client is not installed: scripts/test installs it")
    started, shared = [], server

    async def start(account, resource, *, server=None, port=0):
        server = server or shared
        command = [node, str(HERE / "driver.mjs"), str(INSTALLED)]
        one = Driven(command, {"NODE_EXTRA_CA_CERTS": str(server.certificate)})
        started.append(one)
        name, _, domain = account.jid.partition("@")
        settings = {"domain": domain, "username": name, "password": account.password, "resource": resource}
        await one.start(port=port or server.ports["starttls"], agent=str(uuid.uuid4()), **settings)
        one.tell("start")
        one.jid = (await one.hear("online"))["jid"]
        one.send("<presence/>")
        await one.received(f"{CLIENT}presence", lambda presence: presence.get("from") == one.jid)
        return one

    yield start
    for one in started:
        await one.close()


def chat(to, body, more=""):
    return f"<message to='{to}' type='chat' {more}><body>{body}</body></message>"


async def said(one, sender):
    """What the next message of a full JID says."""
    message = await one.received(f"{CLIENT}message", lambda message: message.get("from") == sender)
    return message.findtext(f"{CLIENT}body")


@pytest.mark.asyncio
async def test_a_login_with_all_that_it_knows(server, xmppjs):
    alice = await xmppjs(server.account("alice"), "desk")
    request = await alice.sent(f"{SASL2}authenticate")
    assert request.get("mechanism") == "SCRAM-SHA-1"
    assert request.find(f"{BIND2}bind/{SM}enable") is not None
    assert request.find(f"{FAST}request-token").get("mechanism") == "HT-SHA-256-NONE"
    success = await alice.received(f"{SASL2}success")
    assert success.find(f"{BIND2}bound/{SM}enabled").get("resume") == "true"
    assert success.find(f"{FAST}token") is not None
    assert alice.jid.partition("/")[2].startswith("desk.")
    alice.send(chat(alice.jid, "to myself"))
    assert await said(alice, alice.jid) == "to myself"
    acknowledged = [await alice.hear("acknowledged") for _ in range(2)]
    assert ["<presence" in acknowledged[0]["xml"], "to myself" in acknowledged[1]["xml"]] == [True, True]
    assert alice.heard("error") == alice.heard("failed") == []


@pytest.mark.asyncio
async def test_it_comes_back_with_its_token_and_its_session_and_nothing_is_lost(
    server, client, xmppjs, tunnel
):
    way, account = await tunnel(server), server.account("alice")
    alice = await xmppjs(account, "desk", port=way.port)
    bob = await client(server.account("bob"), "phone").login()
    await alice.sent(f"{SASL2}authenticate")
    for number in range(3):
        way.silence()
        alice.send(chat(bob.jid, f"away {number}", f"id='away{number}'"))
        await alice.sent(f"{CLIENT}message", lambda message, it=f"away{number}": message.get("id") == it)
        for to in (account.jid, alice.jid):
            bob.xmpp.send_message(mto=to, mbody=f"{number} to {to}", mtype="chat")
        way.cut()
        await alice.hear("disconnected")
        way.mend()
        assert (await alice.hear("resumed"))["jid"] == alice.jid
        request = await alice.sent(f"{SASL2}authenticate")
        assert request.get("mechanism") == "HT-SHA-256-NONE" and request.find(f"{SM}resume") is not None
        assert (await bob.message(alice.jid))["body"] == f"away {number}"
        assert [await said(alice, bob.jid) for _ in range(2)] == [
            f"{number} to {account.jid}",
            f"{number} to {alice.jid}",
        ]
    bob.xmpp.send_message(mto=alice.jid, mbody="last", mtype="chat")
    assert await said(alice, bob.jid) == "last", "nothing came twice"
    alice.send(chat(bob.jid, "last"))
    assert (await bob.message(alice.jid))["body"] == "last"
    assert alice.heard("failed") == alice.heard("online") == []


@pytest.mark.asyncio
async def test_without_its_token_it_logs_in_by_its_password(server, xmppjs, tunnel):
    way, account = await tunnel(server), server.account("alice")
    alice = await xmppjs(account, "desk", port=way.port)
    way.cut()
    await alice.hear("disconnected")
    revoked, ended = await asyncio.to_thread(server.run, "token", "revoke", account.jid)
    assert "revoked" in revoked and ended == {"ended": alice.jid}
    way.mend()
    assert (await alice.hear("online"))["jid"] == alice.jid
    await alice.received(f"{SASL2}failure")
    requests = [await alice.sent(f"{SASL2}authenticate") for _ in range(3)]
    mechanisms = [request.get("mechanism") for request in requests]
    assert mechanisms == ["SCRAM-SHA-1", "HT-SHA-256-NONE", "SCRAM-SHA-1"]
    assert requests[2].find(f"{FAST}request-token") is not None


@pytest.mark.asyncio
async def test_where_its_session_is_gone_it_has_a_new_one_and_what_it_missed(
    own_server, client, xmppjs, tunnel
):
    server = own_server(sessions={"resume_seconds": 1, "resume_seconds_at_most": 1}, plugins=PLUGINS)
    way, account = await tunnel(server), server.account("alice")
    alice = await xmppjs(account, "desk", server=server, port=way.port)
    bob = await client(server.account("bob"), "phone", server=server).login()
    way.cut()
    await alice.hear("disconnected")
    await asyncio.to_thread(server.wait_until, lambda: server.status()["sessions"] == 1)
    bob.xmpp.send_message(mto=account.jid, mbody="missed", mtype="chat")
    await bob.expect_nothing()
    way.mend()
    assert (await alice.hear("online"))["jid"] == alice.jid
    alice.send("<presence/>")
    assert await said(alice, bob.jid) == "missed"
    assert alice.heard("resumed") == []


@pytest.mark.asyncio
async def test_carbons(server, client, xmppjs):
    account = server.account("alice")
    desk, phone = await xmppjs(account, "desk"), await xmppjs(account, "phone")
    bob = await client(server.account("bob"), "phone").login()
    for one in (desk, phone):
        assert (await one.ask("set", "<enable xmlns='urn:xmpp:carbons:2'/>")).get("type") == "result"
    bob.xmpp.send_message(mto=desk.jid, mbody="for the desk", mtype="chat")
    assert await said(desk, bob.jid) == "for the desk"
    desk.send(chat(bob.jid, "from the desk"))
    assert (await bob.message(desk.jid))["body"] == "from the desk"
    copies = [
        await phone.received(f"{CLIENT}message", lambda copy: copy.get("from") == account.jid) for _ in "rs"
    ]
    found = [
        copy.find(f"{CARBONS}{way}/{FORWARDED}/{CLIENT}message/{CLIENT}body").text
        for copy, way in zip(copies, ("received", "sent"), strict=True)
    ]
    assert found == ["for the desk", "from the desk"]


@pytest.mark.asyncio
async def test_the_archive_in_pages(own_server, client, xmppjs):
    server = own_server(plugins=PLUGINS)
    account = server.account("alice")
    bob = await client(server.account("bob"), "phone", server=server).login()
    for number in range(5):
        bob.xmpp.send_message(mto=account.jid, mbody=str(number), mtype="chat")
    await bob.expect_nothing()
    alice = await xmppjs(account, "desk", server=server)
    found, after, complete = [], "", None
    while complete != "true":
        page = f"<set xmlns='{RSM[1:-1]}'><max>2</max>{after}</set>"
        answer = await alice.ask("set", f"<query xmlns='{MAM[1:-1]}' queryid='q'>{page}</query>")
        for event in alice.heard("received"):
            result = ET.fromstring(event["xml"]).find(f"{MAM}result[@queryid='q']")
            if result is not None:
                found.append(result.findtext(f"{FORWARDED}/{CLIENT}message/{CLIENT}body"))
        fin = answer.find(f"{MAM}fin")
        after, complete = f"<after>{fin.findtext(f'{RSM}set/{RSM}last')}</after>", fin.get("complete")
    assert found == ["0", "1", "2", "3", "4"]


@pytest.mark.asyncio
async def test_nobody_looks_at_it(server, client, xmppjs):
    account = server.account("alice")
    alice = await xmppjs(account, "desk")
    bob = await client(server.account("bob"), "phone").login()
    alice.send("<inactive xmlns='urn:xmpp:csi:0'/>")
    await alice.ask("get", "<ping xmlns='urn:xmpp:ping'/>", "localhost")  # so the server knows
    state = bob.xmpp.make_message(mto=alice.jid, mtype="chat")
    state.append(ET.Element("{http://jabber.org/protocol/chatstates}composing"))
    state.send()
    await bob.expect_nothing()
    assert not any("composing" in event["xml"] for event in alice.heard("received")), "it waits"
    alice.send("<active xmlns='urn:xmpp:csi:0'/>")
    await alice.hear("received", lambda event: "composing" in event["xml"])


@pytest.mark.asyncio
async def test_blocking(server, client, xmppjs):
    account = server.account("alice")
    alice = await xmppjs(account, "desk")
    bob = await client(server.account("bob"), "phone").login()
    await alice.ask("get", "<blocklist xmlns='urn:xmpp:blocking'/>")  # so it is told of changes
    item = f"<item jid='{bob.bare}'/>"
    answer = await alice.ask("set", f"<block xmlns='urn:xmpp:blocking'>{item}</block>")
    assert answer.get("type") == "result"
    pushed = await alice.received(f"{CLIENT}iq", lambda iq: iq.find(f"{BLOCKING}block") is not None)
    assert pushed.find(f"{BLOCKING}block/{BLOCKING}item").get("jid") == bob.bare
    bob.xmpp.send_message(mto=account.jid, mbody="are you there?", mtype="chat")
    assert (await bob.message(account.jid))["type"] == "error"
    alice.send(chat(bob.jid, "no"))
    refusal = await alice.received(f"{CLIENT}message", lambda message: message.get("type") == "error")
    assert refusal.find(".//{urn:xmpp:blocking:errors}blocked") is not None
    listed = await alice.ask("get", "<blocklist xmlns='urn:xmpp:blocking'/>")
    assert [one.get("jid") for one in listed.iter(f"{BLOCKING}item")] == [bob.bare]
