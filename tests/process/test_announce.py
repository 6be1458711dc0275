"""An announcement by the command line: a file of accounts, and kill -9 in the middle."""

import asyncio
from typing import Any

import pytest

NAMES = [f"p{number}" for number in range(12)]


async def listed(server: Any) -> dict[str, Any]:
    [row] = await asyncio.to_thread(server.command, "announce list")
    return dict(row)


@pytest.mark.asyncio
async def test_it_goes_on_where_a_killed_server_was(prepared: Any) -> None:
    server = prepared(plugins={"enabled": ["ping", "announce", "offline"]})
    await server.start()
    server.add(*NAMES, "left")
    file = server.folder / "players.txt"
    file.write_text("".join(f"{name}@localhost\n" for name in NAMES))
    options = ("--accounts", str(file), "--all")
    said = await asyncio.to_thread(server.run, "announce", "send", "tea", *options, "--preview")
    assert "12" in said and "offline: 12" in said
    said = await asyncio.to_thread(server.run, "announce", "send", "tea", *options, "--pace", "2")
    assert "receivers: 12" in " ".join(said.split())

    async with asyncio.timeout(20):
        while not 4 <= (await listed(server))["told"] < 12:  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.05)
    told = (await listed(server))["told"]
    await server.kill()
    await server.start()
    row = await listed(server)
    assert row["state"] in ("interrupted", "running") and 0 < row["told"] <= told + 1
    async with asyncio.timeout(60):
        while (row := await listed(server))["state"] != "done":  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert row["told"] == row["receivers"] == 12

    texts = [await (await server.login(name)).bodies() for name in NAMES]
    assert all(set(found) == {"tea"} for found in texts)
    assert sum(map(len, texts)) <= 12 + 5, "no more than of a second is told again"
    assert await (await server.login("left")).bodies() == []
