"""The block list as a privacy list (XEP-0016)."""

from xml.etree.ElementTree import Element

import pytest

from xmppd import ns
from xmppd.testing import Client, World, refusal

ALICE, BOB = "alice@localhost", "bob@localhost"
QUERY = f"<query xmlns='{ns.PRIVACY}'>{{}}</query>"
WHOLE = "<message/><presence-in/><presence-out/><iq/>"


def server() -> World:
    return World(plugins=("blocking", "privacy", "disco"))


def deny(value: str, order: int = 1, content: str = "") -> str:
    return f"<item type='jid' value='{value}' action='deny' order='{order}'>{content}</item>"


def named(*items: str, name: str = "blocklist") -> str:
    return f"<list name='{name}'>{''.join(items)}</list>"


async def change(client: Client, content: str) -> Element:
    await client.send(f"<iq type='set' id='change'>{QUERY.format(content)}</iq>")
    [answer] = [tree for tree in await client.receive_all() if tree.get("id") == "change"]
    return answer


async def shown(client: Client, content: str = "") -> list[tuple[str, ...]]:
    await client.send(f"<iq type='get' id='shown'>{QUERY.format(content)}</iq>")
    [answer] = [tree for tree in await client.receive_all() if tree.get("id") == "shown"]
    if answer.get("type") == "error":
        return [(refusal(answer),)]
    if content:
        return [tuple(item.get(key, "") for key in ("type", "value", "action")) for item in answer[0][0]]
    return [(tree.tag.rpartition("}")[2], tree.get("name", "")) for tree in answer[0]]


@pytest.mark.asyncio
async def test_the_server_says_that_it_can() -> None:
    async with server() as world:
        alice = await world.login("alice")
        answer = await alice.ask("get", f"<query xmlns='{ns.DISCO_INFO}'/>", to="localhost")
        assert ns.PRIVACY in {tree.get("var") for tree in answer[0]}


@pytest.mark.asyncio
async def test_who_blocks_nobody_has_no_list() -> None:
    async with server() as world:
        alice = await world.login("alice")
        assert await shown(alice) == []
        assert await shown(alice, named()) == [("cancel item-not-found",)]
        for choice in ("active", "default"):
            assert (await change(alice, f"<{choice}/>")).get("type") == "result"
            assert refusal(await change(alice, f"<{choice} name='blocklist'/>")) == "cancel item-not-found"
        assert refusal(await change(alice, named())) == "cancel item-not-found"


@pytest.mark.asyncio
async def test_what_is_blocked_is_a_list_and_what_is_a_list_is_blocked() -> None:
    async with server() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.app.blocking.block(ALICE, [BOB])
        assert await shown(alice) == [("default", "blocklist"), ("list", "blocklist")]
        assert await shown(alice, named()) == [("jid", BOB, "deny")]
        new = named(deny("X@Example", 7, WHOLE), deny("evil.example", 3), "<item action='allow' order='9'/>")
        assert (await change(alice, new)).get("type") == "result"
        assert await world.app.blocking.of(ALICE) == ["evil.example", "x@example"]
        await bob.send(f"<message to='{ALICE}'><body>x</body></message>")
        assert (await alice.receive()).tag.endswith("message")
        assert (await change(alice, named(deny(BOB)))).get("type") == "result"
        await bob.send(f"<message to='{ALICE}'><body>x</body></message>")
        assert refusal(await bob.receive()) == "cancel service-unavailable"
        assert (await change(alice, named())).get("type") == "result"
        assert await shown(alice) == []


@pytest.mark.asyncio
async def test_the_list_may_be_made_active_and_is_the_default() -> None:
    async with server() as world:
        alice = await world.login("alice")
        await world.app.blocking.block(ALICE, [BOB])
        assert (await change(alice, "<default name='blocklist'/>")).get("type") == "result"
        assert (await change(alice, "<active name='blocklist'/>")).get("type") == "result"
        assert await shown(alice) == [
            ("active", "blocklist"),
            ("default", "blocklist"),
            ("list", "blocklist"),
        ]
        answer = await alice.ask("get", QUERY.format("<active/>"))
        assert [tree.tag.rpartition("}")[2] for tree in answer[0]] == ["active", "default", "list"]
        assert (await change(alice, "<active/>")).get("type") == "result"
        assert await shown(alice) == [("default", "blocklist"), ("list", "blocklist")]
        assert refusal(await change(alice, "<default/>")) == "cancel feature-not-implemented"
        for choice in ("active", "default"):
            assert refusal(await change(alice, f"<{choice} name='x'/>")) == "cancel item-not-found"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("content", "error"),
    [
        (named(deny(BOB, 1, "<message/>")), "cancel feature-not-implemented"),
        (
            named(f"<item type='jid' value='{BOB}' action='allow' order='1'/>"),
            "cancel feature-not-implemented",
        ),
        (named("<item type='group' value='g' action='deny' order='1'/>"), "cancel feature-not-implemented"),
        (
            named("<item type='subscription' value='none' action='deny' order='1'/>"),
            "cancel feature-not-implemented",
        ),
        (named("<item action='deny' order='1'/>"), "cancel feature-not-implemented"),
        (named("<item action='allow' order='1'/>", deny(BOB, 2)), "cancel feature-not-implemented"),
        (named("<item action='allow' order='1'><iq/></item>"), "cancel feature-not-implemented"),
        (named(deny(BOB), name="mine"), "cancel feature-not-implemented"),
        (named(name="mine"), "cancel item-not-found"),
        (named(deny(BOB), deny("c@d")), "modify bad-request"),
        (named(f"<item type='jid' value='{BOB}' action='deny'/>"), "modify bad-request"),
        (named(f"<item type='jid' value='{BOB}' action='deny' order='4294967296'/>"), "modify bad-request"),
        (named(f"<item type='jid' value='{BOB}' action='no' order='1'/>"), "modify bad-request"),
        (named(deny("@")), "modify jid-malformed"),
        (named(deny(BOB)) + named(deny(BOB)), "modify bad-request"),
        ("<active/><default/>", "modify bad-request"),
        ("", "modify bad-request"),
        ("<other/>", "modify bad-request"),
    ],
)
async def test_what_says_anything_else_is_refused(content: str, error: str) -> None:
    async with server() as world:
        alice = await world.login("alice")
        await world.app.blocking.block(ALICE, ["x@y"])
        assert refusal(await change(alice, content)) == error
        assert await world.app.blocking.of(ALICE) == ["x@y"]


@pytest.mark.asyncio
async def test_one_list_is_asked_for_at_a_time() -> None:
    async with server() as world:
        alice = await world.login("alice")
        assert await shown(alice, named() + named()) == [("modify bad-request",)]
        assert await shown(alice, "<other/>") == [("modify bad-request",)]


@pytest.mark.asyncio
async def test_a_list_that_applies_to_another_client_is_not_removed() -> None:
    async with server() as world:
        alice, second = await world.login("alice"), await world.login("alice")
        await world.app.blocking.block(ALICE, [BOB])
        assert refusal(await change(alice, named())) == "cancel conflict"
        await second.drop()
        assert (await change(alice, named())).get("type") == "result"
        assert await world.app.blocking.of(ALICE) == []


@pytest.mark.asyncio
async def test_clients_that_use_lists_are_told_of_every_change() -> None:
    async with server() as world:
        old, modern, ignorant = [await world.login("alice", name) for name in ("one", "two", "three")]
        await shown(old)
        await modern.ask("get", f"<blocklist xmlns='{ns.BLOCKING}'/>")
        for client in world.clients:
            await client.receive_all()
        await modern.send(
            f"<iq type='set' id='b'><block xmlns='{ns.BLOCKING}'><item jid='{BOB}'/></block></iq>"
        )
        push = f"<iq type='set' id='*' to='{old.jid}'>{QUERY.format(named())}</iq>"
        await old.expect(push)
        await modern.receive_all()
        await old.send(f"<iq type='set' id='c'>{QUERY.format(named(deny('x@y')))}</iq>")
        await old.expect_each(push, f"<iq type='result' id='c' to='{old.jid}'/>")
        await modern.expect(
            f"<iq type='set' id='*' to='*'><block xmlns='{ns.BLOCKING}'><item jid='x@y'/></block></iq>"
        )
        await modern.expect(
            f"<iq type='set' id='*' to='*'><unblock xmlns='{ns.BLOCKING}'><item jid='{BOB}'/></unblock></iq>"
        )
        await ignorant.expect_nothing()


@pytest.mark.asyncio
async def test_a_list_is_bounded() -> None:
    async with World(plugins=("privacy",), settings={"limits": {"block_items": 1}}) as world:
        alice = await world.login("alice")
        assert refusal(await change(alice, named(deny("a@b"), deny("c@d", 2)))) == "wait resource-constraint"
        assert (await change(alice, named(deny("a@b")))).get("type") == "result"
