"""RFC 6120 8.2.3 and RFC 6121 8.5: requests to the server, to accounts and to sessions."""

import pytest

from xmppd.testing import Client, World, canonical

STANZAS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"
UNKNOWN = "<query xmlns='urn:nobody:knows'/>"
REFUSE = {"iqs": {"from_strangers": "refuse"}}


async def refusal(client: Client, stanza: str) -> str:
    """The condition of the error that answers a stanza."""
    await client.send(stanza)
    answer = await client.receive()
    assert answer.get("type") == "error"
    return next(child.tag for child in answer.iter() if child.tag.startswith(STANZAS)).removeprefix(STANZAS)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "stanza",
    [
        f"<iq type='get'>{UNKNOWN}</iq>",
        f"<iq id='1'>{UNKNOWN}</iq>",
        f"<iq type='ask' id='1'>{UNKNOWN}</iq>",
        "<iq type='get' id='1'/>",
        f"<iq type='set' id='1'>{UNKNOWN}{UNKNOWN}</iq>",
        f"<iq type='get' id='1' to='bob@localhost/x'>{UNKNOWN}{UNKNOWN}</iq>",
    ],
)
async def test_malformed_iqs(stanza: str) -> None:
    async with World() as world:
        assert await refusal(await world.login("alice"), stanza) == "bad-request"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("to", "condition"),
    [
        ("", "service-unavailable"),
        ("localhost", "service-unavailable"),
        ("LOCALHOST", "service-unavailable"),
        ("localhost/res", "service-unavailable"),
        ("alice@localhost", "service-unavailable"),
        ("bob@localhost", "service-unavailable"),
        ("nobody@localhost", "service-unavailable"),
        ("bob@localhost/ghost", "service-unavailable"),
        ("nobody@localhost/ghost", "service-unavailable"),
        ("x@elsewhere.example", "remote-server-not-found"),
        ("@@", "jid-malformed"),
    ],
)
async def test_what_nobody_answers(to: str, condition: str) -> None:
    async with World() as world:
        alice = await world.login("alice")
        address = f" to='{to}'" if to else ""
        assert await refusal(alice, f"<iq type='get' id='1'{address}>{UNKNOWN}</iq>") == condition


@pytest.mark.asyncio
async def test_errors_name_whom_was_asked_and_the_id() -> None:
    async with World() as world:
        alice = await world.login("alice")
        await alice.send(f"<iq type='get' id='a&amp;b' to='bob@localhost'>{UNKNOWN}</iq>")
        await alice.expect(
            f"<iq type='error' id='a&amp;b' from='bob@localhost' to='{alice.jid}'><error type='cancel'>"
            "<service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        )


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["result", "error"])
@pytest.mark.parametrize("to", ["", "localhost", "bob@localhost", "bob@localhost/ghost"])
async def test_stray_replies_are_ignored(kind: str, to: str) -> None:
    async with World() as world:
        alice = await world.login("alice")
        address = f" to='{to}'" if to else ""
        await alice.send(f"<iq type='{kind}' id='x'{address}/>")
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_a_session_may_be_reached_only_by_those_who_know_of_it() -> None:
    async with World(settings=REFUSE) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        ask = f"<iq type='get' id='q' to='{bob.jid}'>{UNKNOWN}</iq>"
        assert await refusal(alice, ask) == "service-unavailable"
        await bob.expect_nothing()
        await bob.send(f"<presence to='{alice.bare}'/>")
        await alice.receive_all()
        await alice.send(ask)
        await bob.expect(f"<iq type='get' id='q' from='{alice.jid}' to='{bob.jid}'>{UNKNOWN}</iq>")
        await bob.send(f"<iq type='result' id='q' to='{alice.jid}'><x xmlns='urn:x'/></iq>")
        await alice.expect(
            f"<iq type='result' id='q' from='{bob.jid}' to='{alice.jid}'><x xmlns='urn:x'/></iq>"
        )


@pytest.mark.asyncio
async def test_followers_and_own_resources_reach_a_session() -> None:
    async with World(settings=REFUSE) as world:
        alice, bob, second = await world.login("alice"), await world.login("bob"), await world.bind("bob")
        await world.befriend(alice, bob)
        for asker in (alice, second):
            await asker.send(f"<iq type='set' id='q' to='{bob.jid}'>{UNKNOWN}</iq>")
            await bob.expect(f"<iq type='set' id='q' from='{asker.jid}' to='{bob.jid}'>{UNKNOWN}</iq>")


@pytest.mark.asyncio
async def test_a_reply_to_a_stranger_is_delivered_with_its_true_sender() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await bob.send(f"<iq type='result' id='r' from='localhost' to='{alice.jid}'/>")
        await alice.expect(f"<iq type='result' id='r' from='{bob.jid}' to='{alice.jid}'/>")


@pytest.mark.asyncio
async def test_an_iq_to_the_own_full_jid_comes_back() -> None:
    async with World() as world:
        alice = await world.bind("alice")
        await alice.send(f"<iq type='get' id='q' to='{alice.jid}'>{UNKNOWN}</iq>")
        await alice.expect(f"<iq type='get' id='q' from='{alice.jid}' to='{alice.jid}'>{UNKNOWN}</iq>")


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["", "alice@localhost", "ALICE@localhost"])
async def test_the_own_account_is_the_same_however_it_is_written(to: str) -> None:
    async with World(plugins=("version",)) as world:
        alice = await world.bind("alice")
        answer = await alice.ask("get", "<query xmlns='jabber:iq:version'/>", to=to)
        assert answer.get("type") == "result"


@pytest.mark.asyncio
async def test_a_stranger_reaches_a_session_and_an_absent_one_looks_like_a_refusal() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.bind("bob")
        await alice.send(f"<iq type='set' id='q' to='{bob.jid}'>{UNKNOWN}</iq>")
        await bob.expect(f"<iq type='set' id='q' from='{alice.jid}' to='{bob.jid}'>{UNKNOWN}</iq>")
        answers = []
        for to in ("bob@localhost/ghost", "nobody@localhost/ghost"):
            await alice.send(f"<iq type='set' id='q' to='{to}'>{UNKNOWN}</iq>")
            answers.append((await alice.receive()).find("{jabber:client}error"))
    async with World(settings=REFUSE) as world:
        alice, bob = await world.login("alice"), await world.bind("bob")
        await alice.send(f"<iq type='set' id='q' to='{bob.jid}'>{UNKNOWN}</iq>")
        answers.append((await alice.receive()).find("{jabber:client}error"))
        await bob.expect_nothing()
    assert len({canonical(error) for error in answers if error is not None}) == 1


LAST = "<query xmlns='jabber:iq:last'/>"
ROSTER = "<query xmlns='jabber:iq:roster'/>"
ITEM = "<query xmlns='jabber:iq:roster'><item jid='mallory@localhost'/></query>"


@pytest.mark.asyncio
@pytest.mark.parametrize("settings", [{}, REFUSE])
@pytest.mark.parametrize(("kind", "payload"), [("get", LAST), ("get", ROSTER), ("set", ITEM)])
@pytest.mark.parametrize(
    "to", ["bob@localhost", "bob@localhost/one", "bob@localhost/ghost", "nobody@localhost/x"]
)
async def test_what_is_forbidden_to_strangers(
    to: str, kind: str, payload: str, settings: dict[str, dict[str, str]]
) -> None:
    async with World(settings=settings, plugins=("last",)) as world:
        alice, bob = await world.login("alice"), await world.login("bob", "one")
        assert await refusal(alice, f"<iq type='{kind}' id='1' to='{to}'>{payload}</iq>") == "forbidden"
        await bob.expect_nothing()


@pytest.mark.asyncio
async def test_who_may_see_somebody_may_ask_for_last_activity() -> None:  # XEP-0012 4
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob", "one")
        ask = f"<iq type='get' id='q' to='{bob.jid}'>{LAST}</iq>"
        await bob.send(f"<presence to='{alice.jid}'/>")
        await alice.receive_all()
        await alice.send(ask)
        await bob.expect(f"<iq type='get' id='q' from='{alice.jid}' to='{bob.jid}'>{LAST}</iq>")
        await bob.send(f"<presence type='unavailable' to='{alice.jid}'/>")
        await alice.receive_all()
        assert await refusal(alice, ask) == "forbidden"
        await world.befriend(alice, bob)
        await alice.send(ask)
        await bob.expect(f"<iq type='get' id='q' from='{alice.jid}' to='{bob.jid}'>{LAST}</iq>")
        assert await refusal(alice, ask.replace("/one", "/ghost")) == "service-unavailable"
        await bob.send(f"<iq type='get' id='q' to='{bob.jid}'>{LAST}</iq>")
        await bob.expect(f"<iq type='get' id='q' from='{bob.jid}' to='{bob.jid}'>{LAST}</iq>")
