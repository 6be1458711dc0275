"""RFC 6121 8.5: where messages go, cell by cell."""

import pytest

from xmppd.core.delivery import TABLE, Action, Place
from xmppd.testing import World

UNAVAILABLE = (
    "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
)


def body(kind: str, to: str, sender: str = "") -> str:
    """A message as it is sent, or with a sender as it arrives."""
    of_type = f" type='{kind}'" if kind else ""
    stamp = f" from='{sender}'" if sender else ""
    return f"<message{stamp}{of_type} to='{to}' id='m1'><body>hi</body></message>"


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["", "normal", "chat", "groupchat", "headline", "error"])
@pytest.mark.parametrize("priority", [0, 5, -1])
async def test_a_full_jid_is_delivered_to_whatever_the_type_and_priority(kind: str, priority: int) -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob", priority=priority)
        await alice.send(body(kind, bob.jid))
        await bob.expect(body(kind, bob.jid, alice.jid))
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_a_full_jid_is_delivered_to_a_session_without_presence() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.bind("bob")
        await alice.send(body("chat", bob.jid))
        await bob.expect(body("chat", bob.jid, alice.jid))


@pytest.mark.asyncio
async def test_the_priority_of_the_last_presence_counts() -> None:
    async with World() as world:
        alice = await world.login("alice")
        low, top = await world.login("bob", "low", priority=1), await world.login("bob", "top", priority=7)
        await low.send("<presence><priority>9</priority></presence>")
        for bob in (low, top):
            await bob.receive_all()
        await alice.send(body("chat", "bob@localhost"))
        await low.expect(body("chat", "bob@localhost", alice.jid))
        await top.expect_nothing()


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["", "normal", "chat", "nonsense"])
async def test_the_account_gets_it_at_its_highest_priority(kind: str) -> None:
    async with World() as world:
        alice = await world.login("alice")
        low = await world.login("bob", "low", priority=1)
        top = [await world.login("bob", "one", priority=7), await world.login("bob", "two", priority=7)]
        await low.receive_all()
        await top[0].receive_all()
        await alice.send(body(kind, "bob@localhost"))
        for client in top:
            await client.expect(body(kind, "bob@localhost", alice.jid))
        await low.expect_nothing()


@pytest.mark.asyncio
async def test_a_headline_goes_to_every_resource_that_is_not_negative() -> None:
    async with World() as world:
        alice = await world.login("alice")
        one = await world.login("bob", "one", priority=7)
        two = await world.login("bob", "two", priority=0)
        negative = await world.login("bob", "three", priority=-1)
        for client in (one, two, negative):
            await client.receive_all()
        await alice.send(body("headline", "bob@localhost"))
        await one.expect(body("headline", "bob@localhost", alice.jid))
        await two.expect(body("headline", "bob@localhost", alice.jid))
        await negative.expect_nothing()


REFUSED, DROPPED = "refused", "dropped"
NOBODY_READY = {
    "": REFUSED,
    "normal": REFUSED,
    "chat": REFUSED,
    "groupchat": REFUSED,
    "headline": DROPPED,
    "error": DROPPED,
}
"""What happens to a message for the account when no plugin keeps messages."""


@pytest.mark.asyncio
@pytest.mark.parametrize("state", ["no session", "no presence", "negative"])
@pytest.mark.parametrize(("kind", "outcome"), NOBODY_READY.items())
async def test_nobody_is_ready(state: str, kind: str, outcome: str) -> None:
    async with World() as world:
        alice = await world.login("alice")
        bob = None
        if state == "no presence":
            bob = await world.bind("bob")
        elif state == "negative":
            bob = await world.login("bob", priority=-3)
        await alice.send(body(kind, "bob@localhost"))
        if outcome == REFUSED:
            await alice.expect(
                f"<message type='error' id='m1' from='bob@localhost' to='{alice.jid}'>{UNAVAILABLE}</message>"
            )
        await alice.expect_nothing()
        if bob is not None:
            await bob.expect_nothing()


@pytest.mark.asyncio
async def test_groupchat_and_errors_never_reach_an_account() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(body("groupchat", "bob@localhost"))
        await alice.expect(
            f"<message type='error' id='m1' from='bob@localhost' to='{alice.jid}'>{UNAVAILABLE}</message>"
        )
        await alice.send(body("error", "bob@localhost"))
        await alice.expect_nothing()
        await bob.expect_nothing()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("kind", "outcome"),
    [("", REFUSED), ("normal", REFUSED), ("groupchat", REFUSED), ("headline", DROPPED), ("error", DROPPED)],
)
async def test_a_resource_that_is_gone(kind: str, outcome: str) -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(body(kind, "bob@localhost/ghost"))
        if outcome == REFUSED:
            ghost = "bob@localhost/ghost"
            await alice.expect(
                f"<message type='error' id='m1' from='{ghost}' to='{alice.jid}'>{UNAVAILABLE}</message>"
            )
        await alice.expect_nothing()
        await bob.expect_nothing()


@pytest.mark.asyncio
async def test_chat_to_a_resource_that_is_gone_reaches_the_account() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(body("chat", "bob@localhost/ghost"))
        await bob.expect(body("chat", "bob@localhost/ghost", alice.jid))


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["", "chat", "groupchat"])
async def test_an_account_that_does_not_exist(kind: str) -> None:
    async with World() as world:
        alice = await world.login("alice")
        await alice.send(body(kind, "nobody@localhost"))
        await alice.expect(
            f"<message type='error' id='m1' from='nobody@localhost' to='{alice.jid}'>{UNAVAILABLE}</message>"
        )


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("to", "condition"),
    [
        ("@@", "jid-malformed"),
        ("bob@elsewhere.example", "remote-server-not-found"),
        ("localhost", "service-unavailable"),
    ],
)
async def test_addresses_that_lead_nowhere(to: str, condition: str) -> None:
    async with World() as world:
        alice = await world.login("alice")
        await alice.send(body("chat", to))
        error = (await alice.receive()).find("{jabber:client}error")
        assert error is not None
        assert error[0].tag == f"{{urn:ietf:params:xml:ns:xmpp-stanzas}}{condition}"


@pytest.mark.asyncio
@pytest.mark.parametrize("attribute", ["", " to=''"])
async def test_without_an_address_it_goes_to_the_own_account(attribute: str) -> None:
    async with World() as world:
        alice, other = await world.bind("alice"), await world.login("alice", "other")
        await alice.send(f"<message type='chat'{attribute}><body>note</body></message>")
        await other.expect(
            f"<message type='chat' from='{alice.jid}' to='alice@localhost'><body>note</body></message>"
        )


@pytest.mark.asyncio
async def test_addresses_are_compared_after_preparation() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(body("chat", "BOB@LocalHost"))
        await bob.expect(body("chat", "bob@localhost", alice.jid))


@pytest.mark.asyncio
async def test_the_sender_is_stamped_whatever_it_claims() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(
            f"<message from='carol@localhost/x' to='{bob.jid}' type='chat'><body>x</body></message>"
        )
        await bob.expect(f"<message from='{alice.jid}' to='{bob.jid}' type='chat'><body>x</body></message>")


@pytest.mark.asyncio
@pytest.mark.parametrize("own", ["", " xml:lang='fr'"])
async def test_the_language_of_the_stream_is_stamped_where_the_stanza_has_none(own: str) -> None:
    async with World() as world:
        alice, bob = await world.bind("alice", lang="de"), await world.login("bob")
        await alice.send(f"<message to='{bob.jid}'{own}><body>x</body></message>")
        lang = "fr" if own else "de"
        await bob.expect(
            f"<message from='{alice.jid}' to='{bob.jid}' xml:lang='{lang}'><body>x</body></message>"
        )


@pytest.mark.asyncio
async def test_forged_stanza_ids_are_removed() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(
            f"<message to='{bob.jid}' type='chat'><body>x</body>"
            "<stanza-id xmlns='urn:xmpp:sid:0' id='1' by='bob@localhost'/>"
            "<stanza-id xmlns='urn:xmpp:sid:0' id='2' by='LOCALHOST'/>"
            "<stanza-id xmlns='urn:xmpp:sid:0' id='3' by='room@elsewhere.example'/></message>"
        )
        await bob.expect(
            f"<message from='{alice.jid}' to='{bob.jid}' type='chat'><body>x</body>"
            "<stanza-id xmlns='urn:xmpp:sid:0' id='3' by='room@elsewhere.example'/></message>"
        )


@pytest.mark.asyncio
async def test_order_holds_between_two_sessions() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send("".join(body("chat", bob.jid).replace("m1", f"m{n}") for n in range(200)))
        assert [stanza.get("id") for stanza in await bob.receive_all()] == [f"m{n}" for n in range(200)]


def test_the_table_has_every_cell() -> None:
    kinds = {"normal", "chat", "groupchat", "headline", "error"}
    wanted = {(place, kind) for place in Place for kind in kinds} - {(Place.RESOURCE, "chat")}
    assert set(TABLE) == wanted
    assert Action.STORE not in {TABLE[Place.RESOURCE, kind] for kind in kinds - {"chat"}}


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", ["", "de"])
@pytest.mark.parametrize("own", [None, "", "fr"])
async def test_the_language_stays_in_a_message_without_an_address(stream: str, own: str) -> None:
    async with World() as world:
        alice = await world.bind("alice", lang=stream)
        await alice.send("<presence/>")
        await alice.receive_all()
        given = f" xml:lang='{own}'" if own is not None else ""
        await alice.send(f"<message{given}><body>x</body></message>")
        lang = given or (f" xml:lang='{stream}'" if stream else "")
        await alice.expect(f"<message from='{alice.jid}' to='alice@localhost'{lang}><body>x</body></message>")


@pytest.mark.asyncio
async def test_a_message_to_the_own_account_reaches_the_own_resources() -> None:
    async with World() as world:
        alice, other = await world.login("alice"), await world.login("alice", "other")
        await alice.receive_all()
        await alice.send(body("chat", "alice@localhost"))
        for client in (alice, other):
            await client.expect(body("chat", "alice@localhost", alice.jid))
