"""JWTs of configured issuers: which let in, what they may do, and all that is refused."""

import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from keyserver import LOOPBACK, P256, KeyServer, jwk

from xmppd.checks import check_issuers
from xmppd.config import made_of
from xmppd.testing import START, World

ISSUER, AUDIENCE = "https://id.example.org", "xmppd"
PATH = "/api/v1/user/show?account=alice@localhost"
KEY, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
RSA = rsa.generate_private_key(65537, 2048)
ED = ed25519.Ed25519PrivateKey.generate()
SECRET = "s" * 32


def public(key: Any) -> str:
    text: str = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return text


def private(key: Any) -> str:
    text: str = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return text


def settings(**more: Any) -> dict[str, Any]:
    issuer = {
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "keys": [public(KEY)],
        "algorithms": ["ES256"],
        **more,
    }
    return {"http": {"issuers": [issuer]}}


def token(key: Any = KEY, algorithm: str = "ES256", headers: Any = None, **claims: Any) -> str:
    given = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "game-7",
        "exp": START + 600,
        "scope": "user:show other",
        **claims,
    }
    kept = {name: value for name, value in given.items() if value is not None}
    return jwt.encode(kept, key, algorithm=algorithm, headers=headers)


async def status(world: World, secret: str) -> int:
    return (await world.http("GET", PATH, token=secret)).status


@pytest.mark.asyncio
async def test_a_good_one_lets_in_with_its_scopes() -> None:
    async with World(settings=settings()) as world:
        assert await status(world, token()) == 200
        for scope in ("*", "user:*", ["user:show"], "a:b user:read"):
            assert await status(world, token(scope=scope)) == 200, scope
        for scope in (None, "", "user", "USER:SHOW", 5, {"user:show": 1}, ["roster:show", 7]):
            assert await status(world, token(scope=scope)) == 403, scope
        assert await status(world, token(aud=["other", AUDIENCE])) == 200


@pytest.mark.asyncio
async def test_who_it_is_stands_in_the_audit_log() -> None:
    async with World(settings=settings()) as world:
        secret = token(scope="user:disable")
        body = b'{"account": "alice@localhost"}'
        response = await world.http("POST", "/api/v1/user/disable", token=secret, body=body)
        assert response.status == 200
        [row] = (await world.app.commands.call("audit list", {}))["rows"]
        assert row["who"] == f"{ISSUER}#game-7" and secret not in str(row)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example.org"},
        {"iss": None},
        {"aud": "other"},
        {"aud": None},
        {"aud": []},
        {"exp": None},
        {"exp": START - 30},
        {"exp": "never"},
        {"exp": True},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"nbf": START + 31},
        {"nbf": "soon"},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 201},
        {"sub": "a\nb"},
        {"key": OTHER},
        {"headers": {"crit": ["exp"]}},
    ],
)
async def test_what_is_wrong_in_one_thing_is_refused(claims: dict[str, Any]) -> None:
    async with World(settings=settings()) as world:
        assert await status(world, token(**claims)) == 401


def part(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


@pytest.mark.asyncio
async def test_no_token_chooses_how_it_is_checked() -> None:
    async with World(settings=settings()) as world:
        good = token().split(".")
        claims = part({"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": START + 600, "scope": "*"})
        wrong = [
            f"{part({'alg': 'none'})}.{claims}.",
            f"{part({'alg': 'ES384'})}.{claims}.{good[2]}",
            f"{part({'alg': ['ES256']})}.{claims}.{good[2]}",
            f"{part({})}.{claims}.{good[2]}",
            f"{good[0]}.{claims}.{good[2]}",
            f"{good[0]}.{good[1]}.",
            f"{part('[' * 3000)}.{claims}.{good[2]}",
            f"{good[0]}.{part('[' * 3000)}.{good[2]}",
            "..",
            "a.b.c",
            "é.é.é",
            token(SECRET, "HS256"),
            token(RSA, "RS256"),
        ]
        # The public key as a secret of HMAC.
        head = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{claims}"
        mac = jwt.get_algorithm_by_name("HS256").sign(head.encode(), public(KEY).encode())
        wrong.append(f"{head}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}")
        assert [it for it in wrong if await status(world, it) != 401] == []


@pytest.mark.asyncio
async def test_it_ends_and_clocks_may_differ() -> None:
    async with World(settings=settings(leeway=5)) as world:
        secret = token(exp=START + 60, nbf=START + 10)
        assert await status(world, secret) == 401
        world.clock.seconds += 5
        assert await status(world, secret) == 200
        world.clock.seconds += 59.5
        assert await status(world, secret) == 200
        world.clock.seconds += 0.5
        assert await status(world, secret) == 401


@pytest.mark.asyncio
async def test_keys_may_be_many_of_any_kind_and_in_files(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(public(RSA))
    more = {
        "keys": [public(OTHER), public(KEY), public(ED)],
        "key_files": [str(tmp_path / "key.pem")],
        "algorithms": ["ES256", "PS256", "EdDSA"],
    }
    async with World(settings=settings(**more)) as world:
        for key, algorithm in ((KEY, "ES256"), (OTHER, "ES256"), (ED, "EdDSA"), (RSA, "PS256")):
            assert await status(world, token(key, algorithm)) == 200, algorithm
        assert await status(world, token(RSA, "RS256")) == 401
    async with World(settings=settings(keys=[SECRET], algorithms=["HS256"])) as world:
        assert await status(world, token(SECRET, "HS256")) == 200
        assert await status(world, token()) == 401


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"keys": []}, "names no keys"),
        ({"keys": ["nonsense"]}, "key 1 is none for ES256"),
        ({"keys": [public(KEY), public(RSA)]}, "key 2 is none for ES256"),
        ({"keys": [private(KEY)]}, "key 1 is none for ES256"),
        ({"keys": [public(KEY)], "algorithms": ["HS256"]}, "key 1 is none for HS256"),
        ({"keys": ["s" * 31], "algorithms": ["HS512"]}, "key 1 is none for HS512"),
        (
            {"keys": [], "jwks_uri": "http://10.0.0.1/keys"},
            "the URL leads to an address that may not be connected to",
        ),
        (
            {"keys": [], "jwks_uri": "https://id.example.org/", "algorithms": ["HS256"]},
            "what is signed by a secret is checked by no keys that others may fetch",
        ),
        ({"keys": [], "key_files": ["/nowhere/key.pem"]}, "/nowhere/key.pem: No such file or directory"),
    ],
)
def test_keys_that_are_none_are_found_in_the_configuration(given: dict[str, Any], message: str) -> None:
    [finding] = check_issuers(made_of(settings(**given)))
    assert finding.is_fatal and finding.problem.message == message
    assert finding.problem.path.startswith("http.issuers")


@pytest.mark.asyncio
async def test_what_was_good_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(settings=settings()) as world:
        secret = token()
        assert await status(world, secret) == 200
        monkeypatch.setattr(jwt, "decode", None)
        assert await status(world, secret) == 200
        assert await status(world, token(sub="other")) == 401
        world.clock.seconds += 630
        assert await status(world, secret) == 401


@pytest.mark.asyncio
async def test_keys_of_a_server_let_in_and_are_kept_by_a_reload() -> None:
    server = KeyServer(jwk(P256[0], name="a"))
    async with server:
        found = settings(keys=[], jwks_uri=server.url, allowed=LOOPBACK)
        async with World(settings=found) as world:
            good = token(P256[0], headers={"kid": "a"})
            assert await status(world, good) == 200
            assert await status(world, token(P256[1], headers={"kid": "a"})) == 401
            assert await status(world, good) == 200 and server.asked == 1
            await server.__aexit__()
            world.app.doors.apply(world.config)
            world.clock.seconds += 4_000
            longer = token(P256[0], headers={"kid": "a"}, exp=START + 9_000)
            assert await status(world, longer) == 200, "they cannot be had now, and were fetched before"
            server.keys = [jwk(P256[1], name="b")]
            await server.__aenter__()
            world.clock.seconds += 60
            assert await status(world, token(P256[1], headers={"kid": "b"}, exp=START + 9_000)) == 200
            assert await status(world, longer) == 401, "remembered as good, and signed by no key any more"


@pytest.mark.asyncio
async def test_without_keys_nobody_is_refused_for_good() -> None:
    async with KeyServer() as server:
        url = server.url
    async with World(settings=settings(keys=[], jwks_uri=url, allowed=LOOPBACK)) as world:
        answer = await world.http("GET", PATH, token=token(P256[0], headers={"kid": "a"}))
        assert answer.status == 503 and answer.headers["Retry-After"] == "5"
        assert json.loads(answer.body)["rule"] == "keys-unavailable"
        assert await status(world, token(iss="https://other.example.org")) == 401


@pytest.mark.asyncio
async def test_a_name_and_several_issuers() -> None:
    keys = json.dumps({"keys": [jwk(KEY, name="a"), jwk(OTHER, name="b")]})
    both = settings(keys=[keys])
    second = {"issuer": "https://two.example.org", "audience": AUDIENCE, "keys": [public(P256[0])]}
    both["http"]["issuers"].append({**second, "algorithms": ["ES256"]})
    async with World(settings=both) as world:
        assert await status(world, token(headers={"kid": "a"})) == 200
        assert await status(world, token(headers={"kid": "b"})) == 401
        assert await status(world, token(OTHER, headers={"kid": "b"})) == 200
        assert await status(world, token(P256[0], iss="https://two.example.org")) == 200
        assert await status(world, token(KEY, iss="https://two.example.org")) == 401
