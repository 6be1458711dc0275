"""RFC 6120 4 to 7: opening, securing, authenticating, binding and ending a stream."""

import base64
from xml.etree.ElementTree import Element

import pytest

from xmppd import ns
from xmppd.testing import PASSWORD, STREAM_HEADER, Client, World

TLS_REQUIRED = {"tls": {"required": True}, "auth": {"plain_without_tls": False, "iterations": 4096}}
PLAIN_TEXT = base64.b64encode(f"\0alice\0{PASSWORD}".encode()).decode()


def mechanisms(features: Element) -> list[str]:
    """The SASL mechanisms on offer."""
    return [m.text or "" for m in features.iter(f"{{{ns.SASL}}}mechanism")]


# opening


@pytest.mark.asyncio
async def test_the_header_is_answered_with_a_fresh_strong_id() -> None:
    async with World() as world:
        ids = set()
        for _ in range(5):
            client = world.connect()
            await client.open(more="from='alice@localhost' xml:lang='de'")
            assert client.header["from"] == "localhost"
            assert client.header["to"] == "alice@localhost"
            assert client.header["version"] == "1.0"
            assert client.header[f"{{{ns.XML}}}lang"] == "en"
            ids.add(client.header["id"])
        assert len(ids) == 5 and min(map(len, ids)) >= 32


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("header", "condition"),
    [
        (STREAM_HEADER.format(domain="elsewhere.example", more=""), "host-unknown"),
        (STREAM_HEADER.format(domain="@@/", more=""), "improper-addressing"),
        (STREAM_HEADER.format(domain="", more=""), "improper-addressing"),
        (STREAM_HEADER.format(domain="alice@localhost", more=""), "host-unknown"),
        (STREAM_HEADER.format(domain="localhost", more="").replace("1.0", "0.9"), "unsupported-version"),
        (STREAM_HEADER.format(domain="localhost", more="").replace("1.0", "abc"), "unsupported-version"),
        (
            STREAM_HEADER.format(domain="localhost", more="").replace(" version='1.0'", ""),
            "unsupported-version",
        ),
        (STREAM_HEADER.format(domain="localhost", more="").replace(ns.STREAM, "urn:x"), "invalid-namespace"),
        (STREAM_HEADER.format(domain="localhost", more="").replace(ns.CLIENT, "urn:x"), "invalid-namespace"),
        ("GET / HTTP/1.1\r\n\r\n", "not-well-formed"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]>", "restricted-xml"),
        ("<?xml version='1.0' encoding='ISO-8859-1'?>", "unsupported-encoding"),
    ],
)
async def test_headers_that_are_refused_after_a_header_of_ours(header: str, condition: str) -> None:
    async with World() as world:
        client = world.connect()
        await client.send(header)
        await client.expect_closed(condition)
        assert client.raw.startswith(b"<?xml") and client.raw.endswith(b"</stream:stream>")


@pytest.mark.asyncio
async def test_a_newer_version_is_answered_with_ours() -> None:
    async with World() as world:
        client = world.connect()
        await client.send(STREAM_HEADER.format(domain="localhost", more="").replace("1.0", "99.0"))
        assert (await client.receive()).tag == f"{{{ns.STREAM}}}features"
        assert client.header["version"] == "1.0"


@pytest.mark.asyncio
async def test_several_domains_share_a_server() -> None:
    settings = {"server": {"domains": ("localhost", "play.example")}}
    async with World(settings=settings) as world:
        await world.app.accounts.create("zoe@play.example", PASSWORD)
        client = world.connect()
        await client.open("PLAY.example")
        assert client.header["from"] == "play.example"
        assert (await client.authenticate("alice")).tag == f"{{{ns.SASL}}}failure"
        assert (await client.authenticate("zoe")).tag == f"{{{ns.SASL}}}success"
        await client.open("play.example")
        await client.bind("r")
        assert client.jid == "zoe@play.example/r"
        alice = await world.login("alice")
        await alice.send("<message to='zoe@play.example/r' type='chat'><body>x</body></message>")
        assert (await client.receive()).get("from") == alice.jid


# TLS


@pytest.mark.asyncio
async def test_where_tls_is_required_nothing_else_is_offered_or_done() -> None:
    async with World(settings=TLS_REQUIRED) as world:
        client = world.connect()
        features = await client.open()
        assert [child.tag for child in features] == [f"{{{ns.TLS}}}starttls"]
        assert features[0][0].tag == f"{{{ns.TLS}}}required"
        await client.send(f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{PLAIN_TEXT}</auth>")
        await client.expect(f"<failure xmlns='{ns.SASL}'><encryption-required/></failure>")


@pytest.mark.asyncio
async def test_plaintext_behind_starttls_is_thrown_away() -> None:
    async with World() as world:
        client = world.connect()
        await client.open()
        injected = STREAM_HEADER.format(domain="localhost", more="")
        await client.send(f"<starttls xmlns='{ns.TLS}'/>{injected}")
        await client.expect(f"<proceed xmlns='{ns.TLS}'/>")
        await client.expect_nothing()


@pytest.mark.asyncio
async def test_a_listener_without_tls_refuses_starttls() -> None:
    async with World() as world:
        client = world.connect(starttls=False)
        features = await client.open()
        assert features.find(f"{{{ns.TLS}}}starttls") is None
        await client.send(f"<starttls xmlns='{ns.TLS}'/>")
        await client.expect(f"<failure xmlns='{ns.TLS}'/>")
        await client.expect_closed()


# SASL


@pytest.mark.asyncio
async def test_plain_is_not_offered_without_tls_unless_told() -> None:
    async with World(settings={"auth": {"plain_without_tls": False, "iterations": 4096}}) as world:
        offered = mechanisms(await world.connect().open())
        assert "PLAIN" not in offered and "SCRAM-SHA-256" in offered
        assert not [name for name in offered if name.endswith("-PLUS")]


@pytest.mark.asyncio
async def test_wrong_passwords_and_unknown_users_are_alike_and_counted() -> None:
    async with World() as world:
        client = world.connect()
        await client.open()
        answers = {(await world_answer(client, user)) for user in ("alice", "nobody", "alice", "nobody")}
        assert answers == {b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>"}
        await client.authenticate("alice", "wrong")
        await client.expect_closed("policy-violation")


async def world_answer(client: Client, user: str) -> bytes:
    """The exact bytes that answer a wrong password."""
    before = len(client.raw)
    await client.authenticate(user, "wrong")
    return bytes(client.raw[before:])


@pytest.mark.asyncio
async def test_another_identity_is_refused() -> None:
    async with World() as world:
        client = world.connect()
        await client.open()
        initial = base64.b64encode(f"bob@localhost\0alice\0{PASSWORD}".encode()).decode()
        await client.send(f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{initial}</auth>")
        await client.expect(f"<failure xmlns='{ns.SASL}'><invalid-authzid/></failure>")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (f"<response xmlns='{ns.SASL}'/>", "malformed-request"),
        (f"<abort xmlns='{ns.SASL}'/>", "malformed-request"),
        (f"<auth xmlns='{ns.SASL}' mechanism='X-NONE'/>", "invalid-mechanism"),
        (f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>###</auth>", "incorrect-encoding"),
        (f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'/><abort xmlns='{ns.SASL}'/>", "aborted"),
    ],
)
async def test_exchanges_that_go_nowhere(sent: str, answer: str) -> None:
    async with World() as world:
        client = world.connect()
        await client.open()
        await client.send(sent)
        failure = (await client.receive_all())[-1]
        assert failure[0].tag == f"{{{ns.SASL}}}{answer}"


@pytest.mark.asyncio
async def test_anonymous_by_config() -> None:
    async with World(
        settings={"auth": {"anonymous": True, "plain_without_tls": True, "iterations": 4096}}
    ) as world:
        client, alice = world.connect(), await world.login("alice")
        assert "ANONYMOUS" in mechanisms(await client.open())
        await client.send(f"<auth xmlns='{ns.SASL}' mechanism='ANONYMOUS'/>")
        if (answer := await client.receive()).tag.endswith("challenge"):
            await client.send(f"<response xmlns='{ns.SASL}'/>")
            answer = await client.receive()
        assert answer.tag == f"{{{ns.SASL}}}success"
        await client.open()
        await client.bind()
        await client.send(f"<message to='{alice.jid}' type='chat'><body>x</body></message>")
        assert (await alice.receive()).get("from") == client.jid


@pytest.mark.asyncio
async def test_everything_pipelined_in_one_write() -> None:
    async with World() as world:
        client = world.connect()
        header = STREAM_HEADER.format(domain="localhost", more="")
        bind = f"<iq type='set' id='b'><bind xmlns='{ns.BIND}'><resource>r</resource></bind></iq>"
        auth = f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{PLAIN_TEXT}</auth>"
        await client.send(f"{header}{auth}{header}{bind}<presence/>")
        tags = [tree.tag.partition("}")[2] for tree in await client.receive_all()]
        assert tags == ["features", "success", "features", "iq", "presence"]
        assert "alice@localhost/r" in world.app.sessions.by_full


# before a session


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "stanza",
    [
        "<message to='bob@localhost'><body>x</body></message>",
        "<presence/>",
        f"<iq type='set' id='1'><bind xmlns='{ns.BIND}'/></iq>",
    ],
)
async def test_stanzas_before_authentication_end_the_stream(stanza: str) -> None:
    async with World() as world:
        bob, client = await world.login("bob"), world.connect()
        await client.open()
        await client.send(stanza)
        await client.expect_closed("not-authorized")
        await bob.expect_nothing()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "stanza", ["<message to='bob@localhost'/>", "<presence/>", "<iq type='get' id='1'/>"]
)
async def test_stanzas_before_binding_end_the_stream(stanza: str) -> None:
    async with World() as world:
        bob, client = await world.login("bob"), world.connect()
        await client.open()
        await client.authenticate("alice")
        await client.open()
        await client.send(stanza)
        await client.expect_closed("not-authorized")
        await bob.expect_nothing()


@pytest.mark.asyncio
async def test_no_second_login_and_no_late_tls() -> None:
    for late in (
        f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{PLAIN_TEXT}</auth>",
        f"<starttls xmlns='{ns.TLS}'/>",
    ):
        async with World() as world:
            alice = await world.login("alice")
            await alice.send(late)
            await alice.expect_closed("unsupported-stanza-type")
            assert not world.app.sessions.by_full


# binding


@pytest.mark.asyncio
async def test_resources_are_made_or_as_asked() -> None:
    async with World() as world:
        first, second = await world.bind("alice"), await world.bind("alice", "Handy 📱")
        assert second.jid == "alice@localhost/Handy 📱"
        made = world.connect()
        await made.open()
        await made.authenticate("alice")
        await made.open()
        await made.bind()
        assert len(made.jid.partition("/")[2]) >= 8 and made.jid != first.jid


@pytest.mark.asyncio
async def test_a_newcomer_takes_the_resource_over() -> None:
    async with World() as world:
        old = await world.login("alice", "phone")
        new = await world.bind("alice", "phone")
        await old.expect_closed("conflict")
        assert new.jid == old.jid
        await new.send("<presence/>")
        await new.expect(f"<presence from='{new.jid}' to='alice@localhost'/>")


@pytest.mark.asyncio
async def test_or_is_given_another_name_if_config_says_so() -> None:
    async with World(settings={"sessions": {"conflict": "rename"}}) as world:
        old, new = await world.login("alice", "phone"), await world.bind("alice", "phone")
        assert new.jid != old.jid and new.jid.startswith(old.jid)
        await old.expect_nothing()


@pytest.mark.asyncio
async def test_sessions_of_an_account_are_limited() -> None:
    async with World(settings={"limits": {"sessions_per_account": 2}}) as world:
        await world.bind("alice"), await world.bind("alice")
        third = world.connect()
        await third.open()
        await third.authenticate("alice")
        await third.open()
        error = await third.bind("third")
        assert error.find(f"*/{{{ns.STANZA_ERRORS}}}resource-constraint") is not None
        assert (await third.bind("third")).get("type") == "error"


@pytest.mark.asyncio
async def test_second_binds() -> None:
    async with World() as world:
        client = world.connect()
        await client.open()
        await client.authenticate("alice")
        await client.open()
        await client.bind("ok")
        error = await client.ask("set", f"<bind xmlns='{ns.BIND}'/>")
        assert error.find(f"*/{{{ns.STANZA_ERRORS}}}not-allowed") is not None
        session = await client.ask("set", f"<session xmlns='{ns.SESSION}'/>")
        assert session.get("type") == "result"


# the end


@pytest.mark.asyncio
async def test_a_close_is_answered_and_nothing_behind_it_is_read() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(f"</stream:stream><message to='{bob.jid}'><body>late</body></message>")
        await alice.expect_closed()
        assert alice.raw.endswith(b"</stream:stream>")
        await bob.expect_nothing()
        assert alice.jid not in world.app.sessions.by_full


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("sent", "condition"),
    [
        ("<pubsub xmlns='urn:nothing'/>", "unsupported-stanza-type"),
        ("<message xmlns='jabber:server' to='bob@localhost'/>", "invalid-namespace"),
        ("<message><body></message>", "not-well-formed"),
        ("<message>&x;</message>", "restricted-xml"),
        ("<!-- x -->", "restricted-xml"),
        ("<message><!-- x --></message>", "restricted-xml"),
        ("text", "bad-format"),
        ("<message><a xmlns:x='urn:x'><y:b/></a></message>", "bad-namespace-prefix"),
        (f"<message>{'x' * 300_000}</message>", "policy-violation"),
        ("<message>" + "<a>" * 70 + "</a>" * 70 + "</message>", "policy-violation"),
    ],
)
async def test_what_ends_a_stream(sent: str, condition: str) -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(sent)
        await alice.expect_closed(condition)
        await bob.expect_nothing()


@pytest.mark.asyncio
async def test_stanzas_before_a_mistake_are_delivered() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(f"<message to='{bob.jid}' type='chat'><body>x</body></message><oops")
        assert (await bob.receive()).findtext("{jabber:client}body") == "x"


@pytest.mark.one_node("one process is shut down")
@pytest.mark.asyncio
async def test_the_server_sends_everybody_away_at_shutdown() -> None:
    async with World() as world:
        alice = await world.login("alice")
        await world.app.service.shut_down()
        await alice.expect_closed("system-shutdown")
        late = world.connect()
        await late.expect_closed("system-shutdown")


@pytest.mark.one_node("one process is shut down")
@pytest.mark.parametrize("host", ["chat.example.org:5222", "[2001:db8::1]:5222", "10.0.0.1"])
@pytest.mark.asyncio
async def test_or_to_another_host(host: str) -> None:
    """RFC 6120 4.9.3.19."""
    async with World() as world:
        alice = await world.login("alice")
        world.app.service.other_host = host
        await world.app.service.shut_down()
        for client in (alice, world.connect()):
            await client.expect_closed("see-other-host")
            told = f"<see-other-host xmlns='{ns.STREAM_ERRORS}'>{host}</see-other-host>"
            assert told.encode() in client.raw


# silence


@pytest.mark.asyncio
async def test_a_login_may_not_take_for_ever() -> None:
    async with World() as world:
        client = world.connect()
        await client.open()
        await world.advance(29)
        assert not client.closed
        await client.send(" ")
        await world.advance(3)
        await client.expect_closed("connection-timeout")


@pytest.mark.asyncio
async def test_silent_clients_get_white_space_a_ping_and_the_end() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        before = len(bob.raw)
        await world.advance(65)
        assert bob.raw[before:] == b" "
        await world.advance(120)
        ping = await bob.receive()
        assert ping[0].tag == f"{{{ns.PING}}}ping" and ping.get("type") == "get"
        await bob.send(f"<iq type='result' id='{ping.get('id')}'/>")
        await world.advance(100)
        assert not bob.closed
        await alice.receive_all()
        await world.advance(200)
        await bob.expect_closed("connection-timeout")


@pytest.mark.asyncio
async def test_who_goes_on_reading_what_is_unsent_is_not_silent() -> None:
    async with World(settings={"limits": {"write_buffer_soft": 4096}}) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        bob.stop_reading()
        await alice.send(f"<message to='{bob.jid}'><body>{'x' * 9000}</body></message>")
        for _ in range(8):
            await alice.send(" ")
            await world.advance(100)
            held = bytes(bob.transport.held)
            del bob.transport.held[:500]
            bob._receive(held[:500])
        await alice.send(" ")
        assert not bob.closed and bob._wire.clogged
        for _ in range(4):
            await alice.send(" ")
            await world.advance(100)
        assert bob.closed


@pytest.mark.one_node("each process counts its own connections")
@pytest.mark.asyncio
async def test_too_many_strangers_are_turned_away() -> None:
    async with World(settings={"limits": {"connections_before_login": 2}}) as world:
        await world.connect().open(), await world.connect().open()
        third = world.connect()
        await third.expect_closed("resource-constraint")


@pytest.mark.asyncio
async def test_another_name_is_no_longer_than_a_resource_may_be() -> None:
    async with World(settings={"sessions": {"conflict": "rename"}}) as world:
        first, second = await world.bind("alice", "x" * 1020), await world.bind("alice", "x" * 1020)
        assert second.jid != first.jid
        await first.send(f"<message to='{second.jid}' type='chat'><body>x</body></message>")
        assert (await second.receive()).get("from") == first.jid
