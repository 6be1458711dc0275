"""Tokens of a game's own service, and worlds that let players in by them."""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from xml.etree.ElementTree import Element

import jwt
from keyserver import AUDIENCE, ISSUER, P256, public

from xmppd import ns
from xmppd.testing import START, Client, World

KEY = P256[0]
NS = "urn:xmppd:game-login:0"
HOUR = 3600.0


def minted(
    player: str = "alice",
    *,
    key: Any = KEY,
    algorithm: str = "ES256",
    kid: str | None = None,
    headers: Any = None,
    **claims: Any,
) -> str:
    """A token of a player; what is None is left out."""
    usual = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": player,
        "exp": START + HOUR,
        "iat": START - 10,
        "jti": "t1",
    }
    said = {name: value for name, value in {**usual, **claims}.items() if value is not None}
    head = {**(headers or {}), **({"kid": kid} if kid is not None else {})}
    return sealed({"alg": algorithm, **head}, json.dumps(said), key, algorithm)


def sealed(header: Mapping[str, Any], claims: str, key: Any = KEY, algorithm: str = "ES256") -> str:
    """A token with this very text of claims."""
    text = f"{encoded(json.dumps(header).encode())}.{encoded(claims.encode())}"
    signs = jwt.get_algorithm_by_name(algorithm)
    return f"{text}.{encoded(signs.sign(text.encode(), signs.prepare_key(key)))}"


def encoded(data: bytes) -> str:
    """As base64url has it."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def issuer(**more: Any) -> dict[str, Any]:
    """Settings of the issuer of these tokens."""
    keys = {} if "jwks_url" in more else {"keys": [public(KEY)]}
    return {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["ES256"], "leeway": 30, **keys, **more}


@asynccontextmanager
async def game(
    *plugins: str,
    issuers: Any = None,
    settings: Mapping[str, Any] | None = None,
    nodes: int = 0,
    others: Mapping[str, Any] | None = None,
    **config: Any,
) -> AsyncIterator[World]:
    """A world that lets in by tokens of `issuers`."""
    about = {"issuers": issuers or [issuer()], "without_tls": True, **config}
    more: dict[str, Any] = {"nodes": nodes} if nodes else {}
    world = World(
        plugins=("game_login", *plugins),
        plugin_config={"game_login": about, **(others or {})},
        settings=settings,
        **more,
    )
    async with world:
        yield world


def bearer(token: str, authzid: str = "", flag: str = "n") -> str:
    """The initial response of OAUTHBEARER."""
    name = f"a={authzid}" if authzid else ""
    return base64.b64encode(f"{flag},{name},\x01auth=Bearer {token}\x01\x01".encode()).decode()


async def by_bearer(client: Client, initial: str) -> Element:
    """Ask to be let in; the first answer."""
    await client.send(f"<auth xmlns='{ns.SASL}' mechanism='OAUTHBEARER'>{initial}</auth>")
    return await client.receive()


async def logged_in(
    world: World, player: str = "alice", token: str = "", *, node: int | None = None, way: str = "PLAIN"
) -> Client:
    """A client with a session that a token let in."""
    client = world.connect(node=node)
    await client.open()
    token = token or minted(player)
    if way == "PLAIN":
        answer = await client.authenticate(player, token)
    else:
        answer = await by_bearer(client, bearer(token))
    assert answer.tag == f"{{{ns.SASL}}}success", answer[0].tag
    await client.open()
    await client.bind()
    return client


async def refused(world: World, token: str, player: str = "alice", *, node: int | None = None) -> str:
    """Why nobody is let in by a token, by PLAIN and by OAUTHBEARER alike."""
    client = world.connect(node=node)
    await client.open()
    answer = await client.authenticate(player, token)
    assert answer.tag == f"{{{ns.SASL}}}failure", answer.tag
    by_plain = answer[0].tag.rpartition("}")[2]
    answer = await by_bearer(client, bearer(token))
    if answer.tag == f"{{{ns.SASL}}}challenge":
        await client.send(f"<response xmlns='{ns.SASL}'>AQ==</response>")
        answer = await client.receive()
    assert answer.tag == f"{{{ns.SASL}}}failure"
    assert answer[0].tag.rpartition("}")[2] == by_plain
    await client.drop()
    return by_plain
