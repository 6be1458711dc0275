"""Sets of keys by which tokens are checked: names, algorithms, and servers of keys with all that these do."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from keyserver import (
    AUDIENCE,
    ED,
    ISSUER,
    LOOPBACK,
    P256,
    RSA,
    KeyServer,
    hangs,
    jwk,
    public,
    says,
    token,
)
from patience import PATIENCE

from xmppd import keysets
from xmppd.keysets import Keys, key_set, keys_in, lasting
from xmppd.parts.keysets import KeysUnavailable, TokenRefused
from xmppd.testing import START

pytestmark = pytest.mark.asyncio
ALL = ("ES256", "RS256", "EdDSA", "HS256")
SECRET = b"s" * 32


class Clock:
    """Time as a test has it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return START + self.seconds

    def clock(self) -> float:
        return self.seconds


def made(clock: Clock, texts: Any = (), url: str = "", algorithms: Any = ALL, seconds: float = 5.0) -> Keys:
    return key_set(algorithms, texts, url, LOOPBACK, seconds, "", clock.now, clock.clock)


async def fits(keys: Keys, key: Any, algorithm: str = "ES256", name: str | None = None, **more: Any) -> bool:
    """Whether a token that is signed so is taken."""
    try:
        said = await keys.claims(
            token(key, START + 1e6, algorithm, name, **more), issuer=ISSUER, audience=AUDIENCE
        )
    except TokenRefused:
        return False
    assert said["sub"] == "game-7"
    return True


# names and algorithms


async def test_a_token_that_names_a_key_is_checked_by_that_only() -> None:
    both = json.dumps({"keys": [jwk(P256[0], name="a"), jwk(P256[1], name="b")]})
    keys = made(Clock(), [both])
    assert await fits(keys, P256[0], name="a") and await fits(keys, P256[1], name="b")
    assert not await fits(keys, P256[0], name="b") and not await fits(keys, P256[0], name="c")
    assert await fits(keys, P256[0]) and await fits(keys, P256[1]), "without a name all are tried"


async def test_a_key_without_a_name_may_be_meant_by_any() -> None:
    keys = made(Clock(), [public(P256[0]), json.dumps(jwk(P256[1], name="b"))])
    assert await fits(keys, P256[0], name="x") and await fits(keys, P256[0])
    assert not await fits(keys, P256[0], name="b"), "another key has this name"


async def test_each_algorithm_and_no_other_for_a_key() -> None:
    secret = jwk(SECRET, "HS256", "hs")
    some = [jwk(P256[0], name="es"), jwk(RSA, "RS256", "rs"), jwk(ED, "EdDSA", "ed"), secret]
    keys = made(Clock(), [json.dumps({"keys": some})], algorithms=(*ALL, "PS256"))
    for key, algorithm, name in (
        (P256[0], "ES256", "es"),
        (RSA, "RS256", "rs"),
        (ED, "EdDSA", "ed"),
        (SECRET, "HS256", "hs"),
    ):
        assert await fits(keys, key, algorithm, name), algorithm
        assert await fits(keys, key, algorithm), algorithm
        for other in {"es", "rs", "ed", "hs"} - {name}:
            assert not await fits(keys, key, algorithm, other), (algorithm, other)
    assert not await fits(keys, RSA, "PS256", "rs"), "its alg says RS256"
    assert not await fits(
        made(Clock(), [json.dumps(jwk(RSA, "RS256"))], algorithms=["ES256", "RS256"]), ED, "EdDSA"
    )
    assert await fits(
        made(Clock(), [json.dumps(jwk(RSA, "RS256", alg=None))], algorithms=["PS256"]), RSA, "PS256"
    )


@pytest.mark.parametrize(
    "given",
    [
        jwk(P256[0], use="enc"),
        jwk(P256[0], key_ops=["sign"]),
        jwk(P256[0], key_ops="verify"),
        jwk(P256[0], d="AAAA"),
        jwk(P256[0], alg="ES384"),
        jwk(P256[0], crv="P-384"),
        jwk(P256[0], crv="secp256k1", alg=None),
        jwk(P256[0], x="AAAA"),
        jwk(P256[0], x=5),
        jwk(P256[0], kid=7),
        jwk(P256[0], kid="x" * 257),
        jwk(P256[0], kty="RSA"),
        jwk(RSA, "RS256", n="AQAB"),
        jwk(RSA, "RS256", n="_" * 2001),
        jwk(RSA, "RS256", e="AQAAAAAAAAAB"),
        jwk(SECRET[:31], "HS256"),
        jwk(ED, "EdDSA", crv="X25519"),
        jwk(ED, "EdDSA", x=""),
        {"kty": "EC"},
        {"kty": []},
        5,
        None,
    ],
)
async def test_what_is_no_key_is_passed_over(given: Any) -> None:
    assert keys_in({"keys": [given, jwk(P256[1])]}, ALL) == keys_in(jwk(P256[1]), ALL)


@pytest.mark.parametrize("data", [[], {}, {"keys": {}}, {"keys": [jwk(P256[0])] * 65}, None, 5])
async def test_what_is_no_set(data: Any) -> None:
    with pytest.raises(ValueError, match="it "):
        keys_in(data, ALL)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "names no keys"),
        ({"texts": ['{"keys": []}']}, "key 1 is none"),
        ({"texts": ["{nonsense"]}, "key 1 is none"),
        ({"texts": [json.dumps(jwk(RSA, "RS256"))], "algorithms": ["ES256"]}, "key 1 is none for ES256"),
        ({"url": "http://8.8.8.8/"}, "may not be connected to"),
        ({"url": "ftp://127.0.0.1/"}, "must begin with https://"),
        ({"url": "https://127.0.0.1/", "algorithms": ["HS256"]}, "signed by a secret"),
    ],
)
async def test_what_can_be_none(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        made(Clock(), **given)


async def test_many_keys_that_could_be_meant_are_not_tried() -> None:
    many = [jwk(P256[0], name=str(number)) for number in range(9)]
    keys = made(Clock(), [json.dumps({"keys": many})])
    assert await fits(keys, P256[0], name="8") and not await fits(keys, P256[0])


@pytest.mark.parametrize(
    "more",
    [
        {"exp": 10**400},
        {"exp": float("inf")},
        {"nbf": -(10**400)},
        {"iss": None},
        {"aud": 5},
        {"sub": None},
        {"headers": {"crit": ["b64"], "b64": False}},
        {"sub": "x" * 17_000},
    ],
)
async def test_no_claim_is_too_odd(more: dict[str, Any]) -> None:
    assert not await fits(made(Clock(), [public(P256[0])]), P256[0], **more)


# servers of keys


async def test_keys_are_fetched_once_and_kept() -> None:
    clock = Clock()
    async with KeyServer(jwk(P256[0], name="a"), jwk(RSA, "RS256", "r")) as server:
        server.headers = {"Cache-Control": "public, max-age=100"}
        keys = made(clock, url=server.url)
        found = await asyncio.gather(*(fits(keys, P256[0], name="a") for _ in range(20)))
        assert all(found) and server.asked == 1
        version = keys.version
        clock.seconds = 79
        assert await fits(keys, RSA, "RS256", "r") and keys.is_current(version) and server.asked == 1
        clock.seconds = 80  # before they are old, and nobody waits for it
        assert not keys.is_current(version)
        assert await fits(keys, P256[0], name="a")
        await asyncio.wait_for(asyncio.shield(keys._asking), PATIENCE)
        assert server.asked == 2 and keys.is_current(version), "they are the same"
        await keys.close()


async def test_another_key_is_known_as_soon_as_a_token_names_it() -> None:
    clock = Clock()
    async with KeyServer(jwk(P256[0], name="a")) as server:
        keys = made(clock, url=server.url)
        assert await fits(keys, P256[0], name="a")
        version = keys.version
        server.keys = [jwk(P256[1], name="b")]
        assert not await fits(keys, P256[1], name="b") and server.asked == 1, "it was asked just now"
        clock.seconds = keysets.AGAIN_SECONDS
        found = await asyncio.gather(*(fits(keys, P256[1], name="b") for _ in range(9)))
        assert all(found) and server.asked == 2
        assert not keys.is_current(version), "what was found good counts no more"
        assert not await fits(keys, P256[0], name="a")
        clock.seconds *= 2
        assert await fits(keys, P256[1]) and server.asked == 2
        server.keys = [jwk(P256[2])]
        assert await fits(keys, P256[2]) and server.asked == 3, "one without a name, signed by no known key"
        await keys.close()


async def test_names_that_nobody_has_make_it_ask_now_and_then() -> None:
    clock = Clock()
    async with KeyServer(jwk(P256[0], name="a")) as server:
        keys = made(clock, url=server.url)
        for number in range(100):
            clock.seconds += 1
            assert not await fits(keys, P256[1], name=f"x{number}")
        assert server.asked <= 11
        await keys.close()


async def test_a_key_that_is_taken_back_counts_no_more_when_the_keys_are_old() -> None:
    clock = Clock()
    async with KeyServer(jwk(P256[0], name="a"), jwk(P256[1], name="b")) as server:
        keys = made(clock, url=server.url)
        assert await fits(keys, P256[0], name="a")
        server.keys.pop(0)
        clock.seconds = keysets.USUAL_SECONDS
        assert not await fits(keys, P256[0], name="a") and await fits(keys, P256[1], name="b")
        server.keys = []
        clock.seconds *= 2
        assert not await fits(keys, P256[1], name="b"), "all were taken back"
        await keys.close()


async def test_an_outage_is_outlived(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    server = KeyServer(jwk(P256[0], name="a"))
    async with server:
        keys = made(clock, url=server.url)
        assert await fits(keys, P256[0], name="a")
    with caplog.at_level("INFO", "xmppd.keysets"):
        for _ in range(50):
            clock.seconds += 1_000
            assert await fits(keys, P256[0], name="a")
            assert not await fits(keys, P256[1], name="b")
    [record] = [it for it in caplog.records if it.message == "keys-not-fetched"]
    assert record.kept == 1 and record.host == "127.0.0.1"
    server.keys.append(jwk(P256[1], name="b"))
    async with server:
        clock.seconds += 1_000
        with caplog.at_level("INFO", "xmppd.keysets"):
            assert await fits(keys, P256[1], name="b")
        assert caplog.records[-1].message == "keys-fetched"
    await keys.close()


async def test_without_any_keys_nobody_knows() -> None:
    clock = Clock()
    async with KeyServer() as server:
        port = server.port
    keys = made(clock, [public(RSA)], url=server.url)
    with pytest.raises(KeysUnavailable):
        await fits(keys, P256[0], name="a")
    assert await fits(keys, RSA, "RS256"), "one that is known by itself"
    again = KeyServer(jwk(P256[0], name="a"))
    again.port = port
    async with again:
        with pytest.raises(KeysUnavailable):
            await fits(keys, P256[0], name="a")
        assert again.asked == 0, "it waits before it asks again"
        clock.seconds += keysets.PAUSE_SECONDS
        assert await fits(keys, P256[0], name="a")
    await keys.close()


async def test_a_slow_server_holds_up_nobody_who_is_known() -> None:
    clock, stop = Clock(), asyncio.Event()
    async with KeyServer(jwk(P256[0], name="a")) as server:
        keys = made(clock, url=server.url, seconds=0.2)
        assert await fits(keys, P256[0], name="a")
        server.answer = hangs(stop)
        clock.seconds += 4_000
        assert await fits(keys, P256[0], name="a"), "it waited for 0.2 s and goes on with what it has"
        keys._client._seconds = 2 * PATIENCE  # type: ignore[union-attr]
        asked = server.asked
        for _ in range(5):
            clock.seconds += keysets.MOST_PAUSE
            async with asyncio.timeout(PATIENCE):
                assert await fits(keys, P256[0], name="a")
        assert server.asked >= asked
        await keys.close()
        stop.set()


async def test_one_that_drips_is_cut_off() -> None:
    server = KeyServer()

    async def give(asked: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(asked)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)

    server._give = give  # type: ignore[method-assign]
    async with server:
        keys = made(Clock(), url=server.url, seconds=0.2)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(KeysUnavailable):
                await fits(keys, P256[0])
        await keys.close()


GOOD = json.dumps({"keys": [jwk(P256[1], name="b")]}).encode()


@pytest.mark.parametrize(
    ("body", "status", "headers"),
    [
        (b"", 200, {}),
        (b"{", 200, {}),
        (b"[" * 100_000, 200, {}),
        (b'{"keys": ' + b"[" * 100_000, 200, {}),
        (b'{"keys": 5}', 200, {}),
        (b"[]", 200, {}),
        (b"\xff\xfe\xfd", 200, {}),
        (b'{"keys": [], "x": ' + b"9" * 10_000 + b"}", 200, {}),
        (b'{"keys": [' + b'"x", ' * 100 + b'"x"]}', 200, {}),
        (b" " * keysets.MOST_BYTES + GOOD, 200, {}),
        (GOOD, 500, {}),
        (GOOD, 404, {}),
        (GOOD, 302, {"Location": "/keys"}),
        (GOOD[:-1], 200, {}),
        (json.dumps(jwk(P256[1], name="b")).encode(), 200, {}),
    ],
)
async def test_what_is_no_set_changes_nothing(body: bytes, status: int, headers: dict[str, str]) -> None:
    clock = Clock()
    async with KeyServer(jwk(P256[0], name="a")) as server:
        keys = made(clock, url=server.url)
        assert await fits(keys, P256[0], name="a")
        version = keys.version
        server.answer = says(body, status, **headers)
        clock.seconds += 4_000
        assert await fits(keys, P256[0], name="a") and not await fits(keys, P256[1], name="b")
        assert server.asked == 2 and keys.version == version
        await keys.close()


async def test_what_is_closed_asks_nobody_any_more() -> None:
    clock = Clock()
    async with KeyServer(jwk(P256[0], name="a")) as server:
        keys = made(clock, url=server.url)
        assert await fits(keys, P256[0], name="a")
        await keys.close()
        clock.seconds += 4_000
        assert await fits(keys, P256[0], name="a") and not await fits(keys, P256[1], name="b")
        assert server.asked == 1


async def test_a_set_has_no_secrets() -> None:
    async with KeyServer(jwk(SECRET, "HS256", "hs"), jwk(P256[0], name="a")) as server:
        keys = made(Clock(), url=server.url)
        assert await fits(keys, P256[0], name="a") and not await fits(keys, SECRET, "HS256", "hs")
        await keys.close()


async def test_loopback_is_asked_only_where_that_is_allowed() -> None:
    async with KeyServer(jwk(P256[0], name="a")) as server:
        with pytest.raises(ValueError, match="may not be connected to"):
            key_set(ALL, [], server.url, [], 5.0, "", Clock().now, Clock().clock)
        keys = key_set(
            ALL, [], server.url.replace("127.0.0.1", "localhost"), [], 5.0, "", Clock().now, Clock().clock
        )
        with pytest.raises(KeysUnavailable):
            await fits(keys, P256[0], name="a")
        assert server.asked == 0
        await keys.close()


@pytest.mark.parametrize(
    ("control", "seconds"),
    [
        ("", 600),
        ("max-age=900", 900),
        ("public, MAX-AGE=900, must-revalidate", 900),
        ("s-maxage=900", 600),
        ("max-age=5", 60),
        ("max-age=999999999", 3600),
        ("max-age=99999999999999999999", 600),
        ("max-age=-5", 600),
        ("no-store", 60),
        ("no-cache, max-age=900", 60),
    ],
)
async def test_how_long_they_may_be_kept(control: str, seconds: float) -> None:
    assert lasting({"cache-control": control}) == seconds
    assert lasting({"cache-control": "max-age=900", "age": "300"}) == 600
    assert lasting({"cache-control": "max-age=900", "age": "é"}) == 900
