"""Logging in by XEP-0388 and binding by XEP-0386, over streams in memory."""

import logging
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import tostring

import pytest
from sasl2 import (
    BIND,
    DESK,
    PHONE,
    B,
    S,
    agent,
    b64,
    condition,
    identifier,
    login,
    opened,
    plain,
    request,
    scram,
    tagged,
)

from xmppd import ns
from xmppd.testing import World

pytestmark = pytest.mark.asyncio
FEATURES = f"{{{ns.STREAM}}}features"
RESPONSE = f"<response xmlns='{ns.SASL2}'>%s</response>"


# --------------------------------------------------------------------------------- what is offered


async def test_what_is_offered() -> None:
    async with World() as world:
        features = await world.connect().open()
        offered = features.find(f"{S}authentication")
        assert offered is not None
        old = features.findall(f"{{{ns.SASL}}}mechanisms/{{{ns.SASL}}}mechanism")
        assert [one.text for one in offered.findall(f"{S}mechanism")] == [one.text for one in old]
        assert offered.find(f"{S}inline/{B}bind") is not None


async def test_nothing_is_offered_or_taken_without_tls() -> None:
    settings = {"auth": {"plain_without_tls": False}}
    async with World(settings=settings) as world:
        client = world.connect()
        features = await client.open()
        assert features.find(f"{{{ns.SASL}}}mechanisms") is not None
        assert features.find(f"{S}authentication") is None
        await client.send(request("SCRAM-SHA-256", b64("n,,n=alice,r=abc")))
        assert condition(await client.receive()) == "encryption-required"
        answer = await client.authenticate("alice")
        assert answer[0].tag == f"{{{ns.SASL}}}encryption-required", "and the stream goes on"


async def test_before_required_tls_it_is_refused() -> None:
    async with World(settings={"tls": {"required": True}}) as world:
        client = world.connect()
        assert (await client.open()).find(f"{S}authentication") is None
        assert condition(await login(client, "alice")) == "encryption-required"


# --------------------------------------------------------------------------------- logins


async def test_plain_and_then_a_resource_as_ever() -> None:
    async with World() as world:
        client = await opened(world)
        await client.send(request("PLAIN", plain("alice")))
        await client.expect(
            f"<success xmlns='{ns.SASL2}'>"
            "<authorization-identifier>alice@localhost</authorization-identifier></success>"
        )
        features = await client.receive()
        assert features.tag == FEATURES and features.find(f"{{{ns.BIND}}}bind") is not None
        assert features.find(f"{S}authentication") is None
        await client.bind("desk")
        assert client.jid == "alice@localhost/desk"
        await client.send("<message to='alice@localhost/desk'><body>hi</body></message>")
        assert (await client.receive()).findtext(f"{{{ns.CLIENT}}}body") == "hi"


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256"])
async def test_scram_proves_both_sides(mechanism: str) -> None:
    async with World() as world:
        client = await opened(world)
        assert identifier(await scram(client, "alice", mechanism=mechanism)) == "alice@localhost"
        assert (await client.receive()).tag == FEATURES


async def test_without_an_initial_response_there_is_an_empty_challenge() -> None:
    async with World() as world:
        client = await opened(world)
        await client.send(request("PLAIN", None))
        await client.expect(f"<challenge xmlns='{ns.SASL2}'/>")
        await client.send(RESPONSE % plain("alice"))
        assert identifier(await client.receive()) == "alice@localhost"


async def test_an_empty_initial_response_is_one() -> None:
    async with World(settings={"auth": {"anonymous": True}}) as world:
        client = await opened(world)
        answer = await login(client, "", BIND, mechanism="ANONYMOUS", initial="")
        assert identifier(answer).startswith("anonymous-") and answer.find(f"{B}bound") is not None


async def test_what_comes_together_is_taken_together() -> None:
    """One flight to be logged in: header and request; the answers to both come at once."""
    async with World() as world:
        client = world.connect()
        head = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'"
        roster = f"<iq type='get' id='r'><query xmlns='{ns.ROSTER}'/></iq>"
        await client.send(
            f"{head} to='localhost' version='1.0'>{request('PLAIN', plain('alice'), BIND)}{roster}"
        )
        kinds = [one.tag.rpartition("}")[2] for one in await client.receive_all()]
        assert kinds == ["features", "success", "features", "iq"]


# --------------------------------------------------------------------------------- refusals


async def test_refusals_count_as_those_of_sasl() -> None:
    async with World(settings={"auth": {"attempts": 3}}) as world:
        client = await opened(world)
        assert condition(await login(client, "alice", initial=plain("alice", "wrong"))) == "not-authorized"
        answer = await client.authenticate("alice", "wrong")
        assert answer.tag == f"{{{ns.SASL}}}failure"
        assert condition(await login(client, "bob", initial=plain("bob", "wrong"))) == "not-authorized"
        await client.expect_closed("policy-violation")


async def test_a_refused_client_may_try_again() -> None:
    async with World() as world:
        client = await opened(world)
        assert condition(await login(client, "alice", initial=plain("alice", "wrong"))) == "not-authorized"
        assert identifier(await login(client, "alice")) == "alice@localhost"


@pytest.mark.parametrize(
    ("mechanism", "initial", "more", "expected"),
    [
        ("X-UNKNOWN", "", "", "invalid-mechanism"),
        ("HT-SHA-256-NONE", b64("alice\0" + "x" * 32), "", "invalid-mechanism"),
        ("PLAIN", "no base64", "", "incorrect-encoding"),
        ("PLAIN", plain("alice", authzid="bob@localhost"), "", "invalid-authzid"),
        ("PLAIN", plain("nobody"), "", "not-authorized"),
        ("PLAIN", plain("alice"), agent("d4565fa7-4d72-1749-b3d3-740edbf87770"), "malformed-request"),
        ("PLAIN", plain("alice"), agent("d4565fa7-4d72-4749-73d3-740edbf87770"), "malformed-request"),
        ("PLAIN", plain("alice"), agent("phone"), "malformed-request"),
    ],
)
async def test_what_is_refused(mechanism: str, initial: str, more: str, expected: str) -> None:
    async with World() as world:
        client = await opened(world)
        answer = await login(client, "alice", more, mechanism=mechanism, initial=initial)
        assert condition(answer) == expected
        assert answer[0].tag.startswith(f"{{{ns.SASL}}}")
        assert identifier(await login(client, "alice")) == "alice@localhost"


async def test_failures_are_logged_and_slowed_down_as_those_of_sasl(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with World(settings={"auth": {"brake": {"exempt": []}}}) as world:
        waits: list[float] = []

        async def pause(seconds: float) -> None:
            waits.append(seconds)

        for app in world.apps:
            app.logins.pause = pause
        for _ in range(5):
            client = await opened(world, peer="203.0.113.9", node=0)
            await login(client, "alice", initial=plain("alice", "wrong"))
            await client.drop()
        assert waits == [1.0]
        lines = [record for record in caplog.records if record.message == "login-failed"]
        assert [(line.jid, line.mechanism, line.reason) for line in lines] == (  # type: ignore[attr-defined]
            [("alice@localhost", "PLAIN", "not-authorized")] * 5
        )


async def test_an_exchange_can_be_given_up() -> None:
    async with World() as world:
        client = await opened(world)
        await client.send(request("SCRAM-SHA-256", b64("n,,n=alice,r=abc")))
        assert (await client.receive()).tag == f"{S}challenge"
        await client.send(f"<abort xmlns='{ns.SASL2}'><text>enough</text></abort>")
        assert condition(await client.receive()) == "aborted"
        assert identifier(await login(client, "alice")) == "alice@localhost"


@pytest.mark.parametrize("name", ["response", "abort"])
async def test_what_belongs_to_an_exchange_while_there_is_none(name: str) -> None:
    async with World() as world:
        client = await opened(world)
        await client.send(f"<{name} xmlns='{ns.SASL2}'/>")
        assert condition(await client.receive()) == "malformed-request"


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        (request("PLAIN", plain("alice")), "policy-violation"),
        (f"<response xmlns='{ns.SASL}'>{b64('x')}</response>", "policy-violation"),
        (f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{plain('alice')}</auth>", "policy-violation"),
        ("<presence/>", "not-authorized"),
        ("<iq type='get' id='q'><query xmlns='jabber:iq:register'/></iq>", "not-authorized"),
    ],
    ids=["authenticate", "response of SASL", "auth", "presence", "iq"],
)
async def test_nothing_else_may_come_during_an_exchange(xml: str, expected: str) -> None:
    """XEP-0388 2.4."""
    async with World() as world:
        client = await opened(world)
        await client.send(request("SCRAM-SHA-256", b64("n,,n=alice,r=abc")))
        await client.receive()
        await client.send(xml)
        await client.expect_closed(expected)


async def test_an_exchange_of_sasl_does_not_go_on_here() -> None:
    async with World() as world:
        client = await opened(world)
        await client.send(f"<auth xmlns='{ns.SASL}' mechanism='SCRAM-SHA-256'>{b64('n,,n=alice,r=a')}</auth>")
        await client.receive()
        await client.send(RESPONSE % b64("c=biws"))
        await client.expect_closed("policy-violation")


@pytest.mark.parametrize("more", ["", BIND], ids=["a resource is missing", "bound"])
async def test_a_second_login_ends_the_stream(more: str) -> None:
    """XEP-0388 5.8."""
    async with World() as world:
        client = await opened(world)
        await login(client, "alice", more)
        await client.send(request("PLAIN", plain("alice")))
        await client.expect_closed("unsupported-stanza-type" if more else "policy-violation")


# --------------------------------------------------------------------------------- who it is from


async def test_who_opened_the_stream_is_who_is_to_act() -> None:
    """XEP-0388 2.3: for another one the login fails."""
    async with World() as world:
        client = await opened(world, "alice@localhost/any")
        answer = await login(client, "bob", initial=plain("bob", authzid="bob@localhost"))
        assert condition(answer) == "invalid-authzid"
        answer = await login(client, "alice", initial=plain("alice", authzid="alice@localhost"))
        assert identifier(answer) == "alice@localhost"


async def test_a_stream_from_another_domain_ends() -> None:
    """XEP-0388 2.1."""
    async with World() as world:
        client = await opened(world, "alice@elsewhere.example")
        await client.send(request("PLAIN", plain("alice")))
        await client.expect_closed("invalid-from")


# --------------------------------------------------------------------------------- binding


async def test_a_resource_comes_with_the_login() -> None:
    async with World() as world:
        client = await opened(world)
        await client.send(request("PLAIN", plain("alice"), tagged("Phone &amp; Co") + agent(PHONE)))
        success = await client.receive()
        jid = identifier(success)
        assert jid.startswith("alice@localhost/Phone & Co.") and PHONE not in jid
        bound = success.find(f"{B}bound")
        assert bound is not None and len(bound) == 0
        features = await client.receive()
        assert features.tag == FEATURES
        offered = {one.tag for one in features}
        assert offered >= {f"{{{ns.ROSTER_VERSIONING}}}ver", f"{{{ns.PREAPPROVAL}}}sub"}
        assert not offered & {f"{{{ns.BIND}}}bind", f"{{{ns.SESSION}}}session", f"{S}authentication"}
        client.jid = jid
        await client.send(f"<message to='{jid.replace('&', '&amp;')}'><body>hi</body></message>")
        assert (await client.receive()).get("from") == jid


async def test_the_resource_of_a_client_stays_and_takes_the_place_of_its_last() -> None:
    async with World() as world:
        first = await opened(world)
        await login(first, "alice", tagged("Phone") + agent(PHONE))
        second = await opened(world)
        await login(second, "alice", tagged("Phone") + agent(PHONE.upper()))
        assert second.jid == first.jid
        await first.expect_closed("conflict")
        desk, other = await opened(world), await opened(world)
        await login(desk, "alice", tagged("Phone") + agent(DESK))
        await login(other, "bob", tagged("Phone") + agent(PHONE))
        resources = {one.jid.partition("/")[2] for one in (first, desk, other)}
        assert len(resources) == 3, "neither another client nor another account has the same"
        await second.expect_nothing()


async def test_it_does_so_where_others_are_given_new_names() -> None:
    async with World(settings={"sessions": {"conflict": "rename"}}) as world:
        first, second = await opened(world), await opened(world)
        await login(first, "alice", tagged("Phone") + agent(PHONE))
        await login(second, "alice", tagged("Phone") + agent(PHONE))
        assert second.jid == first.jid
        await first.expect_closed("conflict")


async def test_a_client_has_one_session_whatever_its_tag() -> None:
    async with World(settings={"limits": {"sessions_per_account": 1}}) as world:
        first, second = await opened(world), await opened(world)
        await login(first, "alice", tagged("Phone") + agent(PHONE))
        await login(second, "alice", tagged("Phone 2") + agent(PHONE))
        await first.expect_closed("conflict")
        assert second.jid.startswith("alice@localhost/Phone 2.")


async def test_without_an_id_resources_differ() -> None:
    async with World() as world:
        first, second = await opened(world), await opened(world)
        await login(first, "alice", tagged("Phone"))
        await login(second, "alice", tagged("Phone"))
        assert first.jid != second.jid
        await first.expect_nothing()


@pytest.mark.parametrize("tag", ["", "\u200b", "x" * 3000])
async def test_a_tag_that_cannot_be_is_left_out_or_cut(tag: str) -> None:
    async with World() as world:
        client = await opened(world)
        await login(client, "alice", tagged(tag) + agent(PHONE))
        shown, _, identifier = client.jid.partition("/")[2].rpartition(".")
        assert len(identifier) == 12 and shown == tag[:100].replace("\u200b", "")


async def test_a_session_too_many_leaves_the_login() -> None:
    async with World(settings={"limits": {"sessions_per_account": 1}}) as world:
        await world.login("alice", "desk")
        client = await opened(world)
        success = await login(client, "alice", BIND)
        assert identifier(success) == "alice@localhost" and success.find(f"{B}bound") is None
        failed = success.find(f"{B}failed")
        assert failed is not None
        error = failed[0]
        assert error.tag == f"{{{ns.CLIENT}}}error" and error.get("type") == "wait"
        assert error[0].tag == f"{{{ns.STANZA_ERRORS}}}resource-constraint"
        assert (await client.bind("other")).get("type") == "error", "for the same reason"
        await client.drop()
        again = world.connect()
        await again.open()
        assert (await again.authenticate("alice")).tag == f"{{{ns.SASL}}}success"


async def test_nothing_is_bound_by_a_failed_login() -> None:
    async with World() as world:
        client = await opened(world)
        await login(client, "alice", tagged("Phone"), initial=plain("alice", "wrong"))
        assert not any(app.sessions.by_full for app in world.apps)
        await login(client, "alice")
        assert not any(app.sessions.by_full for app in world.apps), "nor by what it asked for then"


async def test_an_account_disabled_meanwhile_is_not_bound(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    async with World(plugins=("slow",), plugin_folders=(tmp_path,)) as world:
        client = await opened(world, node=0)
        client.write(request("PLAIN", plain("alice"), BIND))
        await world.settle()
        await world.app.accounts.disable("alice@localhost")
        await world.settle()
        world.plugin("slow").go.set_result(None)
        await client.expect_closed("not-authorized")
        assert not any(app.sessions.by_full for app in world.apps)


async def test_a_client_that_leaves_meanwhile_is_not_bound(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    async with World(plugins=("slow",), plugin_folders=(tmp_path,)) as world:
        client = await opened(world, node=0)
        client.write(request("PLAIN", plain("alice"), BIND))
        await world.settle()
        await client.drop()
        world.plugin("slow").go.set_result(None)
        await world.settle()
        assert not any(app.sessions.by_full for app in world.apps)


SLOW = '''"""Takes its time at a login, and when a resource is bound."""

import asyncio

from xmppd.plugin import *
from xmppd import hooks


class Slow(Plugin):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.go = asyncio.get_running_loop().create_future()

    @hooks.session_bound
    async def bound(self, session):
        await asyncio.shield(self.go)
'''

SLOW_INLINE = SLOW.replace(
    "    @hooks.session_bound\n    async def bound(self, session):\n",
    "    @takes_inline('{urn:example}slow')\n    async def slow(self, stream, granted):\n",
).replace("asyncio.shield(self.go)", "asyncio.shield(self.go)\n        return b''")


async def test_a_client_that_leaves_before_all_was_taken_is_not_bound(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_INLINE)
    async with World(plugins=("slow",), plugin_folders=(tmp_path,)) as world:
        client = await opened(world, node=0)
        client.write(request("PLAIN", plain("alice"), f"<slow xmlns='urn:example'/>{BIND}"))
        await world.settle()
        await client.drop()
        bound: list[str] = []
        bind = world.app.binding.bind

        def seen(*args: Any, **more: Any) -> Any:
            bound.append("bound")
            return bind(*args, **more)

        world.app.binding.bind = seen  # type: ignore[method-assign]
        world.plugin("slow").go.set_result(None)
        await world.settle()
        assert bound == []


# --------------------------------------------------------------------------------- what plugins bring

INLINE = '''"""Takes things together with a login."""

from xmppd.plugin import *


class Things(Plugin):
    on = SessionSlot(False)

    @offers_inline
    def offer(self, stream):
        return b"<thing xmlns='urn:example'/>"

    @takes_inline("{urn:example}thing")
    def thing(self, stream, granted):
        text = granted.elements["{urn:example}thing"].text
        return f"<done xmlns='urn:example'>{granted.login.account} {text}</done>".encode()

    @takes_inline("{urn:example}later")
    async def later(self, stream, granted):
        return b"<late xmlns='urn:example'/>"

    @takes_at_bind("{urn:example}enable", "urn:example:enable")
    def enable(self, session, element):
        self.on[session] = True
        return b"<enabled xmlns='urn:example'/>"

    @takes_at_bind("", "urn:example:always")
    async def always(self, session, element):
        return b"<metadata xmlns='urn:example'/>"
'''


async def test_a_plugin_takes_elements_together_with_login_and_resource(tmp_path: Path) -> None:
    (tmp_path / "things.py").write_text(INLINE)
    async with World(plugins=("things",), plugin_folders=(tmp_path,)) as world:
        client = world.connect()
        features = await client.open()
        inline = features.find(f"{S}authentication/{S}inline")
        assert inline is not None and inline.find("{urn:example}thing") is not None
        names = [one.get("var") for one in inline.findall(f"{B}bind/{B}inline/{B}feature")]
        assert names[-2:] == ["urn:example:enable", "urn:example:always"]
        more = "<thing xmlns='urn:example'>x</thing><later xmlns='urn:example'/><other xmlns='urn:example'/>"
        await client.send(
            request("PLAIN", plain("alice"), more + tagged("Phone", "<enable xmlns='urn:example'/>"))
        )
        success = await client.receive()
        assert success.findtext("{urn:example}done") == "alice@localhost x"
        assert success.find("{urn:example}late") is not None, tostring(success)
        bound = success.find(f"{B}bound")
        assert bound is not None
        assert sorted(one.tag for one in bound) == ["{urn:example}enabled", "{urn:example}metadata"]
        client.jid = identifier(success)
        [plugin] = [
            one
            for one, app in zip(world.plugins("things"), world.apps, strict=True)
            if client.jid in app.sessions.by_full
        ]
        assert plugin.on[client.session]


@pytest.mark.parametrize("how", ["def", "async def"])
async def test_what_fails_at_a_bind_leaves_no_session(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken = INLINE.replace("async def always", f"{how} always").replace(
        'b"<metadata', '1 / 0 or b"<metadata'
    )
    (tmp_path / "things.py").write_text(broken)
    async with World(plugins=("things",), plugin_folders=(tmp_path,)) as world:
        client = await opened(world)
        await client.send(request("PLAIN", plain("alice"), BIND))
        await client.expect_closed("internal-server-error")
        assert not any(app.sessions.by_full for app in world.apps)


async def test_a_stream_is_attached_once(tmp_path: Path) -> None:
    other = """
    @takes_inline("{urn:example}other", attaches=True)
    def other(self, stream, granted):
        1 / 0
"""
    (tmp_path / "things.py").write_text(INLINE + other)
    async with World(plugins=("things",), plugin_folders=(tmp_path,)) as world:
        client = await opened(world)
        answer = await login(client, "alice", f"<other xmlns='urn:example'/>{BIND}")
        assert answer.find(f"{B}bound") is not None, "and nobody else was asked"
        client = await opened(world)
        await client.send(request("PLAIN", plain("alice"), "<other xmlns='urn:example'/>"))
        await client.expect_closed("internal-server-error")


async def test_what_is_asked_for_without_a_login_is_not_done(tmp_path: Path) -> None:
    (tmp_path / "things.py").write_text(INLINE.replace("granted.login.account", "1/0"))
    async with World(plugins=("things",), plugin_folders=(tmp_path,)) as world:
        client = await opened(world)
        more = "<thing xmlns='urn:example'>x</thing>"
        answer = await login(client, "alice", more, initial=plain("alice", "wrong"))
        assert condition(answer) == "not-authorized"
