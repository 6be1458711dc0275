"""What was said, and tokens in place of others, in the words of another dialect."""

from xml.etree.ElementTree import Element

import pytest
from gametokens import minted
from riotdialect import asked, player, world_of

from xmppd.testing import START, Client, World, refusal

BASE = "jabber:iq:riotgames:archive"
FIRST, SECOND = "2023-11-14 22:13:20.000", "2023-11-14 22:13:30.000"
CHAT = {"type": "chat", "from": "bob@localhost/RC-1234", "to": "alice@localhost"}


async def say(client: Client, to: str, id: str) -> None:
    await client.send(f"<message to='{to}' type='chat' id='{id}'><body>{id} said</body></message>")


async def talked(world: World) -> tuple[Client, Client]:
    """Alice, to whom bob has said one thing, and ten seconds later another one."""
    alice, bob = await player(world, "alice"), await player(world, "bob")
    await say(bob, alice.bare, "1:1")
    await world.advance(10)
    await say(bob, alice.bare, "1:2")
    await world.advance(10)
    await alice.receive_all()
    return alice, bob


async def talk(client: Client, peer: str = "bob@localhost") -> list[Element]:
    answer = await asked(client, "get", f"<query xmlns='{BASE}'><with>{peer}</with></query>")
    assert answer.get("type") == "result"
    return list(answer)


async def listed(client: Client, more: str = "") -> list[Element]:
    answer = await asked(client, "get", f"<query xmlns='{BASE}:list'>{more}</query>")
    assert answer[0].tag == f"{{{BASE}:list}}query"
    return list(answer[0])


async def read(client: Client, until: str, peer: str = "bob@localhost") -> Element:
    payload = f"<query xmlns='{BASE}:read'><acknowledge with='{peer}' read='{until}'/></query>"
    return await asked(client, "set", payload)


@pytest.mark.asyncio
async def test_the_messages_of_a_conversation_stand_in_the_result_itself() -> None:
    async with world_of("archive") as world:
        alice, _ = await talked(world)
        first, second = await talk(alice)
        assert dict(first.attrib) == {**CHAT, "id": "1:1", "stamp": FIRST}
        assert dict(second.attrib) == {**CHAT, "id": "1:2", "stamp": SECOND}
        assert [it.text for it in second] == ["1:2 said"]
        assert await talk(alice, "carol@localhost") == []


@pytest.mark.asyncio
async def test_only_the_last_messages_are_shown() -> None:
    async with world_of("archive", archive_messages=1) as world:
        alice, _ = await talked(world)
        assert [it.get("id") for it in await talk(alice)] == ["1:2"]


@pytest.mark.asyncio
async def test_long_messages_are_fewer() -> None:
    async with world_of("archive") as world:
        alice, bob = await player(world, "alice"), await player(world, "bob")
        for number in range(4):
            body = f"<body>{'x' * 40_000}</body>"
            await bob.send(f"<message to='{alice.bare}' type='chat' id='3:{number}'>{body}</message>")
        await world.advance(10)
        assert [it.get("id") for it in await talk(alice)] == ["3:1", "3:2", "3:3"]


@pytest.mark.asyncio
async def test_conversations_are_listed_the_newest_first() -> None:
    async with world_of("archive") as world:
        alice, _ = await talked(world)
        carol = await player(world, "carol")
        await say(carol, alice.bare, "2:1")
        await world.advance(10)
        await alice.receive_all()
        one, two = await listed(alice)
        assert [it.get("with") for it in (one, two)] == ["carol@localhost", "bob@localhost"]
        assert (two.get("last"), two[0].get("id"), len(two)) == (SECOND, "1:2", 1)
        assert [it.get("with") for it in await listed(alice, "<count>1</count>")] == ["carol@localhost"]
        since = "<since>2023-11-14 22:13:35.000</since>"
        assert [it.get("with") for it in await listed(alice, since)] == ["carol@localhost"]


@pytest.mark.asyncio
@pytest.mark.parametrize("until", [FIRST, "2023-11-14 22:13:29.999", f"{int(START * 1000)}"])
async def test_what_was_read_is_known_and_goes_forward_only(until: str) -> None:
    async with world_of("archive") as world:
        alice, _ = await talked(world)
        assert (await read(alice, until)).get("type") == "result"
        *_, reader = await talk(alice)
        assert dict(reader.attrib) == {"jid": "alice@localhost", "read": FIRST}
        await read(alice, "2031-01-01 00:00:00.000")
        assert (await talk(alice))[-1].get("read") == SECOND
        await read(alice, until)
        ((_, reader),) = await listed(alice)
        assert (reader.tag, reader.get("read")) == (f"{{{BASE}:list}}reader", SECOND)


@pytest.mark.asyncio
async def test_what_is_of_before_all_messages_reads_none() -> None:
    async with world_of("archive") as world:
        alice, _ = await talked(world)
        assert (await read(alice, "2001-01-01 00:00:00.000")).get("type") == "result"
        assert [it.get("id") for it in await talk(alice)] == ["1:1", "1:2"]


@pytest.mark.asyncio
async def test_what_is_asked_wrongly() -> None:
    async with world_of("archive") as world:
        alice = await player(world, "alice")

        async def refused(kind: str, what: str, content: str) -> str:
            return refusal(await asked(alice, kind, f"<query xmlns='{BASE}{what}'>{content}</query>"))

        assert await refused("get", "", "") == "modify bad-request"
        assert await refused("get", "", "<with>@</with>") == "modify jid-malformed"
        assert await refused("get", ":list", "<count>0</count>") == "modify bad-request"
        assert await refused("get", ":list", "<count>-1</count>") == "modify bad-request"
        assert await refused("get", ":list", "<since>now</since>") == "modify bad-request"
        assert await refused("set", ":read", "") == "modify bad-request"
        for when in ("", "now", "2023-99-14 22:13:20.000", "9" * 15):
            assert refusal(await read(alice, when)) == "modify bad-request", when
        assert refusal(await read(alice, FIRST, "@")) == "modify jid-malformed"


@pytest.mark.asyncio
async def test_without_an_archive_there_is_nothing_to_be_asked() -> None:
    async with world_of() as world:
        alice = await player(world, "alice")
        answer = await asked(alice, "get", f"<query xmlns='{BASE}:list'/>")
        assert refusal(answer) == "cancel service-unavailable"


# tokens


def refresh(token: str) -> str:
    return f"<query xmlns='jabber:iq:riotgames:rso'><access-token>{token}</access-token></query>"


@pytest.mark.asyncio
async def test_another_token_lets_the_session_go_on() -> None:
    async with world_of("archive") as world:
        alice = await player(world, "alice")
        token = minted("alice", exp=START + 9000)
        assert (await asked(alice, "set", refresh(token))).get("type") == "result"
        assert alice.session.expires == START + 9000
        assert refusal(await asked(alice, "set", refresh(minted("bob")))) == "auth not-authorized"
        nothing = "<query xmlns='jabber:iq:riotgames:rso'/>"
        assert refusal(await asked(alice, "set", nothing)) == "modify bad-request"
        assert alice.session.expires == START + 9000
