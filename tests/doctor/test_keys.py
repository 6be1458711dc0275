"""`doctor` on the keys of issuers of tokens."""

from typing import Any

import pytest
from keyserver import LOOPBACK, P256, RSA, KeyServer, jwk, public, says

from xmppd.testing import World

pytestmark = pytest.mark.asyncio


def issuer(url: str, **more: Any) -> dict[str, Any]:
    return {
        "issuer": "https://id.example.org",
        "audience": "x",
        "algorithms": ["ES256"],
        "jwks_uri": url,
        **more,
    }


async def found(*issuers: dict[str, Any]) -> list[tuple[str, str]]:
    async with World(nodes=1, settings={"http": {"issuers": [*issuers]}}) as world:
        rows = await world.app.commands.call("doctor", {"topic": ["keys"]})
        assert {row["about"] for row in rows} <= {"keys of https://id.example.org"}
        return [(row["level"], row["found"]) for row in rows]


async def test_keys_that_can_be_fetched_and_those_that_cannot() -> None:
    async with KeyServer(jwk(P256[0], name="a"), jwk(RSA, "RS256", "b")) as server:
        mine = issuer(server.url, allowed=LOOPBACK)
        [(level, text)] = await found(mine)
        assert level == "ok" and text.startswith("1 fetched in ")
        [(level, text)] = await found({**mine, "algorithms": ["EdDSA", "ES384"]})
        assert (level, text) == ("error", "there is none for EdDSA, ES384")
        server.answer = says(b"no", 500)
        assert await found(mine) == [("error", "they cannot be fetched: it answered 500")]
        elsewhere = issuer(server.url.replace("127.0.0.1", "localhost").replace("http", "https"))
        [(level, text)] = await found(elsewhere)
        assert level == "error" and "has no address that may be connected to" in text
    [(level, text)] = await found(mine)
    assert level == "error" and "cannot be connected to" in text


async def test_who_has_no_server_of_keys_has_no_line() -> None:
    assert await found() == []
    here = {"issuer": "i", "audience": "x", "algorithms": ["ES256"], "keys": [public(P256[0])]}
    assert await found(here) == []
