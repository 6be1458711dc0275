"""One round of all of it over real sockets, as the machines of a game see it."""

import hashlib
import json
from typing import Any

import aiohttp
import pytest

from xmppd.net.http.door import Door
from xmppd.testing import World

SETTINGS = {
    "http": {
        "tokens": [{"name": "root", "sha256": hashlib.sha256(b"root").hexdigest(), "scopes": ["*"]}],
        "rate": 1,
        "burst": 9,
    }
}


@pytest.mark.asyncio
async def test_a_round_over_sockets() -> None:
    async with World(settings=SETTINGS) as world:
        door = Door(world.app.routes, 10, world.app.jobs.spawn)
        await door.open("127.0.0.1", 0, 10)
        base = f"http://127.0.0.1:{door.port}/api/v1/"
        async with aiohttp.ClientSession(base) as client:

            async def ask(
                method: str, path: str, token: str, body: Any = None, **headers: str
            ) -> tuple[int, Any, Any]:
                given = {"Authorization": f"Bearer {token}", **headers}
                async with client.request(method, path, headers=given, json=body) as response:
                    raw = await response.read()
                    return response.status, json.loads(raw) if raw else None, response.headers

            made = {"name": "maker", "scope": ["roster:*", "user:add"], "days": 1}
            status, result, headers = await ask("POST", "api-token/add", "root", made)
            token = result["token"]
            assert status == 200 and headers["Cache-Control"] == "no-store"
            zoe = {"account": "zoe@localhost", "password": "geheim"}
            once = {"Idempotency-Key": "17"}
            for replayed in (None, "true"):
                status, result, headers = await ask("POST", "user/add", token, zoe, **once)
                assert (status, result) == (200, {"added": "zoe@localhost"})
                assert headers.get("Idempotency-Replayed") == replayed
            path = "roster/show?account=zoe@localhost"
            status, _, headers = await ask("GET", path, token)
            assert status == 200
            for method in ("GET", "HEAD"):
                known = {"If-None-Match": headers["ETag"]}
                assert (await ask(method, path, token, **known))[:2] == (304, None)
            assert (await ask("GET", "status", token))[0] == 404  # of the process, which is not there
            assert (await ask("GET", "user/list", token))[0] == 403
            assert (await ask("POST", "api-token/revoke", "root", {"name": "maker"}))[0] == 200
            status, result, headers = await ask("GET", path, token)
            assert status == 401 and 'error="invalid_token"' in headers["WWW-Authenticate"]
            _, result, _ = await ask("GET", "audit/list", "root")
            found = [(it["who"], it["address"], it["command"], it["outcome"]) for it in result["rows"]]
            assert sorted(found) == [
                ("maker", "127.0.0.1", "user add", "done"),
                ("root", "127.0.0.1", "api-token add", "done"),
                ("root", "127.0.0.1", "api-token revoke", "done"),
            ]
            assert token not in str(result) and "geheim" not in str(result)
            statuses = [(await ask("GET", "audit/list", "root"))[0] for _ in range(7)]
            assert statuses[-1] == 429
        await door.close()
