"""The OpenAPI document and the page: all commands are in it as they are, and it is what its form says."""

import json
import re
from typing import Any

import pytest

from xmppd.testing import World

PLUGINS = ("archive", "offline", "announce", "blocking", "register")


async def document(world: World) -> dict[str, Any]:
    response = await world.http("GET", "/api/v1/openapi.json")
    assert (response.status, response.content_type) == (200, "application/json")
    found: dict[str, Any] = json.loads(response.body)
    return found


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for inner in value.values() for found in references(inner)]
    return [found for inner in value for found in references(inner)] if isinstance(value, list) else []


@pytest.mark.asyncio
async def test_every_command_is_in_it() -> None:
    async with World(plugins=PLUGINS) as world:
        found = await document(world)
        operations = {
            operation["operationId"]: (method, operation)
            for methods in found["paths"].values()
            for method, operation in methods.items()
        }
        assert len(operations) > 30
        for about in world.app.commands:
            method, operation = operations.pop(about.name.replace(" ", "-"))
            assert (method, operation["summary"]) == ("get" if about.reads else "post", about.help)
            if about.reads:
                given = {it["name"]: it["required"] for it in operation["parameters"] if it["in"] == "query"}
            else:
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                given = {name: name in schema.get("required", ()) for name in schema["properties"]}
            assert given == {parameter.name: parameter.required for parameter in about.parameters}
        assert not operations


@pytest.mark.asyncio
async def test_each_reference_leads_somewhere() -> None:
    async with World(plugins=PLUGINS) as world:
        found = await document(world)
    assert references(found)
    for reference in references(found):
        place: Any = found
        for piece in reference.removeprefix("#/").split("/"):
            place = place[piece]


@pytest.mark.asyncio
async def test_secrets_are_written_only() -> None:
    async with World() as world:
        found = await document(world)
    body = found["paths"]["/api/v1/user/add"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["password"]["format"] == "password"
    assert body["properties"]["password"]["writeOnly"] is True


@pytest.mark.asyncio
async def test_the_page_asks_nobody_else() -> None:
    async with World() as world:
        response = await world.http("GET", "/api/v1")
    text, rules = response.body.decode(), response.headers["Content-Security-Policy"]
    assert response.status == 200 and response.content_type.startswith("text/html")
    assert "default-src 'none'" in rules and "unsafe" not in rules
    assert not re.findall(r"(?:src|href)\s*=|https?://", text)
