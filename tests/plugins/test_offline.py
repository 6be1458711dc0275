"""Offline messages (XEP-0160) with their stamps (XEP-0203)."""

import asyncio
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from stores import new_store

from xmppd import ns
from xmppd.errors import StoreUnavailable
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Delete, Key, Page, Put, Store, Table
from xmppd.testing import Client, World, refusal
from xmppd.xml.build import element, stanza_of

UNAVAILABLE = f"<error type='cancel'><service-unavailable xmlns='{ns.STANZA_ERRORS}'/></error>"
BODY = f"{{{ns.CLIENT}}}body"


def stamp(seconds: int = 0) -> str:
    return f"<delay xmlns='{ns.DELAY}' from='localhost' stamp='2023-11-14T22:13:{20 + seconds}.000Z'/>"


async def bodies(client: Client) -> list[str | None]:
    return [stanza.findtext(BODY) for stanza in await client.receive_all() if stanza.find(BODY) is not None]


async def chat(client: Client, to: str, *texts: str) -> None:
    for text in texts:
        await client.send(f"<message to='{to}' type='chat'><body>{text}</body></message>")


def total(world: World, counter: str) -> int:
    """What all nodes have counted."""
    return sum(getattr(offline, counter).value for offline in world.plugins("offline"))


async def become_available(client: Client, priority: int = 0) -> None:
    await client.send(f"<presence><priority>{priority}</priority></presence>")


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["", " type='chat'", " type='normal'", " type='unheard-of'"])
async def test_a_message_waits_for_its_receiver(kind: str) -> None:
    async with World(plugins=("offline",)) as world:
        alice = await world.login("alice")
        await alice.send(f"<message to='bob@localhost' id='m1'{kind}><body>hi &amp; &lt;</body></message>")
        await alice.expect_nothing()
        await world.advance(5)
        bob = await world.bind("bob")
        await bob.send("<presence/>")
        await bob.expect(f"<presence from='{bob.jid}' to='bob@localhost'/>")
        await bob.expect(
            f"<message to='bob@localhost' id='m1'{kind} from='{alice.jid}'><body>hi &amp; &lt;</body>"
            f"{stamp()}</message>"
        )
        await bob.expect_nothing()


@pytest.mark.asyncio
async def test_messages_come_in_order_with_their_own_stamps_and_once() -> None:
    async with World(plugins=("offline",)) as world:
        alice, carol = await world.login("alice"), await world.login("carol")
        for second in range(4):
            sender = (alice, carol)[second % 2]
            await chat(sender, "bob@localhost", f"{second}a", f"{second}b")
            await world.advance(1)
        bob = await world.bind("bob")
        await become_available(bob)
        received = [s for s in await bob.receive_all() if s.tag == f"{{{ns.CLIENT}}}message"]
        assert [s.findtext(BODY) for s in received] == ["0a", "0b", "1a", "1b", "2a", "2b", "3a", "3b"]
        stamps = [s.find(f"{{{ns.DELAY}}}delay").get("stamp") for s in received]  # type: ignore[union-attr]
        assert [s[-7:-5] for s in stamps] == ["20", "20", "21", "21", "22", "22", "23", "23"]
        again = await world.bind("bob")
        await become_available(again)
        assert await bodies(again) == []


class WatchedStore(SqliteStore):
    """A store that remembers the longest page it gave away."""

    longest = 0

    async def scan(self, table: Table, *args: object, **kwargs: object) -> Page:
        page = await super().scan(table, *args, **kwargs)  # type: ignore[arg-type]
        self.longest = max(self.longest, len(page.rows))
        return page


@pytest.mark.asyncio
async def test_many_messages_of_one_moment_keep_their_order_over_several_pages() -> None:
    store = WatchedStore(":memory:")
    async with World(plugins=("offline",), store=store) as world:
        alice = await world.login("alice")
        sent = [str(number) for number in range(250)]
        await alice.send("".join(f"<message to='bob@localhost'><body>{n}</body></message>" for n in sent))
        bob = await world.bind("bob")
        await become_available(bob)
        assert await bodies(bob) == sent
        assert total(world, "delivered") == 250
        assert [row async for row in world.plugin("offline").queue.everything()] == []
        assert store.longest == 100


class CountingStore(SqliteStore):
    """A store that remembers what was deleted."""

    async def batch(self, table: Table, partition: Key, writes: Sequence[Put | Delete], **how: Any) -> bool:
        self.removals = [write for write in writes if isinstance(write, Delete)]
        return await super().batch(table, partition, writes, **how)


@pytest.mark.asyncio
async def test_what_nobody_else_may_be_writing_to_is_deleted_at_once() -> None:
    store = CountingStore(":memory:")
    async with World(plugins=("offline",), store=store) as world:
        await chat(await world.login("alice"), "bob@localhost", "first", "second")
        for _ in range(10):
            await world.advance(10)
        await chat(await world.login("carol"), "bob@localhost", "third")
        bob = await world.bind("bob")
        await become_available(bob)
        assert await bodies(bob) == ["first", "second", "third"]
        is_shared = world.app.ids.is_shared
        assert [write.through for write in store.removals] == ([True, False] if is_shared else [True])
        assert [row async for row in world.plugin("offline").queue.everything()] == []


@pytest.mark.asyncio
@pytest.mark.parametrize("pause", [0, 60])
async def test_messages_survive_restarts_in_order(pause: int, tmp_path: Path) -> None:
    for run, sent in enumerate((["1", "2", "3"], ["4"])):
        store = new_store(tmp_path / "xmppd.sqlite")
        async with World(
            accounts=() if run else ("alice", "bob"), plugins=("offline",), store=store
        ) as world:
            world.clock.seconds = pause * run
            await chat(await world.login("alice"), "bob@localhost", *sent)
    store = new_store(tmp_path / "xmppd.sqlite")
    async with World(accounts=(), plugins=("offline",), store=store) as world:
        bob = await world.bind("bob")
        await become_available(bob)
        received = await bodies(bob)
        assert (
            received == ["1", "2", "3", "4"] if pause else sorted(map(str, received)) == ["1", "2", "3", "4"]
        )


@pytest.mark.asyncio
async def test_the_sender_waits_until_the_message_is_durable(store: Store) -> None:
    async with World(plugins=("offline",), store=store) as world:
        alice = await world.login("alice")
        alice.write(
            "<message to='bob@localhost'><body>x</body></message>"
            f"<iq type='get' id='after'><query xmlns='{ns.ROSTER}'/></iq>"
        )
        while b"id='after'" not in alice.raw:  # noqa: ASYNC110 - at every turn of the loop
            await asyncio.sleep(0)
        kept = await world.plugin("offline").queue.scan("bob@localhost")
        assert kept.rows, "the next stanza was answered before the message was stored"


class SlowStore(SqliteStore):
    """A store that looks long for messages while told to."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.opened = asyncio.Event()
        self.opened.set()

    async def scan(self, table: Table, *args: object, **kwargs: object) -> Page:
        if table.name == "offline_queue":
            await self.opened.wait()
        return await super().scan(table, *args, **kwargs)  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_what_is_sent_during_delivery_comes_after_what_waited() -> None:
    store = SlowStore()
    async with World(plugins=("offline",), store=store) as world:
        alice = await world.login("alice")
        await chat(alice, "bob@localhost", "sent before")
        bob = await world.bind("bob")
        store.opened.clear()
        bob.write("<presence/>")
        alice.write("<message to='bob@localhost' type='chat'><body>sent now</body></message>")
        for _ in range(10):
            await asyncio.sleep(0)
        assert b"sent" not in bob.raw
        store.opened.set()
        assert await bodies(bob) == ["sent before", "sent now"]


class FullStore(SqliteStore):
    """A store whose disk is full for offline messages."""

    async def batch(self, table: Table, partition: Key, writes: Sequence[Put | Delete], **how: Any) -> bool:
        if table.name == "offline_queue":
            raise StoreUnavailable("the disk is full")
        return await super().batch(table, partition, writes, **how)


@pytest.mark.asyncio
async def test_what_cannot_be_stored_is_refused() -> None:
    async with World(plugins=("offline",), store=FullStore(":memory:")) as world:
        alice = await world.login("alice")
        await chat(alice, "bob@localhost", "x")
        assert refusal(await alice.receive()) == "wait resource-constraint"


@pytest.mark.asyncio
async def test_without_the_plugin_the_sender_is_told() -> None:
    async with World() as world:
        alice = await world.login("alice")
        await chat(alice, "bob@localhost", "x")
        await alice.expect(
            f"<message type='error' from='bob@localhost' to='{alice.jid}'>{UNAVAILABLE}</message>"
        )


# what is kept, and what is not


@pytest.mark.asyncio
async def test_a_chat_message_to_a_resource_that_is_gone_is_kept() -> None:
    async with World(plugins=("offline",)) as world:
        alice = await world.login("alice")
        await chat(alice, "bob@localhost/gone", "x")
        bob = await world.bind("bob")
        await become_available(bob)
        await bob.receive()
        await bob.expect(
            f"<message to='bob@localhost/gone' type='chat' from='{alice.jid}'>"
            f"<body>x</body>{stamp()}</message>"
        )


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "content",
    [
        "<composing xmlns='{states}'/>",
        "<thread>t</thread><gone xmlns='{states}'/>",
        "<paused xmlns='{states}'/><no-store xmlns='urn:xmpp:hints'/>",
    ],
)
async def test_chat_states_alone_are_dropped_in_silence(content: str) -> None:
    async with World(plugins=("offline",)) as world:
        alice = await world.login("alice")
        await alice.send(
            f"<message to='bob@localhost' type='chat'>{content.format(states=ns.CHAT_STATES)}</message>"
        )
        await alice.expect_nothing()
        bob = await world.bind("bob")
        await become_available(bob)
        await bob.expect(f"<presence from='{bob.jid}' to='bob@localhost'><priority>0</priority></presence>")
        await bob.expect_nothing()


@pytest.mark.asyncio
async def test_a_body_with_a_chat_state_is_kept() -> None:
    async with World(plugins=("offline",)) as world:
        alice = await world.login("alice")
        active = f"<active xmlns='{ns.CHAT_STATES}'/>"
        await alice.send(f"<message to='bob@localhost' type='chat'><body>x</body>{active}</message>")
        bob = await world.bind("bob")
        await become_available(bob)
        assert await bodies(bob) == ["x"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("kind", "more"), [("chat", "<no-store xmlns='urn:xmpp:hints'/>"), ("groupchat", "")]
)
async def test_what_may_not_be_stored_is_refused(kind: str, more: str) -> None:
    async with World(plugins=("offline",)) as world:
        alice = await world.login("alice")
        await alice.send(f"<message to='bob@localhost' type='{kind}'><body>x</body>{more}</message>")
        await alice.expect(
            f"<message type='error' from='bob@localhost' to='{alice.jid}'>{UNAVAILABLE}</message>"
        )
        bob = await world.bind("bob")
        await become_available(bob)
        assert await bodies(bob) == []


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["headline", "error"])
async def test_headlines_and_errors_are_not_kept(kind: str) -> None:
    async with World(plugins=("offline",)) as world:
        alice = await world.login("alice")
        await alice.send(f"<message to='bob@localhost' type='{kind}'><body>x</body></message>")
        await alice.expect_nothing()
        bob = await world.bind("bob")
        await become_available(bob)
        assert await bodies(bob) == []


@pytest.mark.asyncio
async def test_nothing_is_kept_for_an_account_that_does_not_exist() -> None:
    async with World(plugins=("offline",)) as world:
        alice = await world.login("alice")
        await chat(alice, "nobody@localhost", "x")
        assert refusal(await alice.receive()) == "cancel service-unavailable"
        assert total(world, "stored") == 0


@pytest.mark.asyncio
async def test_a_stamp_that_pretends_to_be_the_server_s_is_taken_off() -> None:
    async with World(plugins=("offline",)) as world:
        alice = await world.login("alice")
        forged = f"<delay xmlns='{ns.DELAY}' from='localhost' stamp='1999-01-01T00:00:00Z'/>"
        other = f"<delay xmlns='{ns.DELAY}' from='room@else.where' stamp='1999-01-01T00:00:00Z'/>"
        await alice.send(f"<message to='bob@localhost'>{forged}<body>x</body>{other}</message>")
        bob = await world.bind("bob")
        await become_available(bob)
        await bob.receive()
        await bob.expect(
            f"<message to='bob@localhost' from='{alice.jid}'><body>x</body>{other}{stamp()}</message>"
        )


# how much is kept


@pytest.mark.asyncio
async def test_the_number_of_messages_is_bounded_and_the_rest_refused() -> None:
    async with World(plugins=("offline",), plugin_config={"offline": {"max_messages": 2}}) as world:
        alice = await world.login("alice")
        await chat(alice, "bob@localhost", "1", "2")
        await alice.expect_nothing()
        await chat(alice, "bob@localhost", "3")
        assert refusal(await alice.receive()) == "cancel service-unavailable"
        bob = await world.bind("bob")
        await become_available(bob)
        assert await bodies(bob) == ["1", "2"]
        await bob.drop()
        await chat(alice, "bob@localhost", "4", "5")
        await alice.expect_nothing()
        await chat(alice, "bob@localhost", "6")
        assert refusal(await alice.receive()) == "cancel service-unavailable"
        assert total(world, "refused") == 2


@pytest.mark.asyncio
async def test_their_size_is_bounded() -> None:
    async with World(plugins=("offline",), plugin_config={"offline": {"max_bytes": 1000}}) as world:
        alice = await world.login("alice")
        await chat(alice, "bob@localhost", "x" * 700)
        await alice.expect_nothing()
        await chat(alice, "bob@localhost", "y" * 700)
        assert refusal(await alice.receive()) == "cancel service-unavailable"
        await chat(alice, "carol@localhost", "z" * 700)
        await alice.expect_nothing()


@pytest.mark.one_node("what another node stores at the same moment is not seen: test_offline_bounds")
@pytest.mark.asyncio
async def test_senders_at_once_do_not_get_past_the_bound(store: Store) -> None:
    async with World(
        plugins=("offline",), store=store, plugin_config={"offline": {"max_messages": 5}}
    ) as world:
        senders = [await world.login("alice") for _ in range(8)]
        for number, sender in enumerate(senders):
            sender.write(f"<message to='bob@localhost'><body>{number}</body></message>")
        await world.settle()
        refused = [await sender.receive_all() for sender in senders]
        assert sum(any(s.get("type") == "error" for s in received) for received in refused) == 3
        bob = await world.bind("bob")
        await become_available(bob)
        assert len(await bodies(bob)) == 5


# to whom they go


@pytest.mark.asyncio
@pytest.mark.parametrize("account", ["bob@localhost", "nobody@localhost"])
async def test_a_receiver_who_came_or_went_for_good_meanwhile_has_nothing_kept(account: str) -> None:
    async with World(plugins=("offline",)) as world:
        await world.login("bob")
        message = stanza_of(element(f"{{{ns.CLIENT}}}message", {"from": "alice@localhost/x"}))
        kept = world.plugin("offline").keep(account, message)
        assert (await kept if inspect.isawaitable(kept) else kept) is message
        assert total(world, "stored") == 0


CLAIMS = '''
from xmppd import hooks
from xmppd.plugin import Plugin

class Claims(Plugin):
    """Takes all messages for itself."""
    @hooks.message_unclaimed
    def take(self, account, message):
        return hooks.DROP
'''


@pytest.mark.asyncio
async def test_another_plugin_may_take_a_message_first(tmp_path: Path) -> None:
    (tmp_path / "claims.py").write_text(CLAIMS)
    async with World(plugins=("offline", "claims"), plugin_folders=(tmp_path,)) as world:
        alice = await world.login("alice")
        await chat(alice, "bob@localhost", "x")
        await alice.expect_nothing()
        assert total(world, "stored") == 0


@pytest.mark.asyncio
async def test_a_negative_priority_takes_nothing_until_it_rises() -> None:
    async with World(plugins=("offline",)) as world:
        alice, bob = await world.login("alice"), await world.bind("bob")
        await become_available(bob, -1)
        await chat(alice, "bob@localhost", "x")
        assert await bodies(bob) == []
        await become_available(bob, 0)
        assert await bodies(bob) == ["x"]


@pytest.mark.asyncio
async def test_one_of_two_resources_that_come_at_once_gets_everything(store: Store) -> None:
    async with World(plugins=("offline",), store=store) as world:
        alice = await world.login("alice")
        sent = [str(number) for number in range(150)]
        await chat(alice, "bob@localhost", *sent)
        bobs = [await world.bind("bob") for _ in range(3)]
        for bob in bobs:
            bob.write("<presence/>")
        await world.settle()
        received = [await bodies(bob) for bob in bobs]
        assert sorted(map(len, received)) == [0, 0, 150]
        assert sent in received


@pytest.mark.asyncio
async def test_who_leaves_before_the_messages_came_finds_them_next_time() -> None:
    async with World(plugins=("offline",)) as world:
        alice = await world.login("alice")
        await chat(alice, "bob@localhost", "x")
        bob = await world.bind("bob")
        bob.write("<presence/>")
        bob.transport.close()
        await world.settle()
        again = await world.bind("bob")
        await become_available(again)
        assert await bodies(again) == ["x"]


@pytest.mark.asyncio
async def test_they_go_with_their_account() -> None:
    async with World(plugins=("offline",)) as world:
        alice = await world.login("alice")
        await chat(alice, "bob@localhost", "x")
        await world.app.commands.call("user remove", {"account": "bob@localhost"})
        await world.app.accounts.create("bob@localhost", "secret")
        bob = await world.bind("bob")
        await become_available(bob)
        assert await bodies(bob) == []
