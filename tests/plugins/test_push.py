"""Push notifications (XEP-0357)."""

from pathlib import Path
from typing import Any

import pytest
from managing import enable as manage
from managing import managed, resume, state
from several import several

from xmppd import ns
from xmppd.testing import Client, World, refusal

pytestmark = pytest.mark.asyncio

APP = """
from xmppd import ns
from xmppd.plugin import Plugin, StanzaError, serialize, service


class App(Plugin):
    async def start(self):
        self.told = []
        self.refuses = None

    @service("app", category="pubsub", type="push")
    def take(self, origin, stanza, to):
        self.told.append((origin.full, to.full, stanza.type, stanza.xml[0]))
        if self.refuses:
            raise StanzaError(self.refuses)
        return None
"""
SECRET = (
    f"<x xmlns='{ns.DATA_FORM}' type='submit'>"
    f"<field var='FORM_TYPE'><value>{ns.PUBSUB_OPTIONS}</value></field>"
    "<field var='secret'><value>eruio</value></field></x>"
)
PUBLISH = f"{{{ns.PUBSUB}}}publish"
NOTIFICATION = f"{PUBLISH}/{{{ns.PUBSUB}}}item/{{{ns.PUSH}}}notification"


def enabling(node: str = "n1", more: str = "", jid: str = "app.localhost") -> str:
    return f"<enable xmlns='{ns.PUSH}' jid='{jid}' node='{node}'>{more}</enable>"


def disabling(more: str = "", jid: str = "app.localhost") -> str:
    return f"<disable xmlns='{ns.PUSH}' jid='{jid}'{more}/>"


def chat(body: str = "hi", to: str = "alice@localhost", more: str = "") -> str:
    return f"<message to='{to}' type='chat'><body>{body}</body>{more}</message>"


def fields(form: Any) -> dict[str, str]:
    return {
        field.get("var"): field.findtext(f"{{{ns.DATA_FORM}}}value")
        for field in form.iterfind(f"{{{ns.DATA_FORM}}}field")
    }


class Pushes:
    """A world with an app server, and what that was told."""

    def __init__(
        self, folder: Path, *plugins: str, settings: Any = None, nodes: int = 0, **config: Any
    ) -> None:
        (folder / "app.py").write_text(APP, encoding="utf-8")
        self.world = World(
            plugins=("disco", "offline", "carbons", "blocking", "push", "app", *plugins),
            plugin_folders=(folder,),
            plugin_config={"push": config},
            settings={"sessions": {"ping_after": 0}, **(settings or {})},
            **({"nodes": nodes} if nodes else {}),
        )

    async def __aenter__(self) -> "Pushes":
        await self.world.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.world.__aexit__(*error)

    def refuse(self, condition: str | None) -> None:
        for app in self.world.plugins("app"):
            app.refuses = condition

    async def told(self) -> list[tuple[str, dict[str, str]]]:
        """The node and the summary of each notification since it was asked last."""
        await self.world.settle()
        requests = [one for app in self.world.plugins("app") for one in app.told]
        for app in self.world.plugins("app"):
            app.told.clear()
        told = []
        for sender, to, kind, pubsub in requests:
            assert (sender, to, kind) == ("localhost", "app.localhost", "set")
            form = pubsub.find(f"{NOTIFICATION}/{{{ns.DATA_FORM}}}x")
            told.append((pubsub.find(PUBLISH).get("node"), {} if form is None else fields(form)))
        return sorted(told, key=lambda one: one[0])

    async def count(self) -> list[tuple[str, str]]:
        return [(node, summary["message-count"]) for node, summary in await self.told()]

    async def detached(self, node: str = "n1") -> tuple[Client, str]:
        """Alice's client, which has enabled push and is gone, and the id of its session."""
        alice, id = await managed(self.world, "alice", "phone")
        answer = await alice.ask("set", enabling(node))
        assert answer.get("type") == "result"
        await alice.send(f"<a xmlns='{ns.SM}' h='1'/>")
        await alice.drop()
        return alice, id


async def test_an_account_says_that_it_can_be_notified(tmp_path: Path) -> None:
    async with Pushes(tmp_path) as pushes:
        alice = await pushes.world.login("alice")
        for to, is_there in (("alice@localhost", True), ("localhost", False)):
            answer = await alice.ask("get", f"<query xmlns='{ns.DISCO_INFO}'/>", to=to)
            assert (ns.PUSH in {feature.get("var") for feature in answer[0]}) is is_there


async def test_what_waits_for_a_detached_session_is_told(tmp_path: Path) -> None:
    async with Pushes(tmp_path) as pushes:
        bob = await pushes.world.login("bob")
        await pushes.detached()
        assert await pushes.told() == []
        await bob.send(chat())
        assert await pushes.told() == [("n1", {"FORM_TYPE": ns.PUSH_SUMMARY, "message-count": "1"})], (
            "and nothing of who or what"
        )


async def test_what_was_under_way_when_the_wire_broke_is_told(tmp_path: Path) -> None:
    async with Pushes(tmp_path) as pushes:
        bob = await pushes.world.login("bob")
        alice, _ = await managed(pushes.world, "alice")
        await alice.ask("set", enabling())
        await bob.send(chat())
        assert await pushes.told() == []
        await alice.drop()
        assert await pushes.count() == [("n1", "1")]


async def test_what_nobody_has_to_be_woken_for_is_not_told(tmp_path: Path) -> None:
    async with Pushes(tmp_path) as pushes:
        bob = await pushes.world.login("bob")
        alice, _ = await pushes.detached()
        state = f"<composing xmlns='{ns.CHAT_STATES}'/>"
        for message in (
            f"<message to='{alice.jid}' type='chat'>{state}</message>",
            f"<message to='{alice.jid}' type='chat'><received xmlns='{ns.RECEIPTS}' id='1'/></message>",
            f"<message to='{alice.jid}' type='chat'><displayed xmlns='{ns.CHAT_MARKERS}' id='1'/></message>",
            f"<message to='{alice.jid}' type='headline'><body>news</body></message>",
            chat(to=alice.jid, more=f"<retract xmlns='{ns.RETRACTION}' id='1'/>"),
            chat(to=alice.jid, more=f"<reactions xmlns='{ns.REACTIONS}' id='1'/>"),
            f"<message to='{alice.jid}'><encrypted xmlns='{ns.OMEMO}'><header/></encrypted></message>",
            f"<presence to='{alice.jid}'/>",
        ):
            await bob.send(message)
        assert await pushes.told() == []


@pytest.mark.parametrize(
    "content",
    [
        f"<encrypted xmlns='{ns.OMEMO}'><payload>x</payload></encrypted>",
        f"<openpgp xmlns='{ns.OPENPGP}'>x</openpgp>",
        f"<x xmlns='{ns.CONFERENCE}' jid='room@rooms.localhost'/>",
        f"<propose xmlns='{ns.JINGLE_MESSAGE}' id='1'/>",
    ],
)
async def test_what_is_sealed_an_invitation_or_a_call_is_told(tmp_path: Path, content: str) -> None:
    async with Pushes(tmp_path) as pushes:
        bob = await pushes.world.login("bob")
        alice, _ = await pushes.detached()
        await bob.send(f"<message to='{alice.jid}' type='chat'>{content}</message>")
        assert await pushes.count() == [("n1", "1")]


async def test_whom_the_receiver_blocks_wakes_nobody(tmp_path: Path) -> None:
    async with Pushes(tmp_path) as pushes:
        bob, second = await pushes.world.login("bob"), await pushes.world.login("alice", "pc")
        await second.ask("set", f"<block xmlns='{ns.BLOCKING}'><item jid='bob@localhost'/></block>")
        alice, _ = await pushes.detached()
        await pushes.told()
        await bob.send(chat(to=alice.jid))
        await second.send("</stream:stream>")
        await bob.send(chat(to="alice@localhost"))
        assert await pushes.told() == []


async def test_copies_of_what_was_received_are_told_but_not_of_what_was_sent(tmp_path: Path) -> None:
    async with Pushes(tmp_path, pause=1) as pushes:
        bob, second = await pushes.world.login("bob"), await pushes.world.login("alice", "pc")
        alice, _ = await managed(pushes.world, "alice", "phone")
        await alice.ask("set", f"<enable xmlns='{ns.CARBONS}'/>")
        await alice.ask("set", enabling())
        await alice.send(f"<a xmlns='{ns.SM}' h='2'/>")
        await alice.drop()
        await pushes.told()
        await pushes.world.advance(2)
        await second.send(chat(to=bob.jid))
        assert await pushes.told() == []
        await bob.send(chat(to=second.jid))
        assert await pushes.count() == [("n1", "1")]


async def test_what_is_kept_is_told_to_all_registrations(tmp_path: Path) -> None:
    async with Pushes(tmp_path) as pushes:
        alice, bob = await pushes.world.login("alice"), await pushes.world.login("bob")
        await alice.ask("set", enabling("n1"))
        await alice.ask("set", enabling("n2"))
        await bob.send(chat())
        assert await pushes.told() == [], "she is there"
        await alice.send("<presence type='unavailable'/>")
        await bob.send(chat() + chat(to="carol@localhost"))
        assert await pushes.count() == [("n1", "1"), ("n2", "1")]


async def test_what_is_about_to_be_given_to_who_comes_is_not_told(tmp_path: Path) -> None:
    async with Pushes(tmp_path) as pushes:
        alice, bob = await pushes.world.login("alice"), await pushes.world.login("bob")
        await alice.ask("set", enabling())
        alice.session.hold_messages()
        await bob.send(chat())
        assert await pushes.told() == []


async def test_there_is_a_pause_between_two(tmp_path: Path) -> None:
    async with Pushes(tmp_path, pause=30, tells="sender") as pushes:
        bob = await pushes.world.login("bob", "pc")
        await pushes.detached()
        await bob.send(chat())
        assert len(await pushes.told()) == 1
        await bob.send(chat() + chat())
        await pushes.world.advance(25)
        assert await pushes.told() == []
        await pushes.world.advance(6)
        [(_, summary)] = await pushes.told()
        assert (summary["message-count"], summary["last-message-sender"]) == ("2", "bob@localhost/pc")
        await pushes.world.advance(31)
        assert await pushes.told() == []
        assert all(plugin._due == {} for plugin in pushes.world.plugins("push"))


@pytest.mark.parametrize(
    ("tells", "names"),
    [
        ("nothing", set()),
        ("sender", {"FORM_TYPE", "message-count", "last-message-sender"}),
        ("body", {"FORM_TYPE", "message-count", "last-message-sender", "last-message-body"}),
    ],
)
async def test_what_is_told_is_configured(tmp_path: Path, tells: str, names: set[str]) -> None:
    async with Pushes(tmp_path, tells=tells) as pushes:
        bob = await pushes.world.login("bob")
        await pushes.detached()
        await bob.send(chat("x" * 500))
        [(_, summary)] = await pushes.told()
        assert set(summary) == names
        assert summary.get("last-message-body", "x" * 200) == "x" * 200


async def test_the_last_options_go_with_it(tmp_path: Path) -> None:
    async with Pushes(tmp_path) as pushes:
        alice, bob = await pushes.world.login("alice"), await pushes.world.login("bob")
        await alice.ask("set", enabling())
        await alice.ask("set", enabling(more=SECRET))
        await alice.send("<presence type='unavailable'/>")
        await bob.send(chat())
        await pushes.world.settle()
        [request] = [one for app in pushes.world.plugins("app") for one in app.told]
        form = request[3].find(f"{{{ns.PUBSUB}}}publish-options/{{{ns.DATA_FORM}}}x")
        assert fields(form) == {"FORM_TYPE": ns.PUBSUB_OPTIONS, "secret": "eruio"}


async def test_who_was_disabled_is_not_told(tmp_path: Path) -> None:
    async with Pushes(tmp_path) as pushes:
        alice, bob = await pushes.world.login("alice"), await pushes.world.login("bob")
        for node in ("n1", "n2", "n3"):
            await alice.ask("set", enabling(node))
        assert (await alice.ask("set", disabling(" node='n2'"))).get("type") == "result"
        assert (await alice.ask("set", disabling(" node='nobody'"))).get("type") == "result"
        await alice.send("<presence type='unavailable'/>")
        await bob.send(chat())
        assert await pushes.count() == [("n1", "1"), ("n3", "1")]
        await alice.ask("set", disabling())
        await pushes.world.advance(60)
        await bob.send(chat())
        assert await pushes.told() == []


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (enabling(jid="nowhere.example"), "cancel remote-server-not-found"),
        (enabling(jid="bob@localhost"), "cancel service-unavailable"),
        (enabling(jid="@"), "modify jid-malformed"),
        (f"<enable xmlns='{ns.PUSH}' node='n1'/>", "modify jid-malformed"),
        (f"<disable xmlns='{ns.PUSH}'/>", "modify jid-malformed"),
        (enabling("n" * 5000), "modify policy-violation"),
        (enabling(more=SECRET.replace(ns.PUBSUB_OPTIONS, "urn:x")), "modify bad-request"),
        (enabling(more=SECRET + SECRET), "modify bad-request"),
    ],
)
async def test_what_cannot_be_is_refused(tmp_path: Path, payload: str, error: str) -> None:
    async with Pushes(tmp_path) as pushes:
        alice = await pushes.world.login("alice")
        assert refusal(await alice.ask("set", payload)) == error


async def test_registrations_are_bounded_and_ones_own(tmp_path: Path) -> None:
    async with Pushes(tmp_path, registrations=2) as pushes:
        alice, guest = await pushes.world.login("alice"), await pushes.world.login("bob")
        for node in ("n1", "n2"):
            await alice.ask("set", enabling(node))
        assert refusal(await alice.ask("set", enabling("n3"))) == "wait resource-constraint"
        assert (await alice.ask("set", enabling("n2", SECRET))).get("type") == "result"
        answer = await guest.ask("set", enabling(), to="alice@localhost")
        assert answer.get("type") == "error"


@pytest.mark.parametrize(("condition", "most"), [("item-not-found", 1), ("resource-constraint", 3)])
async def test_errors_end_a_registration(tmp_path: Path, condition: str, most: int) -> None:
    async with Pushes(tmp_path, failures=3, pause=1) as pushes:
        alice, bob = await pushes.world.login("alice"), await pushes.world.login("bob")
        await alice.ask("set", enabling())
        await alice.send("<presence type='unavailable'/>")
        pushes.refuse(condition)
        told = 0
        for _ in range(5):
            await bob.send(chat())
            told += len(await pushes.told())
            await pushes.world.advance(2)
        assert told == most
        pushes.refuse(None)
        await alice.ask("set", enabling())
        await bob.send(chat())
        assert len(await pushes.told()) == 1


async def test_errors_that_passed_are_forgotten(tmp_path: Path) -> None:
    async with Pushes(tmp_path, failures=2, pause=1) as pushes:
        alice, bob = await pushes.world.login("alice"), await pushes.world.login("bob")
        await alice.ask("set", enabling())
        await alice.send("<presence type='unavailable'/>")
        for condition in ("resource-constraint", None) * 3:
            pushes.refuse(condition)
            await bob.send(chat())
            assert len(await pushes.told()) == 1
            await pushes.world.advance(2)


@pytest.mark.parametrize("is_told", [False, True])
async def test_inactive_clients_are_told_if_that_is_configured(tmp_path: Path, is_told: bool) -> None:
    async with Pushes(tmp_path, inactive=is_told) as pushes:
        alice, bob = await pushes.world.login("alice"), await pushes.world.login("bob")
        await alice.ask("set", enabling())
        await bob.send(chat())
        assert await pushes.told() == []
        await alice.send(f"<inactive xmlns='{ns.CSI}'/>")
        await bob.send(chat())
        assert await pushes.count() == ([("n1", "1")] if is_told else [])
        assert len(await alice.receive_all()) == 2


async def test_sessions_that_can_be_woken_wait_for_longer(tmp_path: Path) -> None:
    async with Pushes(tmp_path, resume_seconds=1000) as pushes:
        alice, id = await pushes.detached()
        await pushes.world.advance(990)
        alice = await resume(pushes.world, alice, id, 1)
        await alice.drop()
        await pushes.world.advance(990)
        session = alice.session
        assert not session.is_over
        await pushes.world.advance(20)
        assert session.is_over


@pytest.mark.parametrize("by", ["client", "errors", "account"])
async def test_sessions_that_cannot_be_any_more_do_not(tmp_path: Path, by: str) -> None:
    async with Pushes(tmp_path, resume_seconds=1000) as pushes:
        bob = await pushes.world.login("bob")
        alice, id = await pushes.detached()
        if by == "client":
            alice = await resume(pushes.world, alice, id, 1)
            await alice.ask("set", disabling())
        elif by == "errors":
            pushes.refuse("item-not-found")
            await bob.send(chat())
            await pushes.told()
            alice = await resume(pushes.world, alice, id, 2)
        else:
            await pushes.world.app.commands.call("user remove", {"account": "alice@localhost"})
            assert all(
                [await plugin._rows("alice@localhost") == [] for plugin in pushes.world.plugins("push")]
            )
            return
        session = alice.session
        await alice.drop()
        await pushes.world.advance(310)
        assert session.is_over


async def test_detached_sessions_may_be_shown_as_away(tmp_path: Path) -> None:
    async with Pushes(tmp_path, shown="away") as pushes:
        world = pushes.world
        alice, bob = await world.login("alice", "phone"), await world.login("bob")
        await world.befriend(alice, bob)
        id = await manage(alice)
        await alice.ask("set", enabling())
        await alice.send("<presence><status>here</status><priority>3</priority></presence>")
        await bob.receive_all()
        await alice.drop()
        await world.settle()
        await bob.expect(
            "<presence from='alice@localhost/phone' to='bob@localhost'>"
            "<show>away</show><status>here</status><priority>3</priority></presence>"
        )
        alice = await resume(world, alice, id, 2)
        await world.settle()
        shown = (await bob.receive_all())[-1]
        assert [child.tag.partition("}")[2] for child in shown] == ["status", "priority"]
        await alice.send("<presence><show>dnd</show></presence>")
        await bob.receive_all()
        await alice.drop()
        await world.settle()
        await bob.expect_nothing()


async def test_detached_sessions_are_shown_as_they_were(tmp_path: Path) -> None:
    async with Pushes(tmp_path) as pushes:
        alice, bob = await pushes.world.login("alice"), await pushes.world.login("bob")
        await pushes.world.befriend(alice, bob)
        await manage(alice)
        await alice.ask("set", enabling())
        await alice.drop()
        await pushes.world.settle()
        await bob.expect_nothing()


async def test_a_session_without_push_is_detached_as_all_others(tmp_path: Path) -> None:
    async with Pushes(tmp_path, shown="away") as pushes:
        alice, _ = await managed(pushes.world, "alice")
        bob = await pushes.world.login("bob")
        await pushes.world.befriend(alice, bob)
        session = alice.session
        await alice.drop()
        await bob.expect_nothing()
        await bob.send(chat())
        assert await pushes.told() == []
        await pushes.world.advance(310)
        assert session.is_over


@pytest.mark.parametrize("shown", ["unchanged", "away"])
async def test_a_session_keeps_it_on_another_node(tmp_path: Path, redis_url: str, shown: str) -> None:
    async with Pushes(
        tmp_path, nodes=2, settings=several(redis_url), shown=shown, resume_seconds=1000, pause=1
    ) as pushes:
        world = pushes.world
        alice, bob = await world.login("alice", "phone", node=0), await world.login("bob", node=1)
        await world.befriend(alice, bob)
        id = await manage(alice)
        await alice.ask("set", enabling())
        await alice.drop()
        await world.settle()
        await bob.receive_all()
        alice = await resume(world, alice, id, 1, node=1)
        await world.settle()
        for presence in await bob.receive_all():
            last = [child.tag.partition("}")[2] for child in presence]
        assert last == [], "as before"
        await alice.send(f"<a xmlns='{ns.SM}' h='{state(alice).sent}'/>")
        session = alice.session
        await alice.drop()
        await world.settle()
        await pushes.told()
        await bob.send(chat())
        await world.advance(2)
        assert await pushes.count() == [("n1", "1")]
        await world.advance(900)
        assert not session.is_over


async def test_one_of_two_nodes_tells_what_both_have_to_tell(tmp_path: Path, redis_url: str) -> None:
    async with Pushes(tmp_path, nodes=2, settings=several(redis_url)) as pushes:
        world = pushes.world
        bob, carol = await world.login("bob", node=0), await world.login("carol", node=1)
        alice = await world.login("alice", node=1)
        await alice.ask("set", enabling())
        await alice.send("<presence type='unavailable'/>")
        await world.settle()
        await bob.send(chat())
        await world.settle()
        await carol.send(chat())
        assert await pushes.count() == [("n1", "1")]
        await world.advance(31)
        assert await pushes.count() == [("n1", "1")]


async def test_a_registration_that_ends_ends_on_all_nodes(tmp_path: Path, redis_url: str) -> None:
    async with Pushes(tmp_path, nodes=2, settings=several(redis_url), resume_seconds=1000) as pushes:
        world = pushes.world
        alice, second = await world.login("alice", "phone", node=0), await world.login("alice", "pc", node=1)
        await alice.receive_all()
        await manage(alice)
        await alice.ask("set", enabling())
        await second.ask("set", disabling())
        await world.settle()
        session = alice.session
        await alice.drop()
        await world.advance(310)
        assert session.is_over


async def test_a_session_whose_node_stops_waits_for_longer_elsewhere(tmp_path: Path, redis_url: str) -> None:
    async with Pushes(tmp_path, nodes=2, settings=several(redis_url), resume_seconds=1000) as pushes:
        world = pushes.world
        alice = await world.login("alice", "phone", node=0)
        id = await manage(alice)
        await alice.ask("set", enabling())
        alice = await resume(world, alice, id, 1, node=1)
        await alice.receive_all()
        await world.drain(1)
        await world.advance(900)
        again = await resume(world, alice, id, 1, node=0)
        assert not again.session.is_over
