"""The table of negotiation is the sum of what modules and plugins bring."""

import base64
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xmppd import ns
from xmppd.errors import CommandError, StreamError
from xmppd.net.c2s.framing import DocumentFraming
from xmppd.section import changed
from xmppd.stream.rows import ANY_IQ, Phase, Rows, iq_set_of, negotiates, offers
from xmppd.testing import World
from xmppd.xml.scan import Engine, Limits
from xmppd.xml.stanza import Stanza

TOKENS = '''"""Logging in by a token, and a state of the client that a stream tells (like XEP-0352)."""

from xmppd.plugin import *

SAID = "%s"


class Token:
    name, priority, needs_tls = "X-TOKEN", 1, False

    def available(self, channel):
        return True

    def start(self, channel):
        return self

    def step(self, data):
        return Success(Identity(data.decode()))


class Tokens(Plugin):
    idle = SessionSlot(False)

    def mechanisms(self):
        return [Token()]

    @offers(Phase.BIND)
    def offer(self, stream):
        return serialize(element("{urn:example:" + SAID + "}csi", {"of": stream.account}))

    @negotiates(Phase.BOUND, "{urn:example}inactive")
    def inactive(self, stream, stanza):
        self.idle[stream.session] = True
        stream.write(serialize(element("{urn:example}" + SAID)))

    @negotiates(Phase.BIND, "{urn:example}early")
    def early(self, stream, stanza):
        stream.write(serialize(element("{urn:example}early")))
'''


async def opened(world: World, user: str):  # type: ignore[no-untyped-def]
    """A client that logged in by a token, and the features it was shown then."""
    client = world.connect()
    await client.open()
    initial = base64.b64encode(user.encode()).decode()
    await client.send(f"<auth xmlns='{ns.SASL}' mechanism='X-TOKEN'>{initial}</auth>")
    assert (await client.receive()).tag == f"{{{ns.SASL}}}success"
    return client, await client.open()


@pytest.mark.one_node("each node loads its own plugins")
@pytest.mark.asyncio
async def test_a_plugin_brings_a_mechanism_features_and_elements_and_is_reloaded(tmp_path: Path) -> None:
    file = tmp_path / "tokens.py"
    file.write_text(TOKENS % "one")
    async with World(plugins=("tokens",), plugin_folders=(tmp_path,)) as world:
        alice, features = await opened(world, "alice")
        assert [tree.get("of") for tree in features.iter("{urn:example:one}csi")] == ["alice@localhost"]
        await alice.send("<early xmlns='urn:example'/>")
        await alice.expect("<early xmlns='urn:example'/>")
        await alice.bind("r")
        await alice.send("<inactive xmlns='urn:example'/>")
        await alice.expect("<one xmlns='urn:example'/>")

        file.write_text(TOKENS % "two")
        await world.app.loader.reload("tokens", world.config)
        await alice.send("<inactive xmlns='urn:example'/>")
        await alice.expect("<two xmlns='urn:example'/>")
        assert world.plugin("tokens").idle[alice.session]
        _, features = await opened(world, "bob")
        assert features.find("{urn:example:two}csi") is not None
        assert features.find("{urn:example:one}csi") is None

        await world.app.loader.load(changed(world.config, plugins=World().config.plugins))
        await alice.send("<inactive xmlns='urn:example'/>")
        await alice.expect_closed("unsupported-stanza-type")


class One:
    @negotiates(Phase.LOGIN, "{urn:example}a")
    def a(self, stream, stanza): ...  # type: ignore[no-untyped-def]

    @offers(Phase.LOGIN)
    def offer(self, stream):  # type: ignore[no-untyped-def]
        return b"<a/>"


class Other:
    @negotiates(Phase.LOGIN, "{urn:example}a")
    def b(self, stream, stanza): ...  # type: ignore[no-untyped-def]


def test_two_that_take_the_same_do_not_fit_together() -> None:
    with pytest.raises(ValueError, match=r"two take \{urn:example\}a in the phase LOGIN"):
        Rows().compile([One(), Other()])


@pytest.mark.parametrize("element", ["message", ANY_IQ, iq_set_of("{urn:example}a")])
def test_stanzas_of_a_bound_stream_are_the_router_s(element: str) -> None:
    class Thief:
        @negotiates(Phase.BOUND, element)
        def take(self, stream, stanza): ...  # type: ignore[no-untyped-def]

    with pytest.raises(ValueError, match="on a bound stream nobody takes"):
        Rows().compile([Thief()])


@pytest.mark.asyncio
async def test_a_plugin_that_takes_what_is_taken_is_refused(tmp_path: Path) -> None:
    thief = "from xmppd.plugin import *\nfrom xmppd import ns\nclass Thief(Plugin):\n"
    thief += (
        "    @negotiates(Phase.LOGIN, '{' + ns.SASL + '}auth')\n    def auth(self, stream, stanza): ...\n"
    )
    (tmp_path / "thief.py").write_text(thief)
    with pytest.raises(CommandError, match="two take"):
        async with World(plugins=("thief",), plugin_folders=(tmp_path,)):
            pass


@pytest.mark.asyncio
async def test_where_tls_is_required_rows_wait_for_it(tmp_path: Path) -> None:
    early = "from xmppd.plugin import *\nclass Early(Plugin):\n    @offers(Phase.LOGIN)\n"
    early += "    def offer(self, stream):\n        return b'<x xmlns=\"urn:example\"/>'\n"
    early += "    @negotiates(Phase.LOGIN, '{urn:example}x')\n"
    early += "    def take(self, stream, stanza):\n        stream.write(b'<x xmlns=\"urn:example\"/>')\n"
    (tmp_path / "early.py").write_text(early)
    for required in (False, True):
        settings = {"tls": {"required": required}}
        async with World(plugins=("early",), plugin_folders=(tmp_path,), settings=settings) as world:
            client = world.connect()
            offered = (await client.open()).find("{urn:example}x")
            assert (offered is None) == required
            await client.send("<x xmlns='urn:example'/>")
            if required:
                await client.expect_closed("policy-violation")
            else:
                await client.expect("<x xmlns='urn:example'/>")


IQ = "<iq type='get' id='1'/>"
STARTTLS = f"<starttls xmlns='{ns.TLS}'/>"
AUTH = f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'/>"
NOT_AUTHORIZED, LATE, UNSUPPORTED = "not-authorized", "policy-violation", "unsupported-stanza-type"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("phase", "sent", "condition"),
    [
        ("login", IQ, NOT_AUTHORIZED),
        ("login", "<presence/>", NOT_AUTHORIZED),
        ("login", "<x xmlns='urn:example'/>", UNSUPPORTED),
        ("exchange", IQ, NOT_AUTHORIZED),
        ("exchange", "<message/>", NOT_AUTHORIZED),
        ("exchange", STARTTLS, LATE),
        ("exchange", "<x xmlns='urn:example'/>", UNSUPPORTED),
        ("bind", IQ, NOT_AUTHORIZED),
        ("bind", f"<iq type='get' id='1'><bind xmlns='{ns.BIND}'/></iq>", NOT_AUTHORIZED),
        ("bind", "<presence/>", NOT_AUTHORIZED),
        ("bind", STARTTLS, LATE),
        ("bind", AUTH, LATE),
        ("bind", "<x xmlns='urn:example'/>", UNSUPPORTED),
        ("bound", STARTTLS, UNSUPPORTED),
        ("bound", AUTH, UNSUPPORTED),
        ("bound", "<x xmlns='urn:example'/>", UNSUPPORTED),
        ("bound", "<message xmlns='jabber:server'/>", "invalid-namespace"),
    ],
)
async def test_what_nobody_takes_ends_the_stream(phase: str, sent: str, condition: str) -> None:
    async with World() as world:
        client = world.connect()
        await client.open()
        if phase == "exchange":
            await client.send(AUTH)
        if phase in ("bind", "bound"):
            await client.authenticate("alice")
            await client.open()
        if phase == "bound":
            await client.bind()
        await client.send(sent)
        await client.expect_closed(condition)


class Login:
    """A stream before login, as far as the table looks."""

    phase, is_exposed = Phase.LOGIN, False


@pytest.mark.parametrize("kind", ["presence", "{urn:example}x", "{urn:example}late"])
def test_an_error_keeps_nothing_of_the_streams_that_met_it(kind: str) -> None:
    class Late:
        @negotiates(Phase.BIND, "{urn:example}late")
        def take(self, stream, stanza): ...  # type: ignore[no-untyped-def]

    rows, errors = Rows(), []
    rows.compile([Late()])
    for _ in range(2):
        with pytest.raises(StreamError) as met:
            rows.negotiator(Login(), Stanza(kind, {}, b"<x/>", 2))  # type: ignore[arg-type]
        errors.append(met.value)
    assert errors[0] is not errors[1]


class Mixed:
    """Offers that are the same for all, and others."""

    @offers(Phase.BIND, alike=True)
    def first(self, stream: Any) -> bytes:
        return b"<first/>"

    @offers(Phase.BIND)
    def second(self, stream: Any) -> bytes:
        return b"<second who='%s'/>" % stream.account

    @offers(Phase.BIND)
    def third(self, stream: Any) -> bytes:
        return b"<third/>" if stream.account == b"alice" else b""

    @offers(Phase.BIND, alike=True)
    def fourth(self, stream: Any) -> bytes:
        return b"<fourth/>"


def test_what_differs_is_asked_of_each_stream_and_stands_in_its_place() -> None:
    rows = Rows()
    rows.compile([Mixed()])
    link = SimpleNamespace(can_encrypt=False, secure=True)

    def offered(who: bytes, phase: Phase) -> bytes:
        stream: Any = SimpleNamespace(link=link, phase=phase, is_exposed=False, account=who)
        return rows.features(stream)

    for _ in range(2):
        assert offered(b"alice", Phase.BIND) == (
            b"<stream:features><first/><second who='alice'/><third/><fourth/></stream:features>"
        )
        assert offered(b"bob", Phase.BIND) == (
            b"<stream:features><first/><second who='bob'/><fourth/></stream:features>"
        )
        assert offered(b"bob", Phase.BOUND) == b"<stream:features></stream:features>"


def test_ids_of_streams_that_were_drawn_at_once_never_come_again() -> None:
    framing = DocumentFraming(Engine(), Limits())
    ids = [re.findall(rb" id='([0-9a-f]{32})'", framing.header("localhost", "", "en")) for _ in range(1000)]
    assert all(len(found) == 1 for found in ids)
    assert len({found[0] for found in ids}) == 1000
