"""A login that began before its account changed, with every mechanism: it must not succeed afterwards."""

import asyncio
import base64
import hashlib
import hmac
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from xmppd.errors import SaslError
from xmppd.stream.sasl import Authenticator, Channel, Identity, Login, Step, Success

DOMAIN = "example.org"
ALICE = f"alice@{DOMAIN}"
PASSWORD = "pencil"
BINDING = b"the hash of a certificate"
SCRAMS = ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS"]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def disable(accounts: Any) -> None:
    await accounts.disable(ALICE)


async def disable_for_a_moment(accounts: Any) -> None:
    await accounts.disable(ALICE)
    await accounts.enable(ALICE)


async def change_password(accounts: Any) -> None:
    await accounts.set_password(ALICE, "crayon")


async def change_password_and_keep_sessions(accounts: Any) -> None:
    await accounts.set_password(ALICE, "crayon", keep_sessions=True)


async def remove(accounts: Any) -> None:
    await accounts.remove(ALICE)


async def make_anew(accounts: Any) -> None:
    await accounts.remove(ALICE)
    await accounts.create(ALICE, PASSWORD)


async def make_anew_elsewhere(accounts: Any) -> None:
    await make_anew(accounts)
    accounts.release()


CHANGES = [
    (disable, "account-disabled"),
    (disable_for_a_moment, "not-authorized"),
    (change_password, "not-authorized"),
    (change_password_and_keep_sessions, "not-authorized"),
    (remove, "not-authorized"),
    (make_anew, "not-authorized"),
    (make_anew_elsewhere, "not-authorized"),
]
changes = pytest.mark.parametrize(("change", "condition"), CHANGES, ids=[c.__name__ for c, _ in CHANGES])
Change = Callable[[Any], Awaitable[None]]


async def challenged(auth: Authenticator, mechanism: str) -> str:
    """The final message that proves the password, for a challenge that was taken."""
    gs2, bound = ("p=tls-server-end-point,,", BINDING) if mechanism.endswith("-PLUS") else ("n,,", b"")
    bare = "n=alice,r=abc"
    step = auth.start(mechanism, b64(f"{gs2}{bare}".encode()))
    step = await step if inspect.isawaitable(step) else step
    server_first = step.data.decode()  # type: ignore[union-attr]
    given = dict(part.split("=", 1) for part in server_first.split(","))
    algorithm = "sha256" if "256" in mechanism else "sha1"
    salt = base64.b64decode(given["s"])
    salted = hashlib.pbkdf2_hmac(algorithm, PASSWORD.encode(), salt, int(given["i"]))
    unsigned = f"c={b64(gs2.encode() + bound)},r={given['r']}"
    key = hmac.digest(salted, b"Client Key", algorithm)
    message = f"{bare},{server_first},{unsigned}".encode()
    signature = hmac.digest(hashlib.new(algorithm, key).digest(), message, algorithm)
    proof = b64(bytes(a ^ b for a, b in zip(key, signature, strict=True)))
    return b64(f"{unsigned},p={proof}".encode())


async def refusal(step: Callable[[], Step | Awaitable[Step]]) -> str:
    async def finish() -> None:
        answer = step()
        if inspect.isawaitable(answer):
            await answer

    with pytest.raises(SaslError) as caught:
        await finish()
    return caught.value.condition


@pytest.mark.asyncio
@changes
@pytest.mark.parametrize("mechanism", SCRAMS)
async def test_a_challenge_that_was_taken_before(
    server: Any, mechanism: str, change: Change, condition: str
) -> None:
    auth = server.plaintext() if not mechanism.endswith("-PLUS") else server.tls()
    final = await challenged(auth, mechanism)
    await change(server.accounts)
    assert await refusal(lambda: auth.respond(final)) == condition
    assert auth.login is None


@pytest.mark.asyncio
@changes
@pytest.mark.parametrize("is_known", [False, True], ids=["first", "again"])
async def test_a_password_that_is_checked_meanwhile(
    server: Any, monkeypatch: pytest.MonkeyPatch, is_known: bool, change: Change, condition: str
) -> None:
    """PLAIN waits for the thread that derives the key, or for the store."""
    initial = b64(f"\0alice\0{PASSWORD}".encode())
    if is_known:
        assert inspect.isawaitable(first := server.tls().start("PLAIN", initial))
        await first
        server.accounts.release()
    opened, reached = asyncio.Event(), asyncio.Event()
    name = "credentials" if is_known else "salted_password"
    real = getattr(server.accounts, name)

    async def slow(*args: Any) -> Any:
        answer = real(*args)
        answer = await answer if inspect.isawaitable(answer) else answer
        reached.set()
        await opened.wait()
        return answer

    monkeypatch.setattr(server.accounts, name, slow)
    auth = server.tls()
    pending = asyncio.ensure_future(auth.start("PLAIN", initial))
    await reached.wait()
    monkeypatch.setattr(server.accounts, name, real)
    await change(server.accounts)
    opened.set()
    assert await refusal(lambda: pending) == condition
    assert auth.login is None


class Asking:
    """A mechanism of a plugin that asks somebody else, and waits for the answer."""

    name, priority, needs_tls = "X-ASK", 500, False

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    def available(self, channel: Channel) -> bool:
        return True

    def start(self, channel: Channel) -> "Asking":
        return self

    async def step(self, data: bytes) -> Step:
        await self.opened.wait()
        return Success(Identity(data.decode()))


@pytest.mark.asyncio
@changes
async def test_a_plugin_that_asks_somebody_else(server: Any, change: Change, condition: str) -> None:
    mechanism = Asking()
    auth = server.plaintext(mechanism)
    pending = asyncio.ensure_future(auth.start("X-ASK", b64(b"alice")))
    await asyncio.sleep(0)
    await change(server.accounts)
    mechanism.opened.set()
    # Who it is was proved to somebody else, so that a repeat succeeds where there is an account to log in to.
    again = {disable: "account-disabled", remove: "not-authorized"}.get(change, "temporary-auth-failure")
    assert await refusal(lambda: pending) == again


@pytest.mark.asyncio
async def test_a_plugin_lets_in_only_who_has_an_account_or_is_anonymous(server: Any) -> None:
    mechanism = Asking()
    mechanism.opened.set()
    auth = server.plaintext(mechanism)
    assert await refusal(lambda: auth.start("X-ASK", b64(b"nobody"))) == "not-authorized"
    await server.accounts.provision(f"nobody@{DOMAIN}")
    assert isinstance(await auth.start("X-ASK", b64(b"nobody")), Success)
    assert auth.login.tenure.created is not None
    mechanism.step = lambda data: Success(Identity("guest", anonymous=True))  # type: ignore[method-assign]
    assert isinstance(auth.start("X-ASK", b64(b"guest")), Success)
    assert auth.login == Login(f"guest@{DOMAIN}", None, "X-ASK")


@pytest.mark.asyncio
@pytest.mark.parametrize("local", ["", "a b", "alice@example.org/x", "x" * 1100, "a<b", "a/b"])
@pytest.mark.parametrize("anonymous", [False, True])
async def test_a_plugin_names_who_can_be_nobody(server: Any, local: str, anonymous: bool) -> None:
    mechanism = Asking()
    mechanism.step = lambda data: Success(Identity(local, anonymous=anonymous))  # type: ignore[method-assign]
    auth = server.plaintext(mechanism)
    assert await refusal(lambda: auth.start("X-ASK", b64(b"x"))) == "not-authorized"


@pytest.mark.asyncio
async def test_a_plugin_may_write_a_name_in_any_letter_case(server: Any) -> None:
    mechanism = Asking()
    mechanism.opened.set()
    auth = server.plaintext(mechanism)
    assert isinstance(await auth.start("X-ASK", b64(b"ALICE")), Success)
    assert auth.login.account == ALICE


@pytest.mark.asyncio
async def test_an_account_without_a_password_takes_none(server: Any) -> None:
    await server.accounts.provision(f"bob@{DOMAIN}")
    auth = server.tls()
    for password in ("", PASSWORD, "x"):
        initial = b64(f"\0bob\0{password}".encode())
        assert await refusal(lambda i=initial: auth.start("PLAIN", i)) == "not-authorized"


@pytest.mark.asyncio
async def test_a_change_of_somebody_else_is_none_of_its_business(server: Any) -> None:
    auth = server.plaintext()
    final = await challenged(auth, "SCRAM-SHA-256")
    await server.accounts.create(f"bob@{DOMAIN}", "x")
    await server.accounts.disable(f"bob@{DOMAIN}")
    server.accounts.forget_all()
    step = auth.respond(final)
    assert isinstance(await step if inspect.isawaitable(step) else step, Success)


@pytest.mark.asyncio
async def test_a_login_with_what_is_cached_asks_the_store_for_nothing_more(server: Any) -> None:
    auth = server.plaintext()
    final = await challenged(auth, "SCRAM-SHA-256")
    await server.blocks.read(f"alice@{DOMAIN}")
    reads = server.store.stats.reads
    assert isinstance(auth.respond(final), Success)
    assert server.gate.confirm(auth.login) is None
    assert server.store.stats.reads == reads
