"""What a block does (XEP-0191 3.3): for every kind of stanza, in both directions; and what nobody learns."""

import asyncio
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest

from xmppd import ns
from xmppd.testing import Client, World, refusal

ALICE, BOB = "alice@localhost", "bob@localhost"
BLOCKED = f"{{{ns.BLOCKING_ERRORS}}}blocked"
FORMS = ("bob@localhost", "bob@localhost/b", "localhost")
"""Whom alice blocks: each has bob's session among them."""

MESSAGES = ("normal", "chat", "groupchat", "headline", "error")
PRESENCES = (
    "",
    "unavailable",
    "probe",
    "subscribe",
    "subscribed",
    "unsubscribe",
    "unsubscribed",
    "error",
)
IQS = ("get", "set", "result", "error")
SUBSCRIPTIONS = ("subscribe", "subscribed", "unsubscribe", "unsubscribed")

STANZAS = {
    **{
        f"message {kind}": f"<message id='m' type='{kind}' to='{{to}}'><body>x</body></message>"
        for kind in MESSAGES
    },
    **{
        f"presence {kind}": f"<presence id='p'{kind and f' type={kind!r}'} to='{{to}}'/>"
        for kind in PRESENCES
    },
    **{f"iq {kind}": f"<iq id='i' type='{kind}' to='{{to}}'><query xmlns='urn:x'/></iq>" for kind in IQS},
}
"""Every kind of stanza there is."""

SILENT = frozenset(
    ("message headline", "message error", "iq result", "iq error", *(f"presence {k}" for k in PRESENCES))
)
"""What nobody is told of who sends it to one who has blocked him."""


def server(**more: object) -> World:
    return World(plugins=("blocking", "disco", "offline", "vcard", "last"), **more)


async def block(client: Client, *addresses: str, world: World) -> None:
    items = "".join(f"<item jid='{address}'/>" for address in addresses)
    await client.send(f"<iq type='set' id='block'><block xmlns='{ns.BLOCKING}'>{items}</block></iq>")
    answers = [s for s in await client.receive_all() if s.get("id") == "block"]
    assert [answer.get("type") for answer in answers] == ["result"]
    for other in world.clients:
        await other.receive_all()


async def unblock(client: Client, *addresses: str) -> None:
    items = "".join(f"<item jid='{address}'/>" for address in addresses)
    await client.send(f"<iq type='set' id='unblock'><unblock xmlns='{ns.BLOCKING}'>{items}</unblock></iq>")
    await client.world.settle()


async def pair(world: World) -> tuple[Client, Client]:
    return await world.login("alice", "a"), await world.login("bob", "b")


def about_presence(received: list[Element]) -> list[tuple[str | None, str | None]]:
    return [(s.get("from"), s.get("type")) for s in received if s.tag.endswith("presence")]


def bodies(received: list[Element]) -> list[str | None]:
    return [s.findtext(f"{{{ns.CLIENT}}}body") for s in received if s.tag.endswith("message")]


# the matrix


@pytest.mark.asyncio
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("to", [ALICE, "alice@localhost/a"])
async def test_who_is_blocked_reaches_nobody(form: str, to: str) -> None:
    async with server() as world:
        alice, bob = await pair(world)
        await block(alice, form, world=world)
        for name, stanza in STANZAS.items():
            if form.endswith("/b") and name.removeprefix("presence ") in SUBSCRIPTIONS:
                continue  # these are from the account
            await bob.send(stanza.format(to=to))
            answers = [s for s in await bob.receive_all() if s.get("from") in (ALICE, to)]
            if name in SILENT:
                assert answers == [], name
            else:
                assert [refusal(s) for s in answers] == ["cancel service-unavailable"], name
            assert await alice.receive_all() == [], name
        assert [row async for row in world.plugin("offline").queue.everything()] == []


@pytest.mark.asyncio
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("to", [BOB, "bob@localhost/b"])
async def test_who_blocks_sends_nothing_there(form: str, to: str) -> None:
    async with server() as world:
        alice, bob = await pair(world)
        await block(alice, form, world=world)
        for name, stanza in STANZAS.items():
            if form.endswith("/b") and to == BOB:
                continue
            await alice.send(stanza.format(to=to))
            answers = await alice.receive_all()
            if name in ("message error", "presence error", "iq result", "iq error"):
                assert answers == [], name
            else:
                [answer] = answers
                assert refusal(answer) == "cancel not-acceptable", name
                assert answer.find(f"{{{ns.CLIENT}}}error/{BLOCKED}") is not None
                assert answer.get("from") == to
            assert await bob.receive_all() == [], name


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [name for name in STANZAS if name not in SILENT])
@pytest.mark.parametrize("resource", ["", "/a"])
async def test_who_is_blocked_is_told_the_same_as_of_nobody(kind: str, resource: str) -> None:
    async with World(plugins=("blocking",)) as world:
        alice, bob = await pair(world)
        await block(alice, BOB, world=world)
        answers = []
        for name in ("alice", "nobody"):
            await bob.send(STANZAS[kind].format(to=f"{name}@localhost{resource}"))
            answers.append(await bob.receive())
            answers[-1].attrib.pop("from")
        one, other = answers
        assert one.attrib == other.attrib
        assert refusal(one) == refusal(other)
        assert [child.tag for child in one[0]] == [child.tag for child in other[0]]


@pytest.mark.asyncio
async def test_only_the_resource_that_is_blocked_is() -> None:
    async with server() as world:
        alice, bob = await pair(world)
        other = await world.login("bob", "other")
        await block(alice, "bob@localhost/b", world=world)
        for client, is_blocked in ((bob, True), (other, False)):
            expected = [] if is_blocked else ["hi"]
            await client.send(f"<message to='{ALICE}'><body>hi</body></message>")
            assert bodies(await alice.receive_all()) == expected
            await client.receive_all()
            await alice.send(f"<message to='{client.jid}'><body>hi</body></message>")
            assert bodies(await client.receive_all()) == expected
            await alice.receive_all()


@pytest.mark.asyncio
async def test_a_block_of_the_domain_spares_the_server_and_oneself() -> None:
    async with server() as world:
        alice = await world.login("alice", "a")
        second = await world.login("alice", "second")
        await block(alice, "localhost", ALICE, world=world)
        answer = await alice.ask("get", f"<query xmlns='{ns.DISCO_INFO}'/>", to="localhost")
        assert answer.get("type") == "result"
        await alice.send(f"<message to='{second.jid}'><body>hi</body></message>")
        assert bodies(await second.receive_all()) == ["hi"]
        await second.send("<presence><show>away</show></presence>")
        assert about_presence(await alice.receive_all()) == [(second.jid, None)]


# presence


@pytest.mark.asyncio
async def test_to_who_is_blocked_the_account_goes_offline_and_stays_so() -> None:
    async with server() as world:
        alice, bob = await pair(world)
        await world.befriend(alice, bob)
        answer = await alice.ask("set", f"<block xmlns='{ns.BLOCKING}'><item jid='{BOB}'/></block>")
        assert answer.get("type") == "result"
        await bob.expect(f"<presence type='unavailable' from='{alice.jid}' to='{BOB}'/>")
        await alice.send("<presence><show>away</show></presence>")
        await alice.receive_all()
        await bob.send("<presence><show>dnd</show></presence>")
        await bob.expect(f"<presence from='{bob.jid}' to='{BOB}'><show>dnd</show></presence>")
        await alice.expect_nothing()
        await alice.send("<presence type='unavailable'><status>bye</status></presence>")
        await alice.receive_all()
        await bob.send(f"<presence type='probe' to='{ALICE}'/>")
        await bob.expect_nothing()


@pytest.mark.asyncio
@pytest.mark.parametrize("is_gone", [False, True])
async def test_who_comes_online_is_shown_nothing_by_either(is_gone: bool) -> None:
    async with server() as world:
        alice, bob = await pair(world)
        await world.befriend(alice, bob)
        await block(alice, BOB, world=world)
        if is_gone:
            await alice.send("<presence type='unavailable'><status>bye</status></presence>")
            await alice.drop()
        await bob.send("<presence type='unavailable'><status>secret</status></presence>")
        await bob.receive_all()
        await bob.send("<presence/>")
        assert {name for name, _ in about_presence(await bob.receive_all())} == {bob.jid}
        alice = await world.login("alice", "new")
        await alice.send("<presence type='unavailable'/>")
        await alice.receive_all()
        await alice.send("<presence/>")
        assert {name for name, _ in about_presence(await alice.receive_all())} <= {
            alice.jid,
            "alice@localhost/a",
        }
        await bob.expect_nothing()


@pytest.mark.asyncio
async def test_last_words_are_not_said_to_who_is_blocked() -> None:
    async with server() as world:
        alice, bob = await pair(world)
        await world.befriend(alice, bob)
        await alice.send("<presence type='unavailable'><status>bye</status></presence>")
        await block(alice, BOB, world=world)
        await alice.drop()
        for app in world.apps:
            app.blocks.release()
        await bob.send("<presence type='unavailable'/>")
        await bob.receive_all()
        await bob.send("<presence/>")
        assert {name for name, _ in about_presence(await bob.receive_all())} == {bob.jid}


@pytest.mark.asyncio
async def test_directed_presence_ends_with_a_block() -> None:
    async with server() as world:
        alice, bob = await pair(world)
        await alice.send(f"<presence to='{bob.jid}'/>")
        await bob.expect(f"<presence from='{alice.jid}' to='{bob.jid}'/>")
        await alice.ask("set", f"<block xmlns='{ns.BLOCKING}'><item jid='{BOB}'/></block>")
        await bob.expect(f"<presence type='unavailable' from='{alice.jid}' to='{bob.jid}'/>")
        await alice.drop()
        await bob.expect_nothing()


@pytest.mark.asyncio
async def test_a_resource_that_is_blocked_is_shown_the_end() -> None:
    async with server() as world:
        alice, bob = await pair(world)
        await world.befriend(alice, bob)
        other = await world.login("bob", "other")
        await bob.receive_all()
        await alice.ask("set", f"<block xmlns='{ns.BLOCKING}'><item jid='{bob.jid}'/></block>")
        await bob.expect(f"<presence type='unavailable' from='{alice.jid}' to='{bob.jid}'/>")
        await other.expect_nothing()


@pytest.mark.asyncio
async def test_strangers_are_shown_nothing_when_they_are_blocked() -> None:
    async with server() as world:
        alice, bob = await pair(world)
        await alice.ask("set", f"<block xmlns='{ns.BLOCKING}'><item jid='{BOB}'/></block>")
        await bob.expect_nothing()
        await unblock(alice, BOB)
        await bob.expect_nothing()


@pytest.mark.asyncio
@pytest.mark.parametrize("addresses", [(BOB,), ("localhost",), (), ("bob@localhost/b",)])
async def test_who_is_unblocked_and_the_account_see_each_other_again(addresses: tuple[str, ...]) -> None:
    async with server() as world:
        alice, bob = await pair(world)
        await world.befriend(alice, bob)
        await block(alice, *(addresses or (BOB,)), world=world)
        await bob.send("<presence><show>dnd</show></presence>")
        await bob.receive_all()
        await unblock(alice, *addresses)
        assert (alice.jid, None) in about_presence(await bob.receive_all())
        assert (bob.jid, None) in about_presence(await alice.receive_all())
        await bob.send(f"<message to='{ALICE}'><body>again</body></message>")
        assert bodies(await alice.receive_all()) == ["again"]


@pytest.mark.asyncio
async def test_who_is_blocked_otherwise_still_is() -> None:
    async with server() as world:
        alice, bob = await pair(world)
        await world.befriend(alice, bob)
        await block(alice, "localhost", BOB, world=world)
        await unblock(alice, BOB)
        await bob.expect_nothing()
        await unblock(alice, "localhost")
        assert about_presence(await bob.receive_all()) == [(alice.jid, None)]


# subscriptions


@pytest.mark.asyncio
async def test_a_request_of_who_is_blocked_is_not_shown_now_or_later() -> None:
    async with server() as world:
        alice, bob = await pair(world)
        carol = await world.login("carol")
        await alice.send("<presence type='unavailable'/>")
        await bob.send(f"<presence type='subscribe' to='{ALICE}'/>")
        await block(alice, BOB, "carol@localhost", world=world)
        await carol.send(f"<presence type='subscribe' to='{ALICE}'/>")
        await alice.receive_all()
        await alice.send("<presence/>")
        assert about_presence(await alice.receive_all()) == [(alice.jid, None)]
        await carol.receive_all()
        items = await world.app.rosters.items(ALICE)
        assert [item.contact for item in items] == [BOB], "what came before waits on"


@pytest.mark.asyncio
async def test_what_ends_a_subscription_ends_it_on_both_sides() -> None:
    async with server() as world:
        alice, bob = await pair(world)
        await world.befriend(alice, bob)
        await block(alice, BOB, world=world)
        item = f"<item jid='{ALICE}' subscription='remove'/>"
        await bob.send(f"<iq type='set' id='r'><query xmlns='{ns.ROSTER}'>{item}</query></iq>")
        received = await alice.receive_all()
        assert about_presence(received) == []
        [item] = await world.app.rosters.items(ALICE)
        assert item.subscription == "none"
        await bob.receive_all()
        await unblock(alice, BOB)
        await bob.expect_nothing()


# what was kept


@pytest.mark.asyncio
async def test_what_was_kept_is_not_given_to_who_blocked_its_sender_meanwhile() -> None:
    async with server() as world:
        alice, bob = await pair(world)
        carol = await world.login("carol")
        await alice.send("<presence type='unavailable'/>")
        for client in (bob, carol):
            await client.send(f"<message type='chat' to='{ALICE}'><body>{client.bare}</body></message>")
        await block(alice, BOB, world=world)
        await alice.send("<presence/>")
        assert bodies(await alice.receive_all()) == ["carol@localhost"]
        await bob.send(f"<message to='{alice.jid}'><body>after that</body></message>")
        assert refusal(await bob.receive()) == "cancel service-unavailable"
        assert [row async for row in world.plugin("offline").queue.everything()] == []


@pytest.mark.asyncio
async def test_nothing_is_kept_for_who_is_away_and_has_blocked_its_sender() -> None:
    async with server() as world:
        alice, bob = await pair(world)
        await block(alice, BOB, world=world)
        await alice.drop()
        for is_known in (True, False):
            if not is_known:
                for app in world.apps:
                    app.blocks.release()
            await bob.send(f"<message type='chat' to='{ALICE}'><body>x</body></message>")
            assert refusal(await bob.receive()) == "cancel service-unavailable"
            answer = await bob.ask("get", f"<vCard xmlns='{ns.VCARD}'/>", to=ALICE)
            assert refusal(answer) == "cancel service-unavailable"
        for app in world.apps:
            app.blocks.release()
        await bob.send(f"<presence type='probe' to='{ALICE}'/>")
        await bob.expect_nothing()
        for app in world.apps:
            app.blocks.release()
        await bob.send(f"<presence type='subscribe' to='{ALICE}'/>")
        assert about_presence(await bob.receive_all()) == []
        assert await world.app.rosters.items(ALICE) == []
        assert [row async for row in world.plugin("offline").queue.everything()] == []


@pytest.mark.asyncio
async def test_what_is_kept_about_an_account_is_not_told_to_who_is_blocked() -> None:
    async with server() as world:
        alice, bob = await pair(world)
        await world.befriend(alice, bob)
        await alice.ask("set", f"<vCard xmlns='{ns.VCARD}'><FN>A</FN></vCard>", to=ALICE)
        await block(alice, BOB, world=world)
        for payload in (
            f"<vCard xmlns='{ns.VCARD}'/>",
            f"<query xmlns='{ns.LAST}'/>",
            f"<query xmlns='{ns.DISCO_INFO}'/>",
            f"<query xmlns='{ns.ROSTER}'/>",
        ):
            for to in (ALICE, alice.jid):
                answer = await bob.ask("get", payload, to=to)
                assert refusal(answer) == "cancel service-unavailable", payload
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_plugins_are_told_that_who_is_blocked_may_not_see() -> None:
    async with server() as world:
        alice, bob = await pair(world)
        await world.befriend(alice, bob)
        await block(alice, BOB, world=world)
        await alice.drop()
        for app in world.apps:
            app.blocks.release()
            assert not await app.server.may_see(BOB, ALICE)
            app.blocks.release()
        await world.app.blocking.unblock_all(ALICE)
        assert await world.app.server.may_see(BOB, ALICE)


ASK = """
from xmppd.plugin import Plugin, StanzaError, element, service

class Asker(Plugin):
    async def start(self):
        self.kinds = []

    @service("asker")
    async def answer(self, origin, stanza, to):
        self.kinds.append(stanza.type)
        if stanza.type == "subscribe":
            attrs = {"type": "subscribed", "from": to.bare, "to": origin.account}
            await self.server.send(element("{jabber:client}presence", attrs))

    async def ask(self, jid):
        try:
            return await self.server.ask(jid, element("{urn:x}query"), sender="asker.localhost", seconds=1)
        except StanzaError as error:
            return error.condition

    async def tell(self, accounts, kind):
        return await self.server.send_many(accounts, element(kind, {"from": "asker.localhost"}))
"""


@pytest.mark.asyncio
async def test_a_service_may_be_blocked(tmp_path: Path) -> None:
    (tmp_path / "asker.py").write_text(ASK)
    async with World(plugins=("blocking", "asker"), plugin_folders=(tmp_path,)) as world:
        alice = await world.login("alice")
        asker = world.plugin("asker")
        message = f"{{{ns.CLIENT}}}message"
        assert await asker.tell([ALICE], message) == 1
        await alice.receive_all()
        await alice.send("<presence type='subscribe' to='x@asker.localhost'/>")
        await alice.receive_all()
        await alice.send("<presence type='unavailable'/><presence/>")
        await alice.receive_all()
        assert asker.kinds == ["subscribe", "probe"]
        await block(alice, "asker.localhost", world=world)
        await alice.send("<presence type='unavailable'/><presence/>")
        await alice.receive_all()
        assert asker.kinds == ["subscribe", "probe"]
        assert await asker.ask(alice.jid) == "service-unavailable"
        for kind in (message, f"{{{ns.CLIENT}}}presence"):
            await asker.tell([ALICE], kind)
        await alice.expect_nothing()
        await alice.send("<message to='x@asker.localhost'/>")
        assert refusal(await alice.receive()) == "cancel not-acceptable"
        assert await world.app.server.send_many([ALICE], Element(message, {"from": "localhost"})) == 1


# its life


@pytest.mark.asyncio
async def test_a_block_outlives_its_session_and_ends_with_its_account() -> None:
    async with server() as world:
        alice, bob = await pair(world)
        await block(alice, BOB, world=world)
        await alice.drop()
        alice = await world.login("alice", "a")
        for to in (ALICE, alice.jid):
            await bob.send(f"<message to='{to}'><body>x</body></message>")
            assert refusal(await bob.receive()) == "cancel service-unavailable"
        await world.app.server.remove_account(ALICE)
        await world.app.accounts.create(ALICE, "secret")
        heir = await world.login("alice", "a")
        await bob.receive_all()
        await bob.send(f"<message to='{ALICE}'><body>x</body></message>")
        assert bodies(await heir.receive_all()) == ["x"]


@pytest.mark.asyncio
async def test_a_list_that_was_imported_works_at_once() -> None:
    async with server() as world:
        alice, bob = await pair(world)
        await world.befriend(alice, bob)
        await world.app.blocking.replace(ALICE, [BOB], is_bounded=False)
        await bob.expect(f"<presence type='unavailable' from='{alice.jid}' to='{BOB}'/>")
        await bob.send(f"<message to='{ALICE}'><body>x</body></message>")
        assert refusal(await bob.receive()) == "cancel service-unavailable"
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_it_holds_without_the_plugin_that_changes_it() -> None:
    async with World() as world:
        await world.app.blocking.block(ALICE, [BOB])
        alice, bob = await pair(world)
        await bob.send(f"<message to='{ALICE}'><body>x</body></message>")
        assert refusal(await bob.receive()) == "cancel service-unavailable"
        await alice.expect_nothing()


WATCH = """
from xmppd import hooks
from xmppd.plugin import Plugin

class Watch(Plugin):
    async def start(self):
        self.filtered, self.routed = [], []

    @hooks.message_for
    def note(self, account, message):
        self.filtered.append(account)
        return message

    @hooks.iq_for
    def note_iq(self, account, iq):
        self.filtered.append(account)
        return iq

    @hooks.presence_for
    def note_presence(self, account, presence):
        self.filtered.append(account)
        return presence

    @hooks.message_routed
    def done(self, origin, message, account, outcome):
        self.routed.append((account, outcome.name))
"""


@pytest.mark.asyncio
async def test_the_filters_of_an_account_see_nothing_of_who_is_blocked(tmp_path: Path) -> None:
    (tmp_path / "watch.py").write_text(WATCH)
    async with World(plugins=("blocking", "watch"), plugin_folders=(tmp_path,)) as world:
        alice, bob = await pair(world)
        await block(alice, BOB, world=world)
        for stanza in STANZAS.values():
            await bob.send(stanza.format(to=ALICE))
        await bob.receive_all()
        await alice.expect_nothing()
        assert [watch.filtered for watch in world.plugins("watch")] == [[]] * len(world.apps)
        routed = [each for watch in world.plugins("watch") for each in watch.routed]
        assert routed == [(ALICE, "REFUSED")] * 3 + [(ALICE, "DROPPED")] * 2


@pytest.mark.asyncio
@pytest.mark.parametrize("is_known", [True, False])
async def test_what_is_refused_is_in_no_archive(is_known: bool) -> None:
    async with World(plugins=("blocking", "offline", "archive")) as world:
        alice, bob = await pair(world)
        carol = await world.login("carol")
        await block(alice, BOB, world=world)
        if not is_known:
            await alice.drop()
            for app in world.apps:
                app.blocks.release()
        message = "<message type='chat' id='{id}' to='{to}'><body>{id}</body></message>"
        for id, to in enumerate((carol.bare, ALICE, carol.bare, ALICE)):
            bob.write(message.format(id=id, to=to))
        answers = await bob.receive_all()
        while len(answers) < 2:  # what was sent before is written down first
            await asyncio.sleep(0.001)
            answers += await bob.receive_all()
        assert [(answer.get("id"), refusal(answer)) for answer in answers] == [
            ("1", "cancel service-unavailable"),
            ("3", "cancel service-unavailable"),
        ]
        assert bodies(await carol.receive_all()) == ["0", "2"]
        if is_known:
            await alice.expect_nothing()
        written = sum(archive.archived.value for archive in world.plugins("archive"))
        assert written == 2 * 2, "two messages, for their sender and their receiver"
