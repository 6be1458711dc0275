"""SASL seen from the client: what is offered, the form of messages, attempts, PLAIN and ANONYMOUS."""

import base64
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from xmppd.core.accounts import Accounts
from xmppd.errors import SaslError, StoreUnavailable
from xmppd.stream.plain import Plain
from xmppd.stream.sasl import Challenge, Channel, Identity, Step, Success, decode
from xmppd.stream.scram import scram_mechanisms

DOMAIN = "example.org"
PASSWORD = "pencil"
NOTHING_GOES_ON = ("malformed-request", "no authentication is going on")


async def finish(step: Step | Awaitable[Step]) -> Step:
    return await step if inspect.isawaitable(step) else step


async def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    """Condition and text with which an exchange ends."""
    with pytest.raises(SaslError) as caught:
        await finish(call())
    return caught.value.condition, caught.value.text


def b64(data: str | bytes) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def plain(name: str, password: str, authzid: str = "") -> str:
    return b64(f"{authzid}\0{name}\0{password}")


# -------------------------------------------------------------------------------- what is offered


@pytest.mark.asyncio
async def test_mechanisms_in_order_of_preference(server: Any) -> None:
    assert list(server.tls().channel.offered) == [
        "SCRAM-SHA-512-PLUS",
        "SCRAM-SHA-256-PLUS",
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-512",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1",
        "PLAIN",
        "ANONYMOUS",
    ]
    assert server.plaintext().channel.offered == (
        "SCRAM-SHA-512",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1",
        "ANONYMOUS",
    )


@pytest.mark.asyncio
async def test_channel_binding_types_are_listed_where_a_mechanism_uses_them(server: Any) -> None:
    assert server.tls().channel.advertised == ("tls-server-end-point",)
    assert server.plaintext().channel.advertised == ()
    assert server.tls(Plain(server.accounts)).channel.advertised == ()


@pytest.mark.asyncio
async def test_a_plugin_adds_a_mechanism(server: Any) -> None:
    class Token:
        name, priority, needs_tls = "X-TOKEN", 500, False

        def available(self, channel: Channel) -> bool:
            return channel.domain == DOMAIN

        def start(self, channel: Channel) -> "Token":
            return self

        def step(self, data: bytes) -> Step:
            return Success(Identity(data.decode()), b"")

    await server.accounts.provision(f"bob@{DOMAIN}")
    auth = server.plaintext(*server.mechanisms, Token())
    assert auth.channel.offered[0] == "X-TOKEN"
    success = await finish(auth.start("X-TOKEN", b64("bob")))
    assert success == Success(Identity("bob"), b"")
    assert success.payload == "="


@pytest.mark.asyncio
async def test_unknown_and_unoffered_mechanisms(server: Any) -> None:
    assert await refusal(lambda: server.tls().start("X-EVIL", "=")) == ("invalid-mechanism", "")
    assert await refusal(lambda: server.tls().start("EXTERNAL", "=")) == ("invalid-mechanism", "")
    assert await refusal(lambda: server.tls().start("plain", "=")) == ("invalid-mechanism", "")
    scrams = scram_mechanisms(server.accounts)
    assert await refusal(lambda: server.tls(*scrams).start("ANONYMOUS", "=")) == ("invalid-mechanism", "")
    assert await refusal(lambda: server.plaintext().start("SCRAM-SHA-1-PLUS", "=")) == (
        "invalid-mechanism",
        "",
    )


@pytest.mark.asyncio
async def test_plain_asks_for_tls_unless_allowed_without(server: Any) -> None:
    payload = plain("alice", PASSWORD)
    assert (await refusal(lambda: server.plaintext().start("PLAIN", payload)))[0] == "encryption-required"
    auth = server.plaintext(Plain(server.accounts, needs_tls=False))
    assert auth.channel.offered == ("PLAIN",)
    assert await finish(auth.start("PLAIN", payload)) == Success(Identity("alice"))


# -------------------------------------------------------------------------------- base64 and order


@pytest.mark.parametrize(
    "payload",
    ["!!!not base64===", "AA", "AA=", "A===", "AB==", "QUJD\n", " QUJD", "QUJD====", "QU=JD", "==", "QUJDé"],
)
def test_only_canonical_base64_is_decoded(payload: str) -> None:
    with pytest.raises(SaslError) as caught:
        decode(payload)
    assert caught.value.condition == "incorrect-encoding"


def test_base64_of_nothing() -> None:
    assert decode("=") == decode("") == b""
    assert decode("QUI=") == b"AB"


@pytest.mark.asyncio
async def test_bad_base64_ends_the_exchange(server: Any) -> None:
    auth = server.tls()
    assert await refusal(lambda: auth.start("PLAIN", "A")) == ("incorrect-encoding", "")
    assert (await refusal(lambda: auth.respond(plain("alice", PASSWORD)))) == NOTHING_GOES_ON
    auth.start("PLAIN")
    assert await refusal(lambda: auth.respond("A")) == ("incorrect-encoding", "")
    assert (await refusal(lambda: auth.respond(plain("alice", PASSWORD)))) == NOTHING_GOES_ON


@pytest.mark.asyncio
async def test_without_an_initial_response_the_server_asks_for_it(server: Any) -> None:
    auth = server.tls()
    challenge = auth.start("PLAIN")
    assert challenge == Challenge(b"")
    assert challenge.payload == ""
    assert await finish(auth.respond(plain("alice", PASSWORD))) == Success(Identity("alice"))


@pytest.mark.asyncio
async def test_response_without_auth(server: Any) -> None:
    assert (await refusal(lambda: server.tls().respond(plain("alice", PASSWORD))))[0] == "malformed-request"


@pytest.mark.asyncio
async def test_abort_ends_the_exchange(server: Any) -> None:
    auth = server.tls()
    auth.start("PLAIN")
    assert auth.abort().condition == "aborted"
    assert (await refusal(lambda: auth.respond(plain("alice", PASSWORD)))) == NOTHING_GOES_ON


@pytest.mark.asyncio
async def test_nothing_can_be_said_while_a_step_waits(server: Any) -> None:
    auth = server.tls()
    auth.start("PLAIN")
    pending = auth.respond(plain("alice", PASSWORD))
    assert (await refusal(lambda: auth.respond(plain("alice", PASSWORD)))) == NOTHING_GOES_ON
    assert await finish(pending) == Success(Identity("alice"))


@pytest.mark.asyncio
async def test_attempts_are_counted_whatever_they_fail_of(server: Any) -> None:
    auth = server.tls(attempts=5)
    await refusal(lambda: auth.start("PLAIN", plain("alice", "wrong")))
    await refusal(lambda: auth.start("X-EVIL"))
    await refusal(lambda: auth.start("PLAIN", "A"))
    await refusal(lambda: auth.respond("="))
    assert not auth.exhausted
    await finish(auth.start("SCRAM-SHA-1", b64("n,,n=alice,r=abc")))
    auth.abort()
    assert auth.exhausted
    assert (await refusal(lambda: auth.start("PLAIN", plain("alice", PASSWORD))))[0] == "not-authorized"


@pytest.mark.asyncio
async def test_the_last_attempt_can_succeed(server: Any) -> None:
    step = server.tls(attempts=1).start("PLAIN", plain("alice", PASSWORD))
    assert await finish(step) == Success(Identity("alice"))


@pytest.mark.asyncio
async def test_an_unreachable_store_is_a_temporary_failure(server: Any) -> None:
    class Down:
        async def get(self, table: object, key: object) -> None:
            raise StoreUnavailable("gone")

    accounts = Accounts(Down())  # type: ignore[arg-type]
    auth = server.tls(*scram_mechanisms(accounts), Plain(accounts))
    payload = b64("n,,n=alice,r=abc")
    assert (await refusal(lambda: auth.start("SCRAM-SHA-1", payload)))[0] == "temporary-auth-failure"
    payload = plain("alice", PASSWORD)
    assert (await refusal(lambda: auth.start("PLAIN", payload)))[0] == "temporary-auth-failure"


# -------------------------------------------------------------------------------- PLAIN, ANONYMOUS


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("message", "condition"),
    [
        (b"aliceandpassword", "malformed-request"),
        (b"alice\0pencil", "malformed-request"),
        (b"", "malformed-request"),
        (b"\0alice\0pencil\0extra", "not-authorized"),
        (b"\0\0", "not-authorized"),
        (b"\0alice\0", "not-authorized"),
        (b"\0\0pencil", "not-authorized"),
        (b"\0\xff\xfe\0\xff", "not-authorized"),
        (b"\0alice\0\xff", "not-authorized"),
        (b"\0alice\0pencil\x07", "not-authorized"),
        (b"\0%00\0pencil", "not-authorized"),
        (b"\0*)(uid=*\0pencil", "not-authorized"),
        (b"\0../../alice\0pencil", "not-authorized"),
    ],
)
async def test_plain_messages_that_are_nobodys(server: Any, message: bytes, condition: str) -> None:
    assert (await refusal(lambda: server.tls().start("PLAIN", b64(message) or "=")))[0] == condition


@pytest.mark.asyncio
async def test_a_password_that_proved_right_is_not_derived_again(server: Any) -> None:
    first = server.tls().start("PLAIN", plain("alice", PASSWORD))
    assert inspect.isawaitable(first)
    assert await first == Success(Identity("alice"))
    assert server.tls().start("PLAIN", plain("Alice", PASSWORD)) == Success(Identity("alice"))


@pytest.mark.asyncio
async def test_a_wrong_password_is_remembered_for_nothing(server: Any) -> None:
    for password in ("wrong", PASSWORD, "wrong", "wrong"):
        auth, payload = server.tls(), plain("alice", password)
        if password == PASSWORD:
            assert await finish(auth.start("PLAIN", payload)) == Success(Identity("alice"))
        else:
            assert await refusal(lambda a=auth, p=payload: a.start("PLAIN", p)) == ("not-authorized", "")


@pytest.mark.asyncio
async def test_a_changed_password_counts_at_once(server: Any) -> None:
    assert await finish(server.tls().start("PLAIN", plain("alice", PASSWORD)))
    await server.accounts.set_password(f"alice@{DOMAIN}", "crayon")
    old = plain("alice", PASSWORD)
    assert (await refusal(lambda: server.tls().start("PLAIN", old)))[0] == "not-authorized"
    assert await finish(server.tls().start("PLAIN", plain("alice", "crayon"))) == Success(Identity("alice"))
    await server.accounts.remove(f"alice@{DOMAIN}")
    gone = plain("alice", "crayon")
    assert (await refusal(lambda: server.tls().start("PLAIN", gone)))[0] == "not-authorized"


@pytest.mark.asyncio
async def test_what_plain_remembers_is_bounded(server: Any) -> None:
    mechanism = Plain(server.accounts, remembered=2)
    for name in ("bob", "carol"):
        await server.accounts.create(f"{name}@{DOMAIN}", PASSWORD)
    for name in ("alice", "bob", "carol"):
        await finish(server.tls(mechanism).start("PLAIN", plain(name, PASSWORD)))
    assert isinstance(server.tls(mechanism).start("PLAIN", plain("carol", PASSWORD)), Success)
    forgotten = server.tls(mechanism).start("PLAIN", plain("alice", PASSWORD))
    assert inspect.isawaitable(forgotten)
    assert await forgotten == Success(Identity("alice"))


@pytest.mark.asyncio
async def test_anonymous_names_are_random(server: Any) -> None:
    first = await finish(server.plaintext().start("ANONYMOUS", "="))
    second = await finish(server.plaintext().start("ANONYMOUS", b64("sirhc")))
    assert isinstance(first, Success)
    assert isinstance(second, Success)
    assert first.identity.anonymous
    assert first.identity.local != second.identity.local
    for trace in (b"\xff", b"x" * 256):
        payload = b64(trace)
        assert (await refusal(lambda p=payload: server.plaintext().start("ANONYMOUS", p)))[0] == (
            "malformed-request"
        )
