"""Plugin moderation: what becomes of what clients say, by lists, expressions, others who are asked, and
rates.
"""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from xmppd import ns
from xmppd.errors import CommandError
from xmppd.parts.http import HttpAnswer, HttpFailed
from xmppd.testing import Client, World, refusal

NS = "urn:xmppd:moderation:0"
LIST = "darn\n[refuse]\nkill yourself\n[shadow]\ncheap gold\n[flag]\nbomb\n"
BODY = f"{{{ns.CLIENT}}}body"


def world(
    folder: Path,
    plugins: tuple[str, ...] = (),
    others: Mapping[str, Any] = MappingProxyType({}),
    nodes: int | None = None,
    **config: Any,
) -> World:
    lists = folder / "words"
    lists.mkdir(exist_ok=True)
    (lists / "en.txt").write_text(LIST)
    settings = {"words": str(lists), **config}
    configured = {"moderation": settings, **others}
    return World(plugins=("disco", *plugins, "moderation"), plugin_config=configured, nodes=nodes)


async def say(
    client: Client, text: str, to: str = "bob@localhost", more: str = "", kind: str = "chat"
) -> None:
    await client.send(f"<message to='{to}' type='{kind}' id='m1'><body>{text}</body>{more}</message>")


async def bodies(client: Client) -> list[str]:
    return [one.findtext(BODY) or "" for one in await client.receive_all() if one.find(BODY) is not None]


async def call(world: World, name: str, **arguments: Any) -> Any:
    result = await world.app.commands.call(f"moderation {name}", arguments)
    await world.settle()
    return result


def detail(answer: Element) -> Element:
    [found] = [part for part in answer.iter() if part.tag.startswith(f"{{{NS}}}")]
    return found


# actions


@pytest.mark.asyncio
async def test_a_message_is_masked_refused_flagged_or_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        alice, bob = await it.login("alice"), await it.login("bob")
        await bob.receive_all()
        await say(alice, "what the d&#x430;rn thing", more="<x xmlns='y'><t>DARN</t></x>")
        [got] = await bob.receive_all()
        assert got.findtext(BODY) == "what the **** thing"
        assert got.findtext("{y}x/{y}t") == "****"
        await say(alice, "k1ll yourself!")
        await alice.receive_all()
        await say(alice, "kill  YOURSELF")
        answer = await alice.receive()
        assert refusal(answer) == "modify policy-violation"
        assert detail(answer).tag == f"{{{NS}}}filtered"
        await say(alice, "a bomb")
        await say(alice, "fine")
        assert await bodies(bob) == ["a bomb", "fine"]
        await alice.expect_nothing()
        assert [one["kind"] for one in await call(it, "cases")] == ["flag"]
        await say(alice, "darn", to="alice@localhost")
        assert await bodies(alice) == ["darn"]  # he talks to himself


@pytest.mark.asyncio
async def test_what_nobody_hears_looks_as_if_it_was_sent(tmp_path: Path) -> None:
    async with world(tmp_path, ("archive", "carbons", "offline")) as it:
        alice, other, bob = await it.login("alice"), await it.login("alice"), await it.login("bob")
        await it.befriend(alice, bob)
        await other.ask("set", f"<enable xmlns='{ns.CARBONS}'/>")
        await say(bob, "hello", to="alice@localhost", more=f"<received xmlns='{ns.RECEIPTS}' id='x'/>")
        for client in (alice, other, bob):
            await client.receive_all()
        await say(alice, "ch3ap g0ld here", more=f"<request xmlns='{ns.RECEIPTS}'/>")
        [receipt] = await alice.receive_all()
        assert receipt.get("from") == bob.jid
        assert receipt.find(f"{{{ns.RECEIPTS}}}received").get("id") == "m1"  # type: ignore[union-attr]
        assert len(await other.receive_all()) == 1
        await bob.expect_nothing()
        await say(alice, "ch3ap g0ld", to="carol@localhost", more=f"<request xmlns='{ns.RECEIPTS}'/>")
        await alice.expect_nothing()
        for client, count in ((alice, 3), (bob, 1)):
            await client.send(f"<iq type='set' id='q'><query xmlns='{ns.MAM}'/></iq>")
            assert sum(one.tag.endswith("message") for one in await client.receive_all()) == count


@pytest.mark.asyncio
async def test_status_and_vcard_are_held_against_the_lists(tmp_path: Path) -> None:
    async with world(tmp_path, ("vcard",)) as it:
        alice, bob = await it.login("alice"), await it.login("bob")
        await it.befriend(alice, bob)
        for said, seen in (
            ("darn it", "**** it"),
            ("kill yourself", None),
            ("cheap gold", None),
            ("fine", "fine"),
        ):
            await bob.receive_all()
            nick = f"<nick xmlns='{ns.NICK}'>{said}</nick>"
            await alice.send(f"<presence><show>away</show><status>{said}</status>{nick}</presence>")
            [got] = await bob.receive_all()
            assert got.findtext(f"{{{ns.CLIENT}}}status") == seen
            assert got.findtext(f"{{{ns.NICK}}}nick") == seen
            assert got.findtext(f"{{{ns.CLIENT}}}show") == "away"
        await alice.receive_all()
        card = "<vCard xmlns='vcard-temp'><NICKNAME>{}</NICKNAME></vCard>"
        assert refusal(await alice.ask("set", card.format("Darn"))) == "modify policy-violation"
        assert (await alice.ask("set", card.format("Ann"))).get("type") == "result"


@pytest.mark.asyncio
async def test_lists_are_read_again_on_all_nodes_or_stay_as_they_are(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        alice, bob = await it.login("alice"), await it.login("bob")
        await bob.receive_all()
        assert (await call(it, "test", text="DARN"))["action"] == "mask"
        file = tmp_path / "words" / "en.txt"
        file.write_text("[burn]\nx\n")
        with pytest.raises(CommandError, match=r"en\.txt:1"):
            await call(it, "reload")
        assert (await call(it, "test", text="DARN"))["action"] == "mask"
        file.write_text("drat\n")
        assert await call(it, "reload") == {"words": 1, "patterns": 0}
        while any(plugin.chain.words.count != 1 for plugin in it.plugins("moderation")):
            await asyncio.sleep(0.01)  # files are read in a thread
            await it.settle()
        for client, other in ((alice, bob), (bob, alice)):
            await other.receive_all()
            await say(client, "darn drat", to=other.bare)
            assert await bodies(other) == ["darn ****"]


@pytest.mark.asyncio
async def test_lists_that_mean_nothing_refuse_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    file = tmp_path / "patterns"
    file.write_text("(")
    with pytest.raises(CommandError, match=r"patterns:1"):
        async with world(tmp_path, patterns=str(file)):
            pass


@pytest.mark.asyncio
async def test_texts_of_rich_presence_are_judged(tmp_path: Path) -> None:
    games = {"chess": {"name": "Chess", "says": {"properties": {"mode": {"type": "string"}}}}}
    async with world(tmp_path, ("rich_presence",), {"rich_presence": {"games": games}}) as it:
        alice = await it.login("alice")
        await alice.receive_all()
        for said, kind in (("d\\u0061rn", "error"), ("blitz", "result"), ("Darn", "error")):
            state = "{&quot;mode&quot;: &quot;" + said + "&quot;}"
            game = f"<game xmlns='urn:xmppd:rich-presence:0' id='chess'><state>{state}</state></game>"
            await alice.send(f"<iq type='set' id='g'>{game}</iq>")
            answers = [one for one in await alice.receive_all() if one.tag.endswith("iq")]
            assert [one.get("type") for one in answers] == [kind]


# who else is asked


class Service:
    """In the place of the client that asks by HTTP."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.answer: bytes | Exception = b'{"action": "pass"}'
        self.status = 200

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        self.asked.append(json.loads(body))
        await asyncio.sleep(0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return HttpAnswer(self.status, {}, self.answer)

    def check(self, url: str) -> None: ...

    async def close(self) -> None: ...


@pytest.mark.asyncio
@pytest.mark.parametrize("failing", ["pass", "refuse"])
async def test_a_service_is_asked_in_time_or_not(tmp_path: Path, failing: str) -> None:
    verdict = {"url": "https://verdict.example/", "failing": failing, "open_after": 2, "pause": 10.0}
    async with world(tmp_path, verdict=verdict) as it:
        service = Service()
        for plugin in it.plugins("moderation"):
            plugin._judge._client = service
        alice, bob = await it.login("alice"), await it.login("bob")
        await bob.receive_all()
        await say(alice, "one")
        service.answer = b'{"action": "mask", "text": "t** darn"}'
        await say(alice, "two darn")
        service.answer = b'{"action": "refuse"}'
        await say(alice, "three")
        await say(alice, "kill yourself")  # needs no other opinion
        assert await bodies(bob) == ["one", "t** ****"]
        assert [refusal(one) for one in await alice.receive_all() if one.get("type") == "error"] == [
            "modify policy-violation"
        ] * 2
        assert [one["text"] for one in service.asked] == ["one", "two darn", "three"]
        assert service.asked[0] == {
            "account": "alice@localhost",
            "where": "message",
            "text": "one",
            "lang": "",
        }
        failures: list[bytes | Exception] = [b"[", b'{"action": "burn"}', HttpFailed("no answer")]
        for number, answer in enumerate(failures):
            service.answer = answer
            await say(alice, f"fails {number}")
        assert len(service.asked) == 5  # after two failures nobody is asked
        assert len(await bodies(bob)) == (3 if failing == "pass" else 0)
        await it.advance(11)
        service.answer = b'{"action": "pass"}'
        await say(alice, "again")
        assert await bodies(bob) == ["again"]


# rates


@pytest.mark.asyncio
async def test_who_writes_too_often_is_told_how_long_to_wait(tmp_path: Path) -> None:
    rates = {"message": {"burst": 3, "per_second": 0.25}}
    async with world(tmp_path, rates=rates) as it:
        alice, bob = await it.login("alice"), await it.login("bob")
        await alice.receive_all()
        for _ in range(3):
            await say(alice, "hi")
        await alice.expect_nothing()
        await say(alice, "hi")
        answer = await alice.receive()
        assert refusal(answer) == "wait policy-violation"
        assert detail(answer).tag == f"{{{NS}}}retry"
        assert detail(answer).get("seconds") == "4"
        await it.advance(4)
        await say(alice, "hi")
        await alice.expect_nothing()
        assert len(await bodies(bob)) == 4


@pytest.mark.asyncio
async def test_requests_and_iqs_have_their_rates(tmp_path: Path) -> None:
    rates = {"request": {"burst": 1, "per_second": 0.01}, "iq": {"burst": 2, "per_second": 0.01}}
    async with world(tmp_path, rates=rates) as it:
        alice = await it.login("alice")
        await alice.receive_all()
        await alice.send("<presence to='bob@localhost' type='subscribe'/>")
        await alice.send("<presence to='carol@localhost' type='subscribe'/>")
        assert [refusal(one) for one in await alice.receive_all() if one.get("type") == "error"] == [
            "wait policy-violation"
        ]
        answers = [
            await alice.ask("get", f"<query xmlns='{ns.DISCO_INFO}'/>", to="localhost") for _ in range(3)
        ]
        assert [one.get("type") for one in answers].count("error") >= 1
        plugin = it.plugin("moderation")
        waits = [await plugin.take("zoe@localhost", "invite", "") for _ in range(21)]
        assert waits[:20] == [0.0] * 20
        assert waits[20] > 0


@pytest.mark.asyncio
async def test_what_is_taken_on_one_node_counts_on_the_other(tmp_path: Path) -> None:
    rates = {"message": {"burst": 4, "per_second": 0.01}}
    async with world(tmp_path, nodes=2, rates=rates) as it:
        one, two = await it.login("alice"), await it.login("alice")
        assert one.app is not two.app
        for _ in range(4):
            await say(one, "hi")
        await it.advance(1)
        for client in (one, two):
            await client.receive_all()
            await say(client, "hi")
            assert refusal(await client.receive()) == "wait policy-violation"


@pytest.mark.asyncio
async def test_what_is_flagged_on_one_node_counts_on_the_other(tmp_path: Path) -> None:
    async with world(tmp_path, nodes=2, flags_of_account=3) as it:
        one, two = await it.login("alice"), await it.login("alice")
        assert one.app is not two.app
        for number in range(6):
            await say((one, two)[number % 2], f"bomb {number}")
            await it.settle()
        assert len(await call(it, "cases")) == 3


# what others ask


@pytest.mark.asyncio
async def test_other_plugins_have_texts_judged(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        plugin = it.plugin("moderation")
        assert tuple(await plugin.judge("bob@localhost", "name", "Darn")) == ("mask", "****", "words en")
        assert (await plugin.judge("bob@localhost", "status", "fine")).action == "pass"
        assert not plugin.is_sanctioned("bob@localhost", "mute")
        await call(it, "sanction", account="bob@localhost", kind="mute")
        assert tuple(await plugin.judge("bob@localhost", "name", "fine")) == ("refuse", "fine", "muted")
        assert await plugin.has_sanction("bob@localhost", "mute")
        bob = await it.login("bob")
        [here] = [one for one in it.plugins("moderation") if one.server.sessions(bob.bare)]
        assert here.is_sanctioned("bob@localhost", "mute")
