"""What operators see of sessions, and say to them, on whatever node these are."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from managing import enable, managed
from sasl2 import BIND, PHONE, agent, opened, scram, wanted

from xmppd import ns
from xmppd.core.output import NOWHERE
from xmppd.errors import CommandError
from xmppd.stream.sasl import Login
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

CAPS = (
    "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://Gajim.example/?a&amp;b' ver='x'/>"
)


async def call(world: World, name: str, node: int = 0, **arguments: Any) -> Any:
    return await world.apps[node].commands.call(name, arguments)


async def listed(world: World, **arguments: Any) -> list[str]:
    """The resources of those that a list has."""
    rows = (await call(world, "session list", **arguments))["rows"]
    return sorted(row["session"].partition("/")[2] for row in rows)


async def bound_from(world: World, user: str, resource: str, peer: str) -> Client:
    """A client that comes from an address."""
    client = world.connect(peer)
    await client.open()
    await client.authenticate(user)
    await client.open()
    await client.bind(resource)
    return client


async def test_sessions_are_found_by_where_their_clients_are() -> None:
    async with World() as world:
        for number, peer in enumerate(
            ("10.1.2.3", "10.9.9.9", "192.0.2.7", "2001:db8::5", "::ffff:10.7.0.1")
        ):
            await bound_from(world, ("alice", "bob", "carol")[number % 3], f"r{number}", peer)
        assert await listed(world, address="10.0.0.0/8") == ["r0", "r1", "r4"]
        assert await listed(world, address="10.1.2.77/24") == ["r0"]
        assert await listed(world, address="192.0.2.7") == ["r2"]
        assert await listed(world, address="2001:db8::/32") == ["r3"]
        assert await listed(world, account="alice@localhost", address="10.0.0.0/8") == ["r0"]
        assert await listed(world, address="127.0.0.1") == []
        for wrong in ("10.0.0.0/33", "nowhere", "10.0.0"):
            with pytest.raises(CommandError, match="no IP address and no network") as refused:
                await call(world, "session list", address=wrong)
            assert refused.value.field == "address"


async def test_sessions_are_found_by_software() -> None:
    async with World() as world:
        phone = await opened(world)
        await scram(phone, "alice", agent(PHONE, "Monal", "Pocket &amp; Co") + BIND)
        caps = await world.bind("bob", "one")
        await caps.send(f"<presence><status>caps</status>{CAPS}</presence>")
        await world.login("carol", "GameClient.7f")
        resource = phone.jid.partition("/")[2]
        assert await listed(world, client="monal") == await listed(world, client="pocket & c") == [resource]
        assert await listed(world, client="gajim") == await listed(world, client="?a&b") == ["one"]
        assert await listed(world, client="gameclient.") == ["GameClient.7f"]
        assert await listed(world, client="status") == []
        rows = {row["session"]: row["client"] for row in (await call(world, "session list"))["rows"]}
        assert rows == {
            phone.jid: "Monal",
            caps.jid: "https://Gajim.example/?a&b",
            "carol@localhost/GameClient.7f": "",
        }


async def test_what_a_client_says_of_itself_makes_no_list_long() -> None:
    async with World() as world:
        client = await world.bind("bob", "one")
        long = CAPS.replace("Gajim", "g" * 8000)
        await client.send(f"<presence>{long}</presence>")
        [row] = (await call(world, "session list"))["rows"]
        assert row["client"] == (await call(world, "session show", address=client.jid))["caps"]
        assert row["client"] == f"https://{'g' * 192}"


async def test_sessions_are_found_by_state_and_age() -> None:
    async with World() as world:
        lost, _ = await managed(world, "alice", "lost")
        await world.bind("bob", "silent")
        await world.advance(50)
        carol = await world.login("carol", "here")
        await lost.drop()
        await world.advance(10)
        assert await listed(world, state="detached") == ["lost"]
        assert await listed(world, state="unavailable") == ["silent"]
        assert await listed(world, state="available") == ["here"]
        assert await listed(world, older=60) == ["lost", "silent"]
        assert await listed(world, older=61) == []
        assert await listed(world, idle=11) == ["silent"]
        assert await listed(world, idle=10) == ["here", "lost", "silent"]
        await carol.send(" ")
        assert await listed(world, idle=1) == ["lost", "silent"]
        for name, wrong in (("state", "away"), ("older", -1), ("idle", -1)):
            with pytest.raises(CommandError, match=f"{name} must") as refused:
                await call(world, "session list", **{name: wrong})
            assert refused.value.field == name


async def test_all_that_is_known_of_a_session() -> None:
    async with World() as world:
        client = await world.login("alice", "one", priority=3)
        await client.send(f"<presence><show>away</show><status>my secret</status>{CAPS}</presence>")
        await client.receive_all()
        await enable(client)
        await client.send(f"<iq type='set' id='c'><enable xmlns='{ns.CARBONS}'/></iq>")
        await client.receive_all()
        bob = await world.bind("bob")
        await bob.send(f"<message to='{client.jid}'><body>my secret</body></message>")
        row = await call(world, "session show", address=client.jid)
        assert "my secret" not in str(row)
        row.pop("node", None)
        unacked = row.pop("unacked_bytes")
        assert unacked == client.session.managed.size > 60
        assert row == {
            "session": client.jid,
            "state": "available",
            "priority": 0,
            "address": "127.0.0.1",
            "client": "https://Gajim.example/?a&b",
            "since": "2023-11-14T22:13:20Z",
            "idle": 0,
            "show": "away",
            "caps": "https://Gajim.example/?a&b",
            "software": "",
            "device": "",
            "client_id": "",
            "mechanism": "PLAIN",
            "login_expires": None,
            "token_expires": None,
            "transport": "tcp",
            "security": "none",
            "tls": "",
            "cipher": "",
            "channel_bindings": [],
            "unsent_bytes": 0,
            "is_clogged": False,
            "lang": "",
            "roster_requested": True,
            "carbons": False,
            "inactive": False,
            "held_while_inactive": 0,
            "acknowledges": True,
            "resumable": True,
            "resumable_seconds": 300,
            "detached_since": None,
            "stanzas_received": 1,
            "stanzas_under_way": 0,
            "stanzas_sent": 2,
            "unacked": 2,
        }


async def test_a_session_whose_client_is_away_and_one_of_an_inactive_one() -> None:
    async with World(plugins=("carbons",)) as world:
        client, _ = await managed(world, "alice", "one")
        await client.send(f"<iq type='set' id='c'><enable xmlns='{ns.CARBONS}'/></iq>")
        await client.send(f"<inactive xmlns='{ns.CSI}'/>")
        bob = await world.login("bob", "b")
        await bob.send(f"<presence to='{client.jid}'/>")
        row = await call(world, "session show", address=client.jid)
        assert (row["inactive"], row["held_while_inactive"], row["carbons"]) == (True, 1, True)
        await client.drop()
        await world.advance(7)
        row = await call(world, "session show", address=client.jid)
        assert (row["state"], row["detached_since"], row["idle"]) == ("detached", "2023-11-14T22:13:20Z", 7)
        assert row["address"] == "127.0.0.1"
        assert "transport" not in row


async def test_what_a_client_has_not_read_and_its_token() -> None:
    async with World() as world:
        client = await opened(world)
        await scram(client, "alice", agent(PHONE, "Monal") + BIND + wanted())
        client.stop_reading()
        bob = await world.bind("bob")
        await bob.send(f"<message to='{client.jid}'><body>{'x' * 5000}</body></message>")
        row = await call(world, "session show", address=client.jid)
        assert row["unsent_bytes"] > 5000
        assert (row["client_id"], row["mechanism"]) == (PHONE, "SCRAM-SHA-256")
        assert row["token_expires"] > "2023-11-15"
        assert row["acknowledges"] is False


async def test_what_is_no_session_is_not_shown() -> None:
    async with World() as world:
        await world.login("alice", "one")
        with pytest.raises(CommandError, match="alice@localhost/two is not logged in"):
            await call(world, "session show", address="alice@localhost/two")
        for wrong in ("alice@localhost", "localhost/one", "localhost"):
            with pytest.raises(CommandError, match="not the address of a session"):
                await call(world, "session show", address=wrong)


def sent(rows: list[Mapping[str, Any]]) -> list[str]:
    return sorted(row["sent"] for row in rows)


def said(text: str, id: str, to: str, type: str = "headline", subject: str = "") -> str:
    about = f"<subject>{subject}</subject>" if subject else ""
    head = f"<message from='localhost' to='{to}' type='{type}' id='{id}'>"
    return f"{head}{about}<body>{text}</body></message>"


async def test_a_message_comes_to_one_session_or_to_all_that_take_it() -> None:
    async with World() as world:
        low, high = await world.login("alice", "low"), await world.login("alice", "high", priority=5)
        away, silent = await world.login("alice", "away", priority=-1), await world.bind("alice", "silent")
        await world.settle()
        for client in (low, high, away, silent):
            await client.receive_all()

        rows = await call(world, "session message", address="alice@localhost", text="a < b", subject="Now")
        assert sent(rows) == [high.jid, low.jid]
        await world.settle()
        for client in (low, high):
            await client.expect(said("a &lt; b", rows[0]["id"], "alice@localhost", subject="Now"))

        rows = await call(world, "session message", address="alice@localhost", text="hi", chat=True)
        assert sent(rows) == [high.jid]
        await world.settle()
        await high.expect(said("hi", rows[0]["id"], "alice@localhost", "chat"))

        for client in (away, silent):
            rows = await call(world, "session message", address=client.jid, text="you")
            assert sent(rows) == [client.jid]
            await world.settle()
            await client.expect(said("you", rows[0]["id"], client.jid))
        for client in (low, high, away, silent):
            await client.expect_nothing()


async def test_a_message_that_nobody_takes_is_refused() -> None:
    async with World(plugins=("offline", "blocking")) as world:
        alice = await world.login("alice", "away", priority=-1)
        for address, why in (
            ("alice@localhost", "alice@localhost has no session that takes messages"),
            ("alice@localhost/gone", "alice@localhost/gone is not logged in"),
            ("bob@localhost", "bob@localhost has no session that takes messages"),
            ("nobody@localhost", "has no session that takes messages"),
            ("localhost", "not the address of an account"),
        ):
            for chat in (False, True):
                with pytest.raises(CommandError, match=why):
                    await call(world, "session message", address=address, text="hi", chat=chat)
        for wrong in ("", " ", "a\0b"):
            with pytest.raises(CommandError, match="text must not be empty") as refused:
                await call(world, "session message", address=alice.jid, text=wrong)
            assert refused.value.field == "text"
        with pytest.raises(CommandError, match="subject"):
            await call(world, "session message", address=alice.jid, text="hi", subject="\x01")
        await alice.ask("set", f"<block xmlns='{ns.BLOCKING}'><item jid='localhost'/></block>")
        await alice.receive_all()
        await world.settle()
        await alice.expect_nothing()
        [row] = await call(world, "session message", address=alice.jid, text="hi")
        await world.settle()
        await alice.expect(said("hi", row["id"], alice.jid))  # nobody bars his own server


async def test_a_scan_of_very_many_sessions_lets_others_work() -> None:
    async with World(nodes=1) as world:
        sessions = world.app.sessions
        for number in range(20_000):
            sessions.add(Login(f"u{number}@localhost", None, peer="192.0.2.1"), "r", NOWHERE, "")
        turns = 0
        looking = asyncio.ensure_future(call(world, "session list", address="198.51.100.0/24", client="x"))
        while not looking.done():
            await asyncio.sleep(0)
            turns += 1
        assert (await looking)["rows"] == []
        assert turns > 20, turns

        looking = asyncio.ensure_future(call(world, "session list", client="r", most=10_000))
        await asyncio.sleep(0)
        for full in [*sessions.by_full][5_000:]:
            sessions.remove(sessions.by_full[full])
        assert 0 < len((await looking)["rows"]) <= 5_000


async def test_pages_have_each_session_once_while_others_come_and_go() -> None:
    async with World(nodes=1) as world:
        sessions = world.app.sessions

        def add(number: int) -> None:
            login = Login(f"u{number * 7919 % 10_000:05d}@localhost", None, peer="192.0.2.1")
            sessions.add(login, "r", NOWHERE, "")

        for number in range(1_000):
            add(number)
        stay = {*sessions.by_full}
        found: list[str] = []
        token: str | None = ""
        for number in itertools.count(1_000):
            page = await call(world, "session list", most=97, after=token)
            assert len(page["rows"]) <= 97 and page["counts"] == {"sessions": len(page["rows"])}
            found += [row["session"] for row in page["rows"]]
            token = page["after"]
            if token is None:
                break
            add(number)
            gone = max(stay)
            stay.discard(gone)
            sessions.remove(sessions.by_full[gone])
        assert len(found) == len({*found}) and stay <= {*found}
        assert found == sorted(found)


async def test_tokens_that_are_none() -> None:
    async with World(nodes=1) as world:
        await world.login("alice", "r with a space")
        for wrong in ("?", "YQ==", "gA=="):
            with pytest.raises(CommandError, match="this is not a token"):
                await call(world, "session list", after=wrong)
        await world.login("bob", "r")
        page = await call(world, "session list", most=1)
        assert [row["session"] for row in page["rows"]] == ["alice@localhost/r with a space"]
        page = await call(world, "session list", most=1, after=page["after"])
        assert [row["session"] for row in page["rows"]] == ["bob@localhost/r"] and page["after"] is None
