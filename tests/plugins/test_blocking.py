"""The blocking command (XEP-0191), and reports of abuse that come with it (XEP-0377)."""

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from xmppd import ns
from xmppd.errors import CommandError
from xmppd.testing import Client, World, refusal

ALICE, BOB = "alice@localhost", "bob@localhost"
GET = f"<blocklist xmlns='{ns.BLOCKING}'/>"
SPAM = "urn:xmpp:reporting:spam"


def items(*addresses: str) -> str:
    return "".join(f"<item jid='{address}'/>" for address in addresses)


def blocking(name: str, *addresses: str) -> str:
    return f"<{name} xmlns='{ns.BLOCKING}'>{items(*addresses)}</{name}>"


def reporting(content: str = "", reason: str = SPAM, address: str = BOB) -> str:
    report = f"<report xmlns='{ns.REPORTING}' reason='{reason}'>{content}</report>"
    return f"<block xmlns='{ns.BLOCKING}'><item jid='{address}'>{report}</item></block>"


async def change(client: Client, payload: str) -> Element:
    """The answer to a change; pushes that come before it are forgotten."""
    await client.send(f"<iq type='set' id='change'>{payload}</iq>")
    found = [tree for tree in await client.receive_all() if tree.get("id") == "change"]
    assert len(found) == 1
    return found[0]


async def listed(client: Client) -> list[str | None]:
    answer = await client.ask("get", GET)
    assert answer.get("type") == "result"
    assert answer[0].tag == f"{{{ns.BLOCKING}}}blocklist"
    return [item.get("jid") for item in answer[0]]


@pytest.mark.asyncio
async def test_the_server_says_that_it_can() -> None:
    async with World(plugins=("blocking", "disco")) as world:
        alice = await world.login("alice")
        answer = await alice.ask("get", f"<query xmlns='{ns.DISCO_INFO}'/>", to="localhost")
        features = {tree.get("var") for tree in answer[0]}
        assert {ns.BLOCKING, ns.REPORTING} <= features


@pytest.mark.asyncio
async def test_a_list_is_changed_and_read() -> None:
    async with World(plugins=("blocking",)) as world:
        alice = await world.login("alice")
        assert await listed(alice) == []
        answer = await change(alice, blocking("block", "BOB@localhost/X", "evil.example"))
        assert (answer.get("type"), len(answer)) == ("result", 0)
        assert await listed(alice) == ["bob@localhost/X", "evil.example"], "in normal form"
        await change(alice, blocking("unblock", "evil.example", "nobody@localhost"))
        assert await listed(alice) == ["bob@localhost/X"]
        await change(alice, blocking("block", "a@b", "c"))
        await change(alice, blocking("unblock"))
        assert await listed(alice) == []


@pytest.mark.asyncio
async def test_every_client_that_asked_for_the_list_is_told_of_changes() -> None:
    async with World(plugins=("blocking",)) as world:
        alice, second, ignorant = [await world.login("alice", name) for name in ("one", "two", "three")]
        for client in (alice, second):
            await client.receive_all()
            await listed(client)
        for client in world.clients:
            await client.receive_all()
        for payload in (
            blocking("block", "x@example", "y"),
            blocking("block", "y"),
            blocking("unblock", "y"),
            blocking("unblock"),
        ):
            await second.send(f"<iq type='set' id='change'>{payload}</iq>")
            push = f"<iq type='set' id='*' to='{{}}'>{payload}</iq>"
            await second.expect_each(push.format(second.jid), "<iq type='result' id='change' to='*'/>")
            await alice.expect(push.format(alice.jid))
            await ignorant.expect_nothing()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (blocking("block"), "modify bad-request"),
        (f"<block xmlns='{ns.BLOCKING}'><item/></block>", "modify jid-malformed"),
        (blocking("block", "@x"), "modify jid-malformed"),
        (blocking("unblock", "a@b@c"), "modify jid-malformed"),
        (blocking("block", BOB, "@x"), "modify jid-malformed"),
        (
            f"<block xmlns='{ns.BLOCKING}'><item jid='{BOB}'><report xmlns='{ns.REPORTING}'/></item></block>",
            "modify bad-request",
        ),
    ],
)
async def test_what_is_wrong_changes_nothing(payload: str, error: str) -> None:
    async with World(plugins=("blocking",)) as world:
        alice = await world.login("alice")
        await listed(alice)
        await alice.send(f"<iq type='set' id='change'>{payload}</iq>")
        [answer] = await alice.receive_all()
        assert refusal(answer) == error
        assert await listed(alice) == []


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["block", "unblock", "blocklist"])
async def test_the_list_of_another_account_is_not_to_be_had(name: str) -> None:
    async with World(plugins=("blocking",)) as world:
        alice = await world.login("alice")
        kind = "get" if name == "blocklist" else "set"
        answer = await alice.ask(kind, blocking(name, BOB), to=BOB)
        assert refusal(answer) == "cancel service-unavailable"


@pytest.mark.asyncio
@pytest.mark.parametrize("limits", [{"block_items": 2}, {"block_bytes": 16}])
async def test_a_list_is_bounded(limits: dict[str, int]) -> None:
    async with World(plugins=("blocking",), settings={"limits": limits}) as world:
        alice = await world.login("alice")
        assert (await change(alice, blocking("block", "a@b.exam", "c@b.exam"))).get("type") == "result"
        for _ in range(2):
            answer = await change(alice, blocking("block", "d@b.exam"))
            assert refusal(answer) == "wait resource-constraint"
        assert await listed(alice) == ["a@b.exam", "c@b.exam"]
        assert (await change(alice, blocking("unblock", "a@b.exam"))).get("type") == "result"
        assert (await change(alice, blocking("block", "d@b.exam"))).get("type") == "result"


@pytest.mark.asyncio
async def test_who_brought_too_many_may_still_take_some_away() -> None:
    async with World(plugins=("blocking",), settings={"limits": {"block_items": 2}}) as world:
        await world.app.blocking.replace(ALICE, ["a@b", "b@b", "c@b", "d@b"], is_bounded=False)
        alice = await world.login("alice")
        assert (await change(alice, blocking("unblock", "a@b"))).get("type") == "result"
        assert refusal(await change(alice, blocking("block", "e@b"))) == "wait resource-constraint"
        assert await listed(alice) == ["b@b", "c@b", "d@b"]


@pytest.mark.asyncio
async def test_an_anonymous_session_keeps_no_list() -> None:
    settings = {"auth": {"anonymous": True, "plain_without_tls": True, "iterations": 4096}}
    async with World(plugins=("blocking",), settings=settings) as world:
        guest = await world.guest()
        assert await listed(guest) == []
        assert refusal(await change(guest, blocking("block", BOB))) == "cancel not-allowed"
        assert await listed(guest) == []


# reports

HEAR = """
from xmppd import hooks
from xmppd.plugin import Plugin

class Hear(Plugin):
    async def start(self):
        self.heard = []

    @hooks.reported
    def hear(self, report):
        self.heard.append(report)
"""


def hearing(tmp_path: Path, nodes: int | None = None, **config: Any) -> World:
    (tmp_path / "hear.py").write_text(HEAR)
    plugins, configs = ("blocking", "hear"), {"blocking": config}
    return World(plugins=plugins, plugin_folders=(tmp_path,), plugin_config=configs, nodes=nodes)


def heard(world: World) -> list[Any]:
    return [report for hear in world.plugins("hear") for report in hear.heard]


async def kept(world: World, **asked: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = await world.app.commands.call("block reports", asked)
    return rows


@pytest.mark.asyncio
async def test_a_report_is_told_to_plugins_and_kept_for_operators(tmp_path: Path) -> None:
    async with hearing(tmp_path) as world:
        alice = await world.login("alice")
        content = (
            f"<stanza-id xmlns='{ns.STANZA_ID}' by='{BOB}' id='1'/>"
            f"<stanza-id xmlns='{ns.STANZA_ID}' by='{BOB}' id='2'/>"
            "<text xml:lang='en'> Never again. </text><text xml:lang='de'>Nie wieder.</text><third-party/>"
        )
        assert (await change(alice, reporting(content))).get("type") == "result"
        [report] = heard(world)
        assert (report.account, report.reported, report.reason) == (ALICE, BOB, SPAM)
        assert report.texts == (("en", "Never again."), ("de", "Nie wieder."))
        assert report.stanza_ids == ((BOB, "1"), (BOB, "2"))
        assert (report.to_origin, report.to_others) == (False, True)
        [row] = await kept(world)
        assert row.pop("time")
        assert row == {
            "account": ALICE,
            "reported": BOB,
            "reason": SPAM,
            "text": "Never again. / Nie wieder.",
            "stanzas": ["1", "2"],
            "forward": ["others"],
        }
        assert await listed(alice) == [BOB]


@pytest.mark.one_node("nodes that do not hear each other for a day are lost")
@pytest.mark.asyncio
async def test_reports_are_found_by_address_and_day(tmp_path: Path) -> None:
    async with hearing(tmp_path) as world:
        alice = await world.login("alice")
        for address in ("a@evil.example/x", "b@evil.example", "c@other.example"):
            await change(alice, reporting(address=address))
            world.clock.seconds += 86400
        for node in world.apps:
            node.timers.tick()

        async def found(**asked: Any) -> list[str]:
            return [row["reported"] for row in await kept(world, **asked)]

        assert await found() == ["c@other.example", "b@evil.example", "a@evil.example/x"]
        assert await found(days=2) == ["c@other.example"]
        assert await found(limit=2) == ["c@other.example", "b@evil.example"]
        assert await found(reported="evil.example") == ["b@evil.example", "a@evil.example/x"]
        assert await found(reported="a@evil.example") == ["a@evil.example/x"]
        for wrong in ({"days": 0}, {"days": 91}, {"limit": 0}):
            with pytest.raises(CommandError):
                await kept(world, **wrong)


@pytest.mark.one_node("nodes that do not hear each other for a day are lost")
@pytest.mark.asyncio
async def test_reports_are_bounded(tmp_path: Path) -> None:
    config = {"report_characters": 5, "report_stanzas": 1, "reports_of_account": 3, "reports_kept": 2}
    async with hearing(tmp_path, **config) as world:
        alice = await world.login("alice")
        content = "<text>abcd</text><text>efgh</text>"
        content += (
            f"<stanza-id xmlns='{ns.STANZA_ID}' by='b' id='1'/><stanza-id xmlns='{ns.STANZA_ID}' id='2'/>"
        )
        for _ in range(4):
            assert (await change(alice, reporting(content))).get("type") == "result"
        assert len(heard(world)) == 3, "of one account"
        assert heard(world)[0].texts == (("", "abcd"), ("", "e"))
        assert heard(world)[0].stanza_ids == (("b", "1"),)
        assert len(await kept(world)) == 2
        world.clock.seconds += 86400
        await change(alice, reporting(content))
        assert len(heard(world)) == 4, "another day"


@pytest.mark.asyncio
async def test_what_is_reported_on_one_node_counts_on_the_other(tmp_path: Path) -> None:
    config = {"reports_of_account": 3, "reports_kept": 4}
    async with hearing(tmp_path, nodes=2, **config) as world:
        alice = await world.login("alice"), await world.login("alice")
        bob = await world.login("bob"), await world.login("bob")
        assert alice[0].app is not alice[1].app
        for number in range(5):
            await change(alice[number % 2], reporting())
            await world.settle()
        assert len(await kept(world)) == 3, "of one account"
        for client in bob:
            await change(client, reporting())
            await world.settle()
        assert len(await kept(world)) == 4, "of all; what was refused is none of them"


@pytest.mark.asyncio
async def test_a_report_without_a_block_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "hear.py").write_text(HEAR)
    settings = {"limits": {"block_items": 1}}
    async with World(plugins=("blocking", "hear"), plugin_folders=(tmp_path,), settings=settings) as world:
        alice = await world.login("alice")
        await change(alice, blocking("block", "x@y"))
        assert refusal(await change(alice, reporting())) == "wait resource-constraint"
        assert heard(world) == []
        assert await kept(world) == []


# commands


@pytest.mark.asyncio
async def test_operators_see_and_change_lists() -> None:
    async with World(plugins=("blocking",)) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await listed(alice)
        call = world.app.commands.call
        who = {"account": ALICE, "address": BOB}
        assert await call("block add", who) == {"account": ALICE, "blocked": BOB}
        assert await call("block add", who) == {"account": ALICE, "unchanged": BOB}
        await alice.expect(f"<iq type='set' id='*' to='{alice.jid}'>{blocking('block', BOB)}</iq>")
        await bob.send(f"<message to='{ALICE}'><body>x</body></message>")
        assert refusal(await bob.receive()) == "cancel service-unavailable"
        [row] = await call("block list", {"account": ALICE})
        assert row["address"] == BOB
        assert row["since"]
        assert await call("block remove", who) == {"account": ALICE, "unblocked": BOB}
        await alice.expect(f"<iq type='set' id='*' to='{alice.jid}'>{blocking('unblock', BOB)}</iq>")
        with pytest.raises(CommandError, match="has not blocked"):
            await call("block remove", who)
        for name, more in (
            ("block list", {}),
            ("block add", {"address": BOB}),
            ("block remove", {"address": BOB}),
        ):
            with pytest.raises(CommandError):
                await call(name, {"account": "nobody@localhost", **more})
