"""ETag and If-None-Match on what reads a roster."""

import hashlib
import json

import pytest

from xmppd.testing import World

SETTINGS = {"http": {"tokens": [{"name": "t", "sha256": hashlib.sha256(b"t").hexdigest(), "scopes": ["*"]}]}}
PATH = "/api/v1/roster/show?account=alice@localhost"


@pytest.mark.asyncio
async def test_a_roster_that_is_as_it_was_is_not_sent_again() -> None:
    async with World(settings=SETTINGS) as world:

        async def change(contact: str) -> None:
            body = json.dumps({"account": "alice@localhost", "contact": contact}).encode()
            assert (await world.http("POST", "/api/v1/roster/add", token="t", body=body)).status == 200

        await change("bob@localhost")
        first = await world.http("GET", PATH, token="t")
        tag = first.headers["ETag"]
        assert first.headers["Cache-Control"] == "private, no-cache"
        for header in (tag, f'"x", W/{tag}', "*"):
            same = await world.http("GET", PATH, token="t", headers={"If-None-Match": header})
            assert (same.status, same.body, same.headers["ETag"]) == (304, b"", tag)
        for header in ('"x"', tag.strip('"'), ""):
            other = await world.http("GET", PATH, token="t", headers={"If-None-Match": header})
            assert (other.status, other.body) == (200, first.body)
        await change("carol@localhost")
        changed = await world.http("GET", PATH, token="t", headers={"If-None-Match": tag})
        assert changed.status == 200 and changed.headers["ETag"] != tag
        assert len(json.loads(changed.body)) == 2


@pytest.mark.asyncio
async def test_what_has_no_version_has_no_tag_and_refusals_stay() -> None:
    async with World(settings=SETTINGS) as world:
        known = {"If-None-Match": "*"}
        listed = await world.http("GET", "/api/v1/user/list", token="t", headers=known)
        assert listed.status == 200 and "ETag" not in listed.headers
        for path, status in ((PATH.replace("alice", "zoe"), 404), (PATH.replace("account", "x"), 400)):
            assert (await world.http("GET", path, token="t", headers=known)).status == status
        assert (await world.http("GET", PATH, headers=known)).status == 401
