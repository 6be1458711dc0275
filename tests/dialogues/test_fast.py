"""Logging in by tokens (XEP-0484), over streams in memory."""

import base64
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sasl2 import (
    BIND,
    DESK,
    NONE,
    PHONE,
    B,
    F,
    S,
    agent,
    b64,
    by_token,
    condition,
    fast,
    identifier,
    login,
    opened,
    plain,
    request,
    scram,
    shown,
    tagged,
    token_for,
    token_in,
    wanted,
)
from scramp import ScramClient

from xmppd import ns
from xmppd.core.tokens import DAY, TOKENS
from xmppd.errors import CommandError, StoreUnavailable, XmppdError
from xmppd.stream.sasl import Login
from xmppd.testing import PASSWORD, STREAM_HEADER, Client, World

pytestmark = pytest.mark.asyncio
EXPORTER = {"tls-exporter": b"exported", "tls-server-end-point": b"certificate"}
UNIQUE = {"tls-unique": b"finished", "tls-server-end-point": b"certificate"}
ALICE = "alice@localhost"


def mechanisms(features: Any) -> list[str]:
    return [one.text for one in features.findall(f"{S}authentication/{S}inline/{F}fast/{F}mechanism")]


async def rows(world: World, account: str = ALICE) -> list[dict[str, Any]]:
    return (await world.app.store.scan(TOKENS, (account,))).rows


# --------------------------------------------------------------------------------- what is offered


@pytest.mark.parametrize(
    ("bindings", "names"),
    [
        (EXPORTER, ["HT-SHA-256-EXPR", "HT-SHA-256-ENDP", NONE]),
        (UNIQUE, ["HT-SHA-256-UNIQ", "HT-SHA-256-ENDP", NONE]),
        ({}, [NONE]),
    ],
    ids=["TLS 1.3", "TLS 1.2", "no bindings"],
)
@pytest.mark.one_node("of several nodes none has a key of its own")
async def test_what_is_offered_fits_the_connection(bindings: dict[str, bytes], names: list[str]) -> None:
    async with World() as world:
        assert mechanisms(await world.connect(bindings=bindings).open()) == names


async def test_nodes_that_share_no_key_offer_no_binding() -> None:
    settings = {"cluster": {"listen": "127.0.0.1:5270"}, "cache": {"redis": None}}
    async with World(settings=settings, nodes=1) as world:
        assert mechanisms(await world.connect(bindings=EXPORTER).open()) == [NONE]


async def test_a_key_in_the_configuration_is_one() -> None:
    settings = {
        "cluster": {"listen": "127.0.0.1:5270"},
        "auth": {"fast": {"secret": "0123456789abcdef"}},
        "cache": {"redis": None},
    }
    async with World(settings=settings, nodes=1) as world:
        assert "HT-SHA-256-EXPR" in mechanisms(await world.connect(bindings=EXPORTER).open())


async def test_they_can_be_turned_off() -> None:
    async with World(settings={"auth": {"fast": {"days": 0}}}) as world:
        client = world.connect()
        assert mechanisms(await client.open()) == []
        assert token_in(await login(client, "alice", agent(PHONE) + wanted())) == ""


# --------------------------------------------------------------------------------- one after the other


async def test_a_token_lets_its_client_in_again() -> None:
    async with World() as world:
        client = await opened(world)
        success = await scram(client, "alice", agent(PHONE) + wanted() + tagged("Phone"))
        token = success.find(f"{F}token")
        assert token is not None
        assert token.get("expiry") == "2023-12-05T22:13:20Z", "21 days from 2023-11-14"
        jid = identifier(success)
        await client.drop()
        again = await opened(world, ALICE)
        success = await fast(again, "alice", token.get("token", ""), more=tagged("Phone"))
        assert identifier(success) == jid and success.find(f"{B}bound") is not None
        assert token_in(success) == "", "it is good for some time"
        login = again.session.login
        assert login.mechanism == NONE and login.agent is not None and login.agent.id == PHONE


async def test_a_client_without_an_id_or_an_account_gets_none() -> None:
    async with World(settings={"auth": {"anonymous": True}}) as world:
        client = await opened(world)
        assert token_in(await login(client, "alice", wanted())) == ""
        guest = await opened(world)
        more = agent(PHONE) + wanted()
        assert token_in(await login(guest, "", more, mechanism="ANONYMOUS", initial="")) == ""


@pytest.mark.parametrize("mechanism", ["PLAIN", "HT-SHA-256-EXPR", "HT-SHA-512-NONE", ""])
async def test_a_token_for_what_was_not_offered_is_none(mechanism: str) -> None:
    async with World() as world:
        client = await opened(world)
        assert token_in(await login(client, "alice", agent(PHONE) + wanted(mechanism))) == ""
        assert await rows(world) == []


async def test_a_failed_login_gets_none() -> None:
    async with World() as world:
        client = await opened(world)
        more = agent(PHONE) + wanted()
        await login(client, "alice", more, initial=plain("alice", "wrong"))
        assert await rows(world) == []


# --------------------------------------------------------------------------------- what is refused


async def test_what_a_token_is_good_for() -> None:
    async with World() as world:
        token = await token_for(world, "alice")
        assert await by_token(world, "alice", token, id=DESK) == "not-authorized", "of another client"
        assert await by_token(world, "bob", token) == "not-authorized", "for another account"
        assert await by_token(world, "nobody", token) == "not-authorized"
        assert await by_token(world, "alice", token + "x") == "not-authorized"
        assert await by_token(world, "alice", token) == "success"


@pytest.mark.parametrize(
    ("initial", "more", "expected"),
    [
        (b64("alice"), agent(PHONE), "malformed-request"),
        (b64(b"alice\0" + b"x" * 31), agent(PHONE), "malformed-request"),
        (b64(b"alice\0" + b"x" * 33), agent(PHONE), "malformed-request"),
        (b64(b"\xff\0" + b"x" * 32), agent(PHONE), "malformed-request"),
        (b64(b"a b\0" + b"x" * 32), agent(PHONE), "not-authorized"),
        (shown("alice", "x"), "", "malformed-request"),
        (shown("alice", "x"), "<user-agent/>", "malformed-request"),
    ],
)
async def test_what_is_no_proof(initial: str, more: str, expected: str) -> None:
    async with World() as world:
        client = await opened(world)
        more = f"<fast xmlns='urn:xmpp:fast:0'/>{more}"
        assert condition(await login(client, "alice", more, mechanism=NONE, initial=initial)) == expected


@pytest.mark.parametrize("bindings", [UNIQUE, {}], ids=["another", "none"])
async def test_a_mechanism_that_was_not_offered_is_refused(bindings: dict[str, bytes]) -> None:
    settings = {"auth": {"fast": {"secret": "0123456789abcdef"}}}
    async with World(settings=settings) as world:
        client = await opened(world, bindings=bindings)
        answer = await fast(client, "alice", "x", mechanism="HT-SHA-256-EXPR", bound=b"exported")
        assert condition(answer) == "invalid-mechanism"


async def test_a_token_is_shown_in_its_own_way() -> None:
    async with World() as world:
        token = await token_for(world, "alice")
        client = await opened(world)
        answer = await login(client, "alice", agent(PHONE), mechanism=NONE, initial=shown("alice", token))
        assert condition(answer) == "invalid-mechanism", "it does not say that it shows a token"
        more = f"<fast xmlns='urn:xmpp:fast:0'/>{agent(PHONE)}"
        assert condition(await login(client, "alice", more)) == "invalid-mechanism", "PLAIN shows none"
        await client.send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{NONE}'>AAAA</auth>")
        assert (await client.receive())[0].tag.endswith("}invalid-mechanism")


async def test_refusals_are_slowed_down_as_all_others(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with World(settings={"auth": {"brake": {"exempt": []}}}) as world:
        waits: list[float] = []

        async def pause(seconds: float) -> None:
            waits.append(seconds)

        world.app.logins.pause = pause
        for _ in range(5):
            client = await opened(world, peer="203.0.113.9", node=0)
            await fast(client, "alice", "wrong")
            await client.drop()
        assert waits == [1.0]
        lines = [record for record in caplog.records if record.message == "login-failed"]
        assert [(line.jid, line.mechanism, line.reason) for line in lines] == (  # type: ignore[attr-defined]
            [(ALICE, NONE, "not-authorized")] * 5
        )


# --------------------------------------------------------------------------------- channel binding


@pytest.mark.one_node("of several nodes none has a key of its own")
@pytest.mark.parametrize(
    ("mechanism", "bindings", "name"),
    [
        ("HT-SHA-256-EXPR", EXPORTER, "tls-exporter"),
        ("HT-SHA-256-UNIQ", UNIQUE, "tls-unique"),
        ("HT-SHA-256-ENDP", EXPORTER, "tls-server-end-point"),
    ],
)
async def test_a_bound_token_is_shown_on_the_connection_it_is_made_for(
    mechanism: str, bindings: dict[str, bytes], name: str
) -> None:
    async with World() as world:
        client = await opened(world, bindings=bindings)
        token = token_in(await login(client, "alice", agent(PHONE) + wanted(mechanism)))
        assert token
        other = await opened(world, bindings={**bindings, name: b"another"})
        answer = await fast(other, "alice", token, mechanism=mechanism, bound=b"another")
        assert identifier(answer) == ALICE
        somebody = await opened(world, bindings={**bindings, name: b"somebody's in between"})
        answer = await fast(somebody, "alice", token, mechanism=mechanism, bound=b"another")
        assert condition(answer) == "not-authorized"
        answer = await fast(somebody, "alice", token)
        assert condition(answer) == "not-authorized", "it is for one mechanism only"


@pytest.mark.one_node("of several nodes none has a key of its own")
async def test_without_its_key_a_bound_token_is_worth_nothing() -> None:
    async with World() as world:
        client = await opened(world, bindings=EXPORTER)
        token = token_in(await login(client, "alice", agent(PHONE) + wanted("HT-SHA-256-EXPR")))
        file = world.config.server.data_folder / "token.key"
        assert file.stat().st_mode & 0o777 == 0o600 and len(file.read_bytes()) == 32
        world.app.tokens._key = lambda create: bytes(32)
        other = await opened(world, bindings=EXPORTER)
        answer = await fast(other, "alice", token, mechanism="HT-SHA-256-EXPR", bound=b"exported")
        assert condition(answer) == "not-authorized"


@pytest.mark.one_node("of several nodes none has a key of its own")
async def test_what_is_stored_lets_nobody_in() -> None:
    """Neither a token nor what is shown of it can be found in a row, and nothing in it will do instead."""
    async with World() as world:
        client = await opened(world, bindings=EXPORTER)
        bound = token_in(await login(client, "alice", agent(DESK) + wanted("HT-SHA-256-EXPR")))
        token = await token_for(world, "alice")
        stored = [str(value) for row in await rows(world) for value in row.values()]
        assert not [text for text in stored if token in text or bound in text]
        assert not [text for text in stored if shown("alice", token) in text]
        pieces = {piece for text in stored for piece in re.split(r"[$ :]", text)}
        for piece in pieces:
            assert await by_token(world, "alice", piece) == "not-authorized"


# --------------------------------------------------------------------------------- races and failures


@pytest.mark.parametrize("keep_sessions", [True, False])
async def test_a_password_changed_while_a_token_is_made_takes_it(keep_sessions: bool) -> None:
    """The old one was proved, and the token must not outlive it."""
    async with World() as world:
        app = world.app
        hold = app.accounts.hold

        @contextlib.asynccontextmanager
        async def changed_meanwhile(account: str, login: Login | None = None) -> AsyncIterator[bool]:
            await app.accounts.set_password(ALICE, "other", keep_sessions=keep_sessions)
            async with hold(account, login) as exists:
                yield exists

        app.accounts.hold = changed_meanwhile  # type: ignore[method-assign, assignment]
        client = await opened(world, node=0)
        await client.send(request("PLAIN", plain("alice"), agent(PHONE) + wanted()))
        app.accounts.hold = hold  # type: ignore[method-assign]
        answer = await client.receive()
        if keep_sessions:
            assert await by_token(world, "alice", token_in(answer)) == "credentials-expired"
        else:
            assert answer.tag == f"{{{ns.STREAM}}}error", "its login holds no more"
            assert await rows(world) == []


async def test_a_login_that_holds_no_more_gets_no_token() -> None:
    async with World() as world:
        client = await opened(world, node=0)
        await login(client, "alice", agent(PHONE) + BIND)
        old = client.session.login
        assert await world.app.tokens.issue(old, NONE) is not None
        await world.app.accounts.set_password(ALICE, "other")
        assert await world.app.tokens.issue(old, NONE) is None
        await world.app.server.remove_account(ALICE)
        await world.app.accounts.create(ALICE, "other")
        assert await world.app.tokens.issue(old, NONE) is None


async def test_a_store_that_fails_costs_the_token_and_not_the_login() -> None:
    async with World() as world:
        client = await opened(world, node=0)

        async def fails(*args: Any, **more: Any) -> bool:
            raise StoreUnavailable("no")

        world.app.store.put_if = fails  # type: ignore[method-assign]
        assert token_in(await login(client, "alice", agent(PHONE) + wanted() + BIND)) == ""
        assert client.jid in world.app.sessions.by_full


async def test_a_store_that_cannot_be_asked_lets_nobody_in_by_token() -> None:
    async with World() as world:
        token = await token_for(world, "alice", node=0)

        async def fails(*args: Any, **more: Any) -> bool:
            raise StoreUnavailable("no")

        get, world.app.store.get = world.app.store.get, fails  # type: ignore[method-assign]
        assert await by_token(world, "alice", token, node=0) == "temporary-auth-failure"
        world.app.store.get = get  # type: ignore[method-assign]
        assert await by_token(world, "alice", token, node=0) == "success"


async def test_a_token_shown_twice_at_once_is_right_twice() -> None:
    async with World() as world:
        token = await token_for(world, "alice")
        clients = [await opened(world) for _ in range(3)]
        about = f"<fast xmlns='urn:xmpp:fast:0'/>{agent(PHONE)}"
        for client in clients:
            response = f"<initial-response>{shown('alice', token)}</initial-response>"
            client.write(
                f"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{NONE}'>{response}{about}</authenticate>"
            )
        await world.settle()
        assert [identifier(await client.receive()) for client in clients] == [ALICE] * 3


async def test_a_token_of_one_node_is_one_for_all() -> None:
    async with World() as world:
        last = len(world.apps) - 1
        token = await token_for(world, "alice", node=0)
        assert await by_token(world, "alice", token, node=last) == "success"
        world.clock.seconds += DAY
        fresh = token_in(await fast(await opened(world, node=last), "alice", token))
        assert await by_token(world, "alice", fresh, node=0) == "success"
        assert await by_token(world, "alice", token, node=last) == "not-authorized"


# --------------------------------------------------------------------------------- round trips


Script = Callable[[Client], AsyncIterator[str]]
HEADER = STREAM_HEADER.format(domain="localhost", more="")


async def flights(world: World, script: Script) -> int:
    """How often a client sends something, each time in answer to the server, until it has a session."""
    client, count = world.connect(), 0
    async for xml in script(client):
        assert not any(app.sessions.by_full for app in world.apps)
        await client.send(xml)
        count += 1
    assert any(app.sessions.by_full for app in world.apps)
    await client.drop()
    return count


async def by_sasl(client: Client) -> AsyncIterator[str]:
    dance = ScramClient(["SCRAM-SHA-256"], "alice", PASSWORD)
    yield HEADER
    await client.receive()
    first = b64(dance.get_client_first())
    yield f"<auth xmlns='{ns.SASL}' mechanism='SCRAM-SHA-256'>{first}</auth>"
    dance.set_server_first(base64.b64decode((await client.receive()).text or "").decode())
    yield f"<response xmlns='{ns.SASL}'>{b64(dance.get_client_final())}</response>"
    await client.receive()
    yield HEADER
    yield f"<iq type='set' id='b'><bind xmlns='{ns.BIND}'/></iq>"


async def by_sasl2(client: Client) -> AsyncIterator[str]:
    dance = ScramClient(["SCRAM-SHA-256"], "alice", PASSWORD)
    yield HEADER + request("SCRAM-SHA-256", b64(dance.get_client_first()), BIND)
    await client.receive()
    dance.set_server_first(base64.b64decode((await client.receive()).text or "").decode())
    yield f"<response xmlns='{ns.SASL2}'>{b64(dance.get_client_final())}</response>"


async def test_round_trips_of_a_login() -> None:
    """Of a client that knows what is offered."""
    async with World() as world:
        token = await token_for(world, "alice")

        async def by_fast(client: Client) -> AsyncIterator[str]:
            more = f"<fast xmlns='{ns.FAST}'/>{agent(PHONE)}{BIND}"
            yield HEADER + request(NONE, shown("alice", token), more)

        assert await flights(world, by_sasl) == 5
        assert await flights(world, by_sasl2) == 2
        assert await flights(world, by_fast) == 1


# --------------------------------------------------------------------------------- operators


async def test_operators_see_clients_and_revoke_their_tokens() -> None:
    async with World() as world:
        commands = world.app.commands
        client = await opened(world)
        more = agent(PHONE, "Awesome", "x" * 200) + wanted() + BIND
        token = token_in(await login(client, "alice", more))
        other = await token_for(world, "alice", id=DESK)
        listed = await commands.call("token list", {"account": ALICE})
        assert sorted(listed, key=lambda row: row["client"])[1] == {
            "client": PHONE,
            "software": "Awesome",
            "device": "x" * 100,
            "mechanism": NONE,
            "issued": "2023-11-14T22:13:20Z",
            "expires": "2023-12-05T22:13:20Z",
        }
        rows = await commands.call("token revoke", {"account": ALICE, "client": PHONE.upper()})
        told = [(key, value) for row in rows for key, value in row.items() if key != "node"]
        assert told == [("revoked", PHONE), ("ended", client.jid)]
        await world.settle()
        await client.expect_closed("reset")
        assert await by_token(world, "alice", token) == "not-authorized"
        assert await by_token(world, "alice", other, id=DESK) == "success"
        await commands.call("token revoke", {"account": ALICE})
        assert await by_token(world, "alice", other, id=DESK) == "not-authorized"
        assert await commands.call("token list", {"account": ALICE}) == []
        with pytest.raises(CommandError, match="has no token"):
            await commands.call("token revoke", {"account": ALICE})
        with pytest.raises(XmppdError, match="no account"):
            await commands.call("token list", {"account": "nobody@localhost"})


async def test_tokens_that_count_no_more_are_not_listed() -> None:
    async with World() as world:
        await token_for(world, "alice")
        await world.app.accounts.set_password(ALICE, "secret")
        assert await world.app.commands.call("token list", {"account": ALICE}) == []
        await token_for(world, "alice")
        world.clock.seconds += 21 * DAY
        assert await world.app.commands.call("token list", {"account": ALICE}) == []
