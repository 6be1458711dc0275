"""What clients and the back end say of games, and who is shown it."""

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import jwt
import pytest
from managing import enable, resume
from several import several

from xmppd import ns
from xmppd.admin.commands import CommandError
from xmppd.testing import Client, World, refusal

NS = "urn:xmppd:rich-presence:0"
CHESS = {
    "name": "Chess",
    "uri": "https://chess.example",
    "status": "Playing {mode}",
    "show": "dnd",
    "says": {
        "type": "object",
        "properties": {
            "mode": {"type": "string", "enum": ["blitz", "rapid"]},
            "board": {"type": "object", "properties": {"size": {"type": "integer", "maximum": 19}}},
            "elo": {"type": "integer", "minimum": 0, "by": "server"},
        },
        "required": ["mode"],
    },
    "bytes": 200,
}
GO = {"says": {"properties": {"rank": {"type": "string", "maxLength": 4}}}, "join": ["party", "nobody"]}
CONFIG: dict[str, Any] = {"games": {"chess": CHESS, "go": GO}, "window": 2.0, "key": "k" * 32}


def world_of(*plugins: str, **settings: Any) -> World:
    return World(plugins=("rich_presence", *plugins), plugin_config={"rich_presence": {**CONFIG, **settings}})


def said(id: str, state: str = "", join: str = "") -> str:
    content = f"<state>{state}</state>" if state else ""
    return f"<game xmlns='{NS}' id='{id}'>{content}{join}</game>"


async def ask(client: Client, kind: str, payload: str, to: str = "") -> Element:
    """The answer to an iq, among what else comes: its sender sees its own presence."""
    address = f" to='{to}'" if to else ""
    await client.send(f"<iq type='{kind}' id='asked'{address}>{payload}</iq>")
    [answer] = [it for it in await client.receive_all() if it.get("id") == "asked"]
    return answer


async def say(client: Client, id: str, state: str = "", join: str = "") -> Element:
    return await ask(client, "set", said(id, state, join))


async def shown(client: Client) -> list[dict[str, str]]:
    """The presences that came: what each says, by game, and "type" and "show"."""
    found = []
    for it in await client.receive_all():
        if it.tag.endswith("}presence"):
            about = {"type": it.get("type", ""), "show": it.findtext(f"{{{ns.CLIENT}}}show") or ""}
            about["status"] = it.findtext(f"{{{ns.CLIENT}}}status") or ""
            for game in it.iterfind(f"{{{NS}}}games/{{{NS}}}game"):
                about[game.get("id", "")] = game.findtext(f"{{{NS}}}state") or ""
            found.append(about)
    return found


def mistake(answer: Element) -> str | None:
    """The path of what was wrong."""
    found = answer.find(f".//{{{NS}}}mistake")
    return None if found is None else found.get("path")


async def friends(world: World) -> tuple[Client, Client]:
    alice, bob = await world.login("alice"), await world.login("bob")
    await world.befriend(alice, bob)
    return alice, bob


@pytest.mark.asyncio
async def test_what_is_said_of_a_game_is_shown_to_friends() -> None:
    async with world_of() as world:
        alice, bob = await friends(world)
        await say(alice, "chess", '{"mode": "blitz"}')
        [presence] = [it for it in await bob.receive_all() if it.tag.endswith("}presence")]
        since = presence.find(f".//{{{NS}}}game").get("since")  # type: ignore[union-attr]
        assert presence.get("from") == alice.jid and since
        assert presence.findtext(f"{{{NS}}}games/{{{NS}}}game/{{{NS}}}state") == '{"mode":"blitz"}'
        assert presence.findtext("{urn:xmpp:gaming:0}game/{urn:xmpp:gaming:0}name") == "Chess"
        assert presence.findtext("{urn:xmpp:gaming:0}game/{urn:xmpp:gaming:0}uri") == "https://chess.example"
        assert presence.findtext(f"{{{ns.CLIENT}}}status") == "Playing blitz"
        assert presence.findtext(f"{{{ns.CLIENT}}}show") == "dnd"
        carol = await world.login("carol")
        assert await shown(carol) == []


@pytest.mark.asyncio
async def test_what_a_client_says_itself_stands_before_what_is_made_of_its_game() -> None:
    async with world_of() as world:
        alice, bob = await friends(world)
        await say(alice, "chess", '{"mode": "rapid"}')
        await bob.receive_all()
        await alice.send("<presence><show>xa</show><status>gone for tea</status></presence>")
        assert await shown(bob) == [
            {"type": "", "show": "xa", "status": "gone for tea", "chess": '{"mode":"rapid"}'}
        ]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("id", "state", "condition", "path"),
    [
        ("chess", '{"mode": "bullet"}', "modify not-acceptable", "/mode"),
        ("chess", '{"mode": 3}', "modify not-acceptable", "/mode"),
        ("chess", "{}", "modify not-acceptable", "/mode"),
        ("chess", '{"mode": "rapid", "board": {"size": 20}}', "modify not-acceptable", "/board/size"),
        ("chess", '{"mode": "rapid", "board": {"a/b~": 1}}', "modify not-acceptable", "/board/a~1b~0"),
        ("chess", '{"mode": "rapid", "elo": 3000}', "modify not-acceptable", "/elo"),
        ("chess", "[]", "modify not-acceptable", ""),
        ("chess", '{"mode": ', "modify not-acceptable", ""),
        ("chess", '{"mode": "rapid", "board": {"size": NaN}}', "modify not-acceptable", ""),
        ("chess", '{"mode": "rapid", "board": {"size": 1e999}}', "modify not-acceptable", ""),
        ("chess", f'{{"mode": "rapid", "x": "{"y" * 200}"}}', "modify not-acceptable", ""),
        ("chess", "[" * 190, "modify not-acceptable", ""),
        ("poker", "{}", "cancel item-not-found", None),
        ("", "{}", "cancel item-not-found", None),
    ],
)
async def test_what_may_not_be_said_is_refused_with_the_path_of_the_mistake(
    id: str, state: str, condition: str, path: str | None
) -> None:
    async with world_of() as world:
        alice, bob = await friends(world)
        answer = await say(alice, id, state.replace("<", "&lt;"))
        assert (refusal(answer), mistake(answer)) == (condition, path)
        assert await shown(bob) == []


@pytest.mark.asyncio
async def test_several_games_each_own_their_part() -> None:
    async with world_of() as world:
        alice, bob = await friends(world)
        await say(alice, "chess", '{"mode": "rapid"}')
        await say(alice, "go", '{"rank": "3d"}')
        await world.advance(3)
        assert (await shown(bob))[-1]["chess"] == '{"mode":"rapid"}'
        await say(alice, "go")
        await world.advance(3)
        last = (await shown(bob))[-1]
        assert "go" not in last and last["chess"] == '{"mode":"rapid"}'
        other = await world.login("alice", "phone")
        await say(other, "go", '{"rank": "1k"}')
        await world.advance(3)
        assert [it.get("go") for it in await shown(bob)][-1] == '{"rank":"1k"}'
        await other.send("<presence type='unavailable'/>")
        await say(alice, "chess", '{"mode": "blitz"}')
        await world.advance(3)
        assert [(it["type"], it.get("chess")) for it in await shown(bob)] == [
            ("unavailable", None),
            ("", '{"mode":"blitz"}'),
        ]


@pytest.mark.asyncio
async def test_of_a_burst_the_first_and_the_last_are_shown_and_nothing_twice() -> None:
    async with world_of() as world:
        alice, bob = await friends(world)
        for rank in ("1k", "2k", "3k", "3k", "4k"):
            assert (await say(alice, "go", f'{{"rank": "{rank}"}}')).get("type") == "result"
        assert [it.get("go") for it in await shown(bob)] == ['{"rank":"1k"}']
        await world.advance(1)
        assert await shown(bob) == []
        await world.advance(2)
        assert [it.get("go") for it in await shown(bob)] == ['{"rank":"4k"}']
        await say(alice, "go", '{"rank":   "4k"}')
        await world.advance(10)
        assert await shown(bob) == []
        await say(alice, "go", '{"rank": "5k"}')
        await say(alice, "go", '{"rank": "4k"}')
        await say(alice, "go", '{"rank": "5k"}')
        await world.advance(10)
        assert [it.get("go") for it in await shown(bob)] == ['{"rank":"5k"}']


@pytest.mark.asyncio
async def test_what_waits_is_in_the_next_presence_and_never_behind_the_last_words() -> None:
    async with world_of() as world:
        alice, bob = await friends(world)
        await say(alice, "go", '{"rank": "1k"}')
        await say(alice, "go", '{"rank": "2k"}')
        await bob.receive_all()
        await alice.send("<presence><show>away</show></presence>")
        assert [(it["show"], it["go"]) for it in await shown(bob)] == [("away", '{"rank":"2k"}')]
        await world.advance(5)
        assert await shown(bob) == []
        await say(alice, "go", '{"rank": "3k"}')
        await say(alice, "go", '{"rank": "4k"}')
        await bob.receive_all()
        await alice.send("<presence type='unavailable'><status>bye</status></presence>")
        await world.advance(5)
        assert [(it["type"], it["status"], it.get("go")) for it in await shown(bob)] == [
            ("unavailable", "bye", None)
        ]
        await alice.send("<presence/>")
        assert [it["go"] for it in await shown(bob)] == ['{"rank":"4k"}']


@pytest.mark.asyncio
async def test_nobody_forges_what_the_server_says() -> None:
    async with world_of() as world:
        alice, bob = await friends(world)
        for xmlns in (NS, NS.replace("rich", "&#114;ich")):
            for to in ("", " to='bob@localhost'"):
                await alice.send(
                    f"<presence{to}><x:games xmlns:x='{xmlns}'><x:game id='go'/></x:games></presence>"
                )
                assert refusal(await alice.receive()) == "cancel not-allowed"
        assert await shown(bob) == []


@pytest.mark.asyncio
async def test_changes_and_games_are_bounded() -> None:
    async with world_of(changes_per_minute=3, games_of_session=1) as world:
        alice = await world.login("alice")
        assert (await say(alice, "go", "{}")).get("type") == "result"
        assert refusal(await say(alice, "chess", '{"mode": "blitz"}')) == "wait resource-constraint"
        await say(alice, "go", "{}")
        answer = await say(alice, "go", "{}")
        assert refusal(answer) == "wait policy-violation"
        assert answer.find(".//{urn:xmppd:moderation:0}retry").get("seconds") == "20"  # type: ignore[union-attr]
        await world.advance(20)
        assert (await say(alice, "go", "{}")).get("type") == "result"


@pytest.mark.asyncio
async def test_the_back_end_says_what_clients_cannot_and_the_server_signs_it() -> None:
    async with world_of() as world:
        alice, bob = await friends(world)
        await say(alice, "chess", '{"mode": "rapid"}')
        await world.advance(3)
        await bob.receive_all()
        call = world.app.commands.call
        await call("game set", {"account": "alice@localhost", "game": "chess", "fields": '{"elo": 2100}'})
        await world.settle()
        [presence] = [it for it in await bob.receive_all() if it.tag.endswith("}presence")]
        sure = presence.find(f".//{{{NS}}}sure")
        assert sure is not None and '"fields":{"elo":2100}' in (sure.text or "")
        header, _, signature = sure.get("signature", "").partition("..")
        body = jwt.utils.base64url_encode((sure.text or "").encode()).decode()
        claims = jwt.decode(
            f"{header}.{body}.{signature}", "k" * 32, algorithms=["HS256"], options={"verify_iat": False}
        )
        assert (claims["sub"], claims["game"]) == ("alice@localhost", "chess")
        rows = await call("game show", {"account": "alice@localhost"})
        assert [(row["game"], row["client"], row["server"]) for row in rows] == [
            ("chess", {"mode": "rapid"}, {"elo": 2100})
        ]
        for fields, why in (('{"elo": -1}', "/elo"), ('{"mode": "rapid"}', "/mode"), ("no", "JSON")):
            with pytest.raises(CommandError, match=why):
                await call("game set", {"account": "alice@localhost", "game": "chess", "fields": fields})
        with pytest.raises(CommandError, match="no account"):
            await call("game set", {"account": "zoe@localhost", "game": "chess"})
        with pytest.raises(CommandError, match="no game"):
            await call("game set", {"account": "alice@localhost", "game": "poker"})


async def join(client: Client, whose: str, id: str) -> str | None:
    answer = await ask(client, "get", f"<join xmlns='{NS}' id='{id}'/>", to=whose)
    if answer.get("type") == "error":
        assert refusal(answer) == "cancel item-not-found", answer
        return None
    return answer[0].get("secret")


@pytest.mark.asyncio
async def test_a_join_secret_is_for_who_may_join() -> None:
    async with world_of() as world:
        alice, bob = await friends(world)
        carol = await world.login("carol")
        await say(alice, "chess", '{"mode": "rapid"}', "<join secret='s3cr3t'/>")
        raw = [it for it in await bob.receive_all() if it.tag.endswith("}presence")]
        assert [it.find(f".//{{{NS}}}join").attrib for it in raw] == [{"for": "friends"}]  # type: ignore[union-attr]
        assert await join(bob, "alice@localhost", "chess") == "s3cr3t"
        assert await join(carol, "alice@localhost", "chess") is None
        assert await join(bob, "alice@localhost", "go") is None
        assert await join(bob, "nobody@localhost", "chess") is None
        assert await join(alice, "alice@localhost", "chess") == "s3cr3t"
        await say(alice, "chess", '{"mode": "rapid"}', "<join secret='p4rty' for='party'/>")
        assert await join(bob, "alice@localhost", "chess") is None
        given = {"account": "alice@localhost", "game": "chess", "party": ["carol@localhost"]}
        await world.app.commands.call("game set", given)
        await world.settle()
        assert await join(carol, "alice@localhost", "chess") == "p4rty"
        await say(alice, "chess", '{"mode": "rapid"}', "<join secret='n0body' for='nobody'/>")
        assert await join(carol, "alice@localhost", "chess") is None
        assert (
            refusal(await say(alice, "go", "{}", "<join secret='x' for='friends'/>"))
            == "modify not-acceptable"
        )
        assert (
            refusal(await say(alice, "go", "{}", f"<join secret='{'x' * 600}'/>")) == "modify not-acceptable"
        )


LISTENER = """
from xmppd.plugin import Event, Plugin, listens


class Listener(Plugin):
    async def start(self):
        self.heard = []

    @listens("game.*", "invite.*")
    def hear(self, event: Event) -> None:
        self.heard.append((event.kind, event.account, dict(event.data)))
"""


@pytest.mark.asyncio
async def test_events_tell_who_enters_and_leaves_a_game_and_of_invites(tmp_path: Path) -> None:
    (tmp_path / "listener.py").write_text(LISTENER)
    async with World(
        plugins=("rich_presence", "invites", "listener"),
        plugin_folders=(tmp_path,),
        plugin_config={"rich_presence": CONFIG, "invites": {"senders": "anybody", "message": ""}},
    ) as world:
        alice = await world.login("alice", "pc")
        for id, state in (("go", "{}"), ("go", '{"rank": "1k"}'), ("chess", '{"mode": "blitz"}'), ("go", "")):
            await say(alice, id, state)
        invite = "<invite xmlns='urn:xmppd:invites:0' to='bob@localhost' kind='party' target='p' game='go'/>"
        made = await ask(alice, "set", invite)
        await ask(alice, "set", f"<cancel xmlns='urn:xmppd:invites:0' id='{made[0].get('id')}'/>")
        await alice.drop()
        await world.settle()
        heard = [event for plugin in world.plugins("listener") for event in plugin.heard]
        go, chess = {"game": "go", "resource": "pc"}, {"game": "chess", "resource": "pc"}
        about = {"id": made[0].get("id"), "to": "bob@localhost", "kind": "party", "target": "p"}
        assert heard == [
            ("game.entered", "alice@localhost", go),
            ("game.entered", "alice@localhost", chess),
            ("game.left", "alice@localhost", go),
            ("invite.made", "alice@localhost", {**about, "game": "go"}),
            ("invite.settled", "alice@localhost", {**about, "state": "cancelled"}),
            ("game.left", "alice@localhost", chess),
        ]


@pytest.mark.asyncio
async def test_what_is_said_outlives_a_reload() -> None:
    async with world_of() as world:
        alice, bob = await friends(world)
        await say(alice, "go", '{"rank": "1k"}')
        await bob.receive_all()
        for app in world.apps:
            await app.loader.reload("rich_presence", app.config)
        await world.settle()
        await alice.send("<presence><show>away</show></presence>")
        assert [it.get("go") for it in await shown(bob)][-1] == '{"rank":"1k"}'


@pytest.mark.asyncio
@pytest.mark.parametrize("is_drained", [False, True])
async def test_what_is_said_goes_with_the_session_to_another_node(redis_url: str, is_drained: bool) -> None:
    settings = several(redis_url)
    config = {"rich_presence": CONFIG}
    async with World(plugins=("rich_presence",), plugin_config=config, nodes=2, settings=settings) as world:
        alice = await world.login("alice", "r", node=0)
        bob = await world.login("bob", node=1)
        await world.befriend(alice, bob)
        id = await enable(alice)
        await say(alice, "go", '{"rank": "1k"}')
        assert [it.get("go") for it in await shown(bob)] == ['{"rank":"1k"}']
        if is_drained:
            await world.drain(0)
        else:
            await alice.drop()
        await shown(bob)
        again = await resume(world, alice, id, 0, node=1)
        await again.receive_all()
        assert [it.get("go") for it in await shown(bob)][-1:] == ['{"rank":"1k"}']
        await world.advance(5)
        await bob.receive_all()
        await say(again, "go", '{"rank": "2k"}')
        assert [it.get("go") for it in await shown(bob)] == ['{"rank":"2k"}']
