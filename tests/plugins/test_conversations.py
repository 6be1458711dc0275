"""The list of conversations, who has read how far in them (XEP-0333, XEP-0490), and devices that are told."""

from typing import Any
from xml.etree.ElementTree import Element

import pytest
from archives import later

from xmppd import ns
from xmppd.testing import Client, World, refusal

pytestmark = pytest.mark.asyncio

CONVERSATION = f"{{{ns.CONVERSATIONS}}}conversation"
READ = f"{{{ns.CONVERSATIONS}}}read"
BODY = f"{{{ns.CLIENT}}}body"
MESSAGE = f"{{{ns.CLIENT}}}message"
STANZA_ID = f"{{{ns.STANZA_ID}}}stanza-id"


def world(*more: str, **about: Any) -> World:
    return World(plugins=("archive", *more), **about)


async def chat(client: Client, to: str, *texts: str) -> None:
    for text in texts:
        await client.send(f"<message to='{to}' id='{text}' type='chat'><body>{text}</body></message>")


async def displayed(client: Client, to: str, about: str, more: str = "") -> None:
    mark = f"<displayed xmlns='{ns.CHAT_MARKERS}' id='{about}'/>"
    await client.send(f"<message to='{to}' type='chat'>{mark}{more}</message>")


class Listed:
    """A page of conversations: of each whom it is with, what is unread, and the last text."""

    def __init__(self, answer: Element) -> None:
        assert answer.get("type") == "result", answer
        [query] = answer
        self.found = query.findall(CONVERSATION)
        self.is_complete = query.get("complete") == "true"
        self.is_bounded = query.get("more") == "true"
        self.last = query.findtext(f"{{{ns.RSM}}}set/{{{ns.RSM}}}last")
        self.first = query.findtext(f"{{{ns.RSM}}}set/{{{ns.RSM}}}first")

    @property
    def short(self) -> list[tuple[str, str, str | None]]:
        return [(*self.about(one), one.findtext(f".//{BODY}")) for one in self.found]

    @property
    def peers(self) -> list[str]:
        return [one.get("with", "").partition("@")[0] for one in self.found]

    @staticmethod
    def about(one: Element) -> tuple[str, str]:
        more = "+" if one.get("more") == "true" else ""
        return one.get("with", "").partition("@")[0], one.get("unread", "") + more

    def read(self, by: str) -> list[str | None]:
        """Up to which id somebody has read, in each where that is known."""
        return [read.get("id") for one in self.found for read in one.findall(READ) if read.get("by") == by]


async def listed(client: Client, attrs: str = "", page: str = "") -> Listed:
    await client.receive_all()
    inner = f"<set xmlns='{ns.RSM}'>{page}</set>" if page else ""
    return Listed(await client.ask("get", f"<query xmlns='{ns.CONVERSATIONS}'{attrs}>{inner}</query>"))


async def ids(client: Client) -> list[str]:
    """Of the messages that it was sent."""
    return [
        found.get("id", "")
        for stanza in await client.receive_all()
        if (found := stanza.find(STANZA_ID)) is not None
    ]


async def test_the_newest_conversation_comes_first_with_its_last_message_and_what_is_unread() -> None:
    async with world() as w:
        alice, bob, carol = [await w.login(name) for name in ("alice", "bob", "carol")]
        await chat(alice, "bob@localhost", "a", "b")
        await chat(carol, "bob@localhost", "c")
        await chat(bob, alice.jid, "d")
        found = await listed(bob)
        assert found.short == [("alice", "2", "d"), ("carol", "1", "c")] and found.is_complete
        assert not found.is_bounded
        assert (await listed(alice)).short == [("bob", "1", "d")]
        assert (await listed(carol)).short == [("bob", "0", "c")]


async def test_the_last_message_is_there_as_it_was_sent_with_its_id_and_time() -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await alice.send(
            "<message to='bob@localhost' id='m' type='chat'><body>a &lt; b</body>"
            "<x xmlns='urn:x'>1</x></message>"
        )
        [id] = await ids(bob)
        await bob.send(f"<iq type='get' id='q'><query xmlns='{ns.CONVERSATIONS}'/></iq>")
        await bob.expect(
            f"<iq type='result' id='q' to='{bob.jid}'><query xmlns='{ns.CONVERSATIONS}' complete='true'>"
            f"<conversation with='alice@localhost' id='{id}' unread='1'>"
            f"<forwarded xmlns='{ns.FORWARD}'><delay xmlns='{ns.DELAY}' stamp='2023-11-14T22:13:20.000Z'/>"
            f"<message xmlns='{ns.CLIENT}' from='{alice.jid}' to='bob@localhost' id='m' type='chat'>"
            "<body>a &lt; b</body><x xmlns='urn:x'>1</x></message></forwarded></conversation>"
            f"<set xmlns='{ns.RSM}'><first>{id}</first><last>{id}</last></set></query></iq>"
        )


async def test_a_marker_says_on_both_sides_how_far_was_read() -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await chat(alice, "bob@localhost", "a", "b", "c")
        received = await ids(bob)
        await displayed(bob, "alice@localhost", "b")
        mine, his = await listed(bob), await listed(alice)
        assert mine.short == [("alice", "1", "c")] and mine.read("bob@localhost") == [received[1]]
        assert mine.read("alice@localhost") == []
        assert len(his.read("bob@localhost")) == 1 and his.read("alice@localhost") == []
        assert his.short == [("bob", "0", "c")]
        await displayed(bob, "alice@localhost", "c")
        assert (await listed(bob)).short == [("alice", "0", "c")]


@pytest.mark.parametrize("about", ["a", "of-mine", "nothing"])
async def test_a_marker_that_goes_back_or_is_about_nothing_changes_nothing(about: str) -> None:
    async with world() as w:
        alice, bob, carol = [await w.login(name) for name in ("alice", "bob", "carol")]
        await chat(alice, "bob@localhost", "a", "b")
        await displayed(bob, "alice@localhost", "b")
        await chat(alice, "bob@localhost", "c")
        await chat(bob, "alice@localhost", "of-mine")
        await displayed(bob, "alice@localhost", about)
        await displayed(carol, "alice@localhost", "c")
        assert (await listed(bob)).short == [("alice", "1", "of-mine")]
        assert (await listed(carol)).short == []


async def test_what_is_no_message_to_read_is_not_counted_and_not_shown() -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await chat(alice, "bob@localhost", "a")
        for inner in (
            f"<received xmlns='{ns.RECEIPTS}' id='x'/>",
            f"<displayed xmlns='{ns.CHAT_MARKERS}' id='x'/>",
            f"<reactions xmlns='{ns.REACTIONS}' id='x'><reaction>1</reaction></reactions><body>1</body>",
            f"<retract xmlns='{ns.RETRACTION}' id='x'/><body>gone</body>",
            f"<encrypted xmlns='{ns.OMEMO}'><header sid='1'/></encrypted>",
            f"<propose xmlns='{ns.JINGLE_MESSAGE}' id='x'/>",
        ):
            await alice.send(f"<message to='bob@localhost' type='chat'>{inner}</message>")
        assert (await listed(bob)).short == [("alice", "1", "a")]
        for inner in (
            f"<encrypted xmlns='{ns.OMEMO}'><payload>x</payload></encrypted>",
            f"<x xmlns='{ns.MUC_USER}'><invite from='a@b'/></x>",
            f"<body>{ns.RETRACTION} is what I read about</body>",
        ):
            await alice.send(f"<message to='bob@localhost' type='chat'>{inner}</message>")
        assert (await listed(bob)).short == [("alice", "4", f"{ns.RETRACTION} is what I read about")]
        await alice.send(
            "<message to='bob@localhost' type='chat'><body>mended</body>"
            f"<replace xmlns='{ns.CORRECTION}' id='x'/></message>"
        )
        assert (await listed(bob)).short == [("alice", "4", "mended")]


async def test_more_than_99_are_not_counted() -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await chat(alice, "bob@localhost", *map(str, range(99)))
        assert (await listed(bob)).short == [("alice", "99", "98")]
        await chat(alice, "bob@localhost", "99")
        assert (await listed(bob)).short == [("alice", "99+", "99")]
        await displayed(bob, "alice@localhost", "0")
        assert (await listed(bob)).short == [("alice", "99", "99")]


async def test_pages_of_conversations() -> None:
    async with world() as w:
        bob = await w.login("bob")
        names = [f"p{number}" for number in range(7)]
        for name in names:
            await w.app.accounts.create(f"{name}@localhost", "secret")
        for name in names:
            await chat(bob, f"{name}@localhost", "old")
        for name in names:
            await chat(bob, f"{name}@localhost", "new")
        first = await listed(bob, page="<max>3</max>")
        assert first.peers == ["p6", "p5", "p4"] and not first.is_complete
        second = await listed(bob, page=f"<max>3</max><after>{first.last}</after>")
        assert second.peers == ["p3", "p2", "p1"] and not second.is_complete
        third = await listed(bob, page=f"<max>3</max><after>{second.last}</after>")
        assert third.peers == ["p0"] and third.is_complete
        assert (await listed(bob, page=f"<after>{third.last}</after>")).peers == []
        assert (await listed(bob, page="<max>7</max>")).is_complete
        none = await listed(bob, page="<max>0</max>")
        assert none.peers == [] and not none.is_complete and none.first is None


async def test_since_a_moment_and_with_one_only() -> None:
    async with world() as w:
        alice, bob, carol = [await w.login(name) for name in ("alice", "bob", "carol")]
        await chat(alice, "bob@localhost", "a")
        await chat(carol, "bob@localhost", "c")
        later(w, days=40)
        await chat(alice, "bob@localhost", "b")
        found = await listed(bob, " since='2023-12-01T00:00:00Z'")
        assert found.short == [("alice", "2", "b")] and found.is_complete
        assert (await listed(bob, " since='2023-11-14T22:13:20Z'")).peers == ["alice", "carol"]
        assert (await listed(bob, " with='carol@localhost/x'")).short == [("carol", "1", "c")]
        assert (await listed(bob, " with='alice@localhost'")).short == [("alice", "2", "b")]
        assert (await listed(bob, " with='nobody@localhost'")).short == []


@pytest.mark.parametrize(
    ("query", "condition"),
    [
        (" since='yesterday'/>", "modify bad-request"),
        (" with='@'/>", "modify jid-malformed"),
        (f"><set xmlns='{ns.RSM}'><after>x</after></set></query>", "cancel item-not-found"),
        (f"><set xmlns='{ns.RSM}'><before/></set></query>", "cancel feature-not-implemented"),
        (f"><set xmlns='{ns.RSM}'><index>1</index></set></query>", "cancel feature-not-implemented"),
        (f"><set xmlns='{ns.RSM}'><max>many</max></set></query>", "modify bad-request"),
    ],
)
async def test_a_list_that_makes_no_sense(query: str, condition: str) -> None:
    async with world() as w:
        bob = await w.login("bob")
        assert refusal(await bob.ask("get", f"<query xmlns='{ns.CONVERSATIONS}'{query}")) == condition


async def test_nobody_lists_the_conversations_of_another() -> None:
    async with world(settings={"auth": {"anonymous": True}}) as w:
        bob = await w.login("bob")
        query = f"<query xmlns='{ns.CONVERSATIONS}'/>"
        assert refusal(await bob.ask("get", query, to="alice@localhost")) == "cancel service-unavailable"
        assert (await bob.ask("get", query, to="bob@localhost")).get("type") == "result"
        guest = await w.guest()
        assert refusal(await guest.ask("get", query)) == "cancel item-not-found"


async def test_no_more_messages_are_looked_at_than_some(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as w:
        for archive in w.plugins("archive"):
            lists = archive.conversations.__func__.__globals__["Lists"]
            monkeypatch.setitem(lists.page.__globals__, "MOST", 5)
        alice, bob, carol = [await w.login(name) for name in ("alice", "bob", "carol")]
        await chat(carol, "bob@localhost", "c")
        await chat(alice, "bob@localhost", *"abcd")
        found = await listed(bob)
        assert found.short == [("alice", "4", "d"), ("carol", "1", "c")] and not found.is_bounded
        await chat(alice, "bob@localhost", "e")
        found = await listed(bob)
        assert found.short == [("alice", "5+", "e")] and found.is_bounded and found.is_complete


async def test_who_asks_all_the_time_is_told_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as w:
        for archive in w.plugins("archive"):
            monkeypatch.setitem(archive.conversations.__func__.__globals__, "seconds_of", lambda rows: 2.0)
        bob = await w.login("bob", node=0)
        query = f"<query xmlns='{ns.CONVERSATIONS}'/>"
        for _ in range(3):
            assert (await bob.ask("get", query)).get("type") == "result"
        for client in (bob, await w.bind("bob", node=0)):
            assert refusal(await client.ask("get", query)) == "wait resource-constraint"
        await w.advance(1.5)
        assert (await bob.ask("get", query)).get("type") == "result"


async def test_a_page_holds_so_many_bytes() -> None:
    async with world() as w:
        alice, bob, carol = [await w.login(name) for name in ("alice", "bob", "carol")]
        await chat(alice, "bob@localhost", "a")
        await carol.send(
            f"<message to='bob@localhost' type='chat'><body>{'x' * 140_000}</body></message>".encode()
        )
        first = await listed(bob)
        assert first.peers == ["carol"] and not first.is_complete
        assert (await listed(bob, page=f"<after>{first.last}</after>")).peers == ["alice"]


# reading


async def test_what_one_device_reads_the_others_are_told() -> None:
    async with world() as w:
        alice, bob, desk, silent = [await w.login(name) for name in ("alice", "bob", "bob", "bob")]
        for client in (bob, desk):
            await listed(client)
        await chat(alice, "bob@localhost", "a", "b")
        received = await ids(desk)
        await bob.receive_all()
        await silent.receive_all()
        await displayed(bob, "alice@localhost", "b")
        await desk.expect(
            f"<iq type='set' id='*' to='{desk.jid}'>"
            f"<read xmlns='{ns.CONVERSATIONS}' with='alice@localhost' id='{received[1]}' stamp='*'"
            " unread='0'/></iq>"
        )
        for client in (bob, silent):
            await client.expect_nothing()
        assert (await listed(desk)).short == [("alice", "0", "b")]
        await displayed(bob, "alice@localhost", "b")
        await displayed(bob, "alice@localhost", "a")
        await desk.expect_nothing()


async def test_a_conversation_is_read_without_telling_the_other_side() -> None:
    async with world() as w:
        alice, bob, desk = [await w.login(name) for name in ("alice", "bob", "bob")]
        await listed(desk)
        await chat(alice, "bob@localhost", "a", "b")
        received = await ids(bob)
        await ids(desk)
        read = f"<read xmlns='{ns.CONVERSATIONS}' with='alice@localhost' id='{received[0]}'/>"
        assert (await bob.ask("set", read)).get("type") == "result"
        push = (await desk.receive()).find(READ)
        assert push is not None and (push.get("unread"), push.get("more")) == ("1", None)
        assert (await listed(bob)).short == [("alice", "1", "b")]
        await alice.expect_nothing()
        assert (await listed(alice)).read("bob@localhost") == []


async def test_only_what_is_there_can_be_read() -> None:
    async with world() as w:
        alice, bob, carol = [await w.login(name) for name in ("alice", "bob", "carol")]
        await chat(alice, "bob@localhost", "a")
        [id] = await ids(bob)
        for about in (f"with='carol@localhost' id='{id}'", "with='alice@localhost' id='x'", f"id='{id}'"):
            answer = await bob.ask("set", f"<read xmlns='{ns.CONVERSATIONS}' {about}/>")
            assert refusal(answer) == "cancel item-not-found"
        answer = await carol.ask(
            "set", f"<read xmlns='{ns.CONVERSATIONS}' with='alice@localhost' id='{id}'/>"
        )
        assert refusal(answer) == "cancel item-not-found"


@pytest.mark.parametrize("is_hidden", [False, True])
async def test_what_is_for_the_own_server_is_taken_out(is_hidden: bool) -> None:
    """XEP-0490 3.5.2: and neither the archive nor other devices see it."""
    async with world("carbons") as w:
        alice, bob, desk = [await w.login(name) for name in ("alice", "bob", "bob")]
        await desk.ask("set", f"<enable xmlns='{ns.CARBONS}'/>")
        await chat(alice, "bob@localhost", "a", "b")
        received = await ids(bob)
        await desk.receive_all()
        space = ns.DISPLAYED.replace("u", "&#117;", 1) if is_hidden else ns.DISPLAYED
        stanza_id = f"<stanza-id xmlns='{ns.STANZA_ID}' by='bob@localhost' id='{received[1]}'/>"
        await displayed(bob, "alice@localhost", "a", f"<displayed xmlns='{space}'>{stanza_id}</displayed>")
        assert (await listed(bob)).short == [("alice", "0", "b")]
        for client in (alice, desk):
            [message] = [stanza for stanza in await client.receive_all() if stanza.tag == MESSAGE]
            assert message.find(f".//{{{ns.CHAT_MARKERS}}}displayed") is not None
            assert message.find(f".//{{{ns.DISPLAYED}}}displayed") is None
        await bob.send(f"<iq type='set' id='q'><query xmlns='{ns.MAM}'/></iq>")
        assert f"{{{ns.DISPLAYED}}}displayed" not in {
            tree.tag for stanza in await bob.receive_all() for tree in stanza.iter()
        }


async def test_the_positions_of_rooms_and_of_others_are_not_ours() -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await chat(alice, "bob@localhost", "a")
        [id] = await ids(bob)
        for by in ("alice@localhost", "room@conference.example"):
            stanza_id = f"<stanza-id xmlns='{ns.STANZA_ID}' by='{by}' id='{id}'/>"
            more = f"<displayed xmlns='{ns.DISPLAYED}'>{stanza_id}</displayed>"
            await displayed(bob, "alice@localhost", "nothing", more)
        for text in ("nonsense", "AAAAAAAAAAAAAAAA"):
            stanza_id = f"<stanza-id xmlns='{ns.STANZA_ID}' by='bob@localhost' id='{text}'/>"
            more = f"<displayed xmlns='{ns.DISPLAYED}'>{stanza_id}</displayed>"
            await displayed(bob, "alice@localhost", "nothing", more)
        assert (await listed(bob)).short == [("alice", "1", "a")]


async def test_a_client_finds_out_that_there_is_a_list() -> None:
    async with world("disco") as w:
        bob = await w.login("bob")
        for to, expected in (("bob@localhost", True), ("localhost", False)):
            answer = await bob.ask("get", f"<query xmlns='{ns.DISCO_INFO}'/>", to=to)
            features = {feature.get("var") for feature in answer[0]}
            assert (ns.CONVERSATIONS in features) is expected
            assert ns.RETRACTION in features
            assert (f"{ns.RETRACTION}#tombstone" in features) is expected
