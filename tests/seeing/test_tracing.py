"""What is told of an account that is traced, what is masked, and that nothing is left when nobody follows."""

from typing import Any

import pytest
from followed import taken
from sasl2 import BIND, PHONE, agent, login, opened, token_in, wanted

from xmppd import ns
from xmppd.admin.commands import Caller
from xmppd.admin.registry import Followed
from xmppd.core.logins import Logins
from xmppd.core.messages import Messages
from xmppd.core.sessions import Session, Sessions
from xmppd.errors import CommandError
from xmppd.masking import shown
from xmppd.testing import World

pytestmark = pytest.mark.asyncio
ALICE = "alice@localhost"
PLUGINS = ("archive", "offline", "blocking", "carbons")


async def follow(world: World, node: int = 0, **arguments: Any) -> Followed:
    return await world.apps[node].commands.follow("trace", {"account": ALICE, **arguments})


def only(records: list[dict[str, Any]], what: str) -> list[dict[str, Any]]:
    return [record for record in records if record["what"] == what]


async def test_a_message_is_told_with_its_way() -> None:
    async with World(nodes=1, plugins=PLUGINS) as world:
        alice, bob = await world.login("alice", "a"), await world.login("bob", "b")
        followed = await follow(world)
        assert only(await taken(world, followed), "session")[0]["session"] == alice.jid
        await alice.send(f"<message to='{bob.bare}' type='chat' id='m1'><body>very secret</body></message>")
        await world.settle()
        records = await taken(world, followed)
        [came] = only(records, "in")
        assert (came["session"], came["bytes"] > 0) == (alice.jid, True)
        assert "<body>…</body>" in came["xml"] and "id='m1'" in came["xml"]
        [routed] = only(records, "routed")
        assert routed["id"] == "m1" and "archive" in routed["hooks"]
        assert only(records, "done")
        [decision] = only(records, "decision")
        assert (decision["decision"], decision["to"], decision["sessions"]) == (
            "delivered",
            bob.bare,
            [bob.jid],
        )
        await bob.send(
            f"<message to='{alice.jid}' id='m2'><subject>x</subject><body>secret too</body></message>"
        )
        await world.settle()
        records = await taken(world, followed)
        [out] = only(records, "out")
        assert "id='m2'" in out["xml"] and "<subject>…</subject>" in out["xml"]
        assert only(records, "decision")[0]["sender"] == bob.jid
        assert "secret" not in repr(records)
        await followed.close()


async def test_bodies_are_shown_to_who_asked_and_may() -> None:
    async with World(nodes=1) as world:
        alice = await world.login("alice", "a")
        followed = await follow(world, bodies=True)
        await alice.send("<message to='bob@localhost' type='chat'><body>hello</body></message>")
        await world.settle()
        assert "<body>hello</body>" in only(await taken(world, followed), "in")[0]["xml"]
        await followed.close()
        for scopes, may in ({"trace:read"}, False), ({"trace:read", "trace:bodies"}, True), ({"*"}, True):
            caller = Caller("http", "x", "", frozenset(scopes))
            arguments = {"account": ALICE, "bodies": True}
            if may:
                await (await world.app.commands.follow("trace", arguments, caller)).close()
            else:
                with pytest.raises(CommandError, match="trace:bodies"):
                    await world.app.commands.follow("trace", arguments, caller)


async def test_it_is_audited_when_it_begins_and_ends() -> None:
    async with World(nodes=1) as world:
        caller = Caller("socket", "root")
        followed = await world.app.commands.follow("trace", {"account": ALICE, "bodies": True}, caller)
        page = await world.app.commands.call("audit list", {"command": "trace"})
        assert [row["outcome"] for row in page["rows"]] == ["unknown"]
        await followed.close()
        await world.settle()
        [row] = (await world.app.commands.call("audit list", {"command": "trace"}))["rows"]
        assert (row["who"], row["outcome"], row["arguments"]["bodies"]) == ("root", "done", True)


async def test_a_login_is_told_without_what_it_proves() -> None:
    async with World(nodes=1) as world:
        followed = await follow(world)
        client = world.connect()
        await client.open()
        await client.authenticate("alice", password="wrong-one")
        await world.settle()
        await world.login("alice", "a")
        records = await taken(world, followed)
        assert [it["outcome"] for it in only(records, "login")] == ["not-authorized", "success"]
        assert only(records, "login")[0]["mechanism"]
        assert only(records, "session")[0]["session"] == f"{ALICE}/a"
        assert "wrong-one" not in repr(records)
        await followed.close()


async def test_no_token_is_told_to_whom_bodies_are_shown() -> None:
    async with World(nodes=1) as world:
        followed = await follow(world, bodies=True)
        client = await opened(world)
        token = token_in(await login(client, "alice", agent(PHONE) + wanted() + BIND))
        await world.settle()
        records = await taken(world, followed)
        assert only(records, "login")[0]["outcome"] == "success"
        assert token and token not in repr(records)
        await followed.close()


async def test_refusals_and_what_is_kept_are_told_with_their_rule() -> None:
    async with World(nodes=1, plugins=PLUGINS) as world:
        alice = await world.login("alice", "a")
        followed = await follow(world)
        await alice.send("<message to='nobody@localhost' type='chat' id='m1'><body>x</body></message>")
        await alice.send("<message to='carol@localhost' type='chat' id='m2'><body>x</body></message>")
        await world.settle()
        found = [(it["id"], it["decision"]) for it in only(await taken(world, followed), "decision")]
        assert ("m1", "refused") in found and ("m2", "kept") in found
        await alice.drop()
        await world.settle()
        assert only(await taken(world, followed), "ended")
        await followed.close()


async def test_nothing_is_left_when_nobody_follows() -> None:
    async with World(nodes=1) as world:
        await world.login("alice", "a")
        one, other = await follow(world), await follow(world)
        app = world.app
        [session] = app.sessions.of(ALICE)
        assert type(session) is not Session and app.router.watches_next
        await one.close()
        assert type(session) is not Session
        await other.close()
        assert [type(it) for it in (session, app.sessions, app.messages, app.logins)] == [
            Session, Sessions, Messages, Logins,
        ]  # fmt: skip
        assert not app.router.watches_next and app.messages.fates.heard is None


@pytest.mark.parametrize(
    ("raw", "masked", "with_text"),
    [
        ("<message id='1'><body>x</body></message>", "<body>…</body>", "<body>x</body>"),
        ("<iq type='set'><query xmlns='jabber:iq:register'><password>x</password></query></iq>", "…", "…"),
        ("<presence><status>x</status></presence>", "<status>…</status>", "<status>x</status>"),
        (f"<iq><query xmlns='{ns.ROSTER}'><item jid='a@b' name='x'/></query></iq>", "name='…'", "name='x'"),
        (f"<iq><x xmlns='{ns.DATA_FORM}'><field var='password'><value>x</value></field></x></iq>", "…", "…"),
        (f"<x xmlns='{ns.DATA_FORM}'><field type='text-private'><value>x</value></field></x>", "…", "…"),
        (f"<success xmlns='{ns.SASL2}'><additional-data>x</additional-data></success>", "…", "…"),
        ("<message><body>xmppd_abcdefghijkl</body></message>", "…", "…"),
        ("<iq><a xmlns='urn:x' password='x'/></iq>", "password='…'", "password='…'"),
        ("<message><a xmlns='urn:x' sure='x'><b>x</b>x</a></message>", "sure='…'", "sure='x'"),
    ],
)  # fmt: skip
async def test_what_is_masked(raw: str, masked: str, with_text: str) -> None:
    for shows, expected in (False, masked), (True, with_text):
        text = shown(raw.encode(), with_text=shows)
        assert expected in text
        if expected == "…" or not shows:
            assert ">x<" not in text and "'x'" not in text and "xmppd_" not in text


async def test_of_a_long_stanza_there_is_the_start_tag() -> None:
    raw = b"<message id='1' to='a@b'><body>" + b"x" * 20_000 + b"</body></message>"
    assert shown(raw, with_text=True) == "<message id='1' to='a@b'/>"
