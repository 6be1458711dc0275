"""Certificates of several nodes: each reads its own files."""

from pathlib import Path

import pytest
from several import several

from xmppd.net.certificates import development_certificate
from xmppd.testing import World

pytestmark = pytest.mark.own_engine


@pytest.mark.asyncio
async def test_all_nodes_read_again_or_say_why_not(tmp_path: Path, redis_url: str) -> None:
    pair = development_certificate(tmp_path / "one", ["localhost"])
    other = development_certificate(tmp_path / "two", ["localhost"])
    tls = {"certificates": {"*": {"certificate": str(pair.certificate), "key": str(pair.key)}}}
    async with World(nodes=2, settings={**several(redis_url), "tls": tls}) as world:
        rows = await world.app.commands.call("certificate list", {"all": True})
        assert [row["domain"] for row in rows] == ["localhost"] * 2 and len(
            {row["node"] for row in rows}
        ) == 2
        assert len({row["sha256"] for row in rows}) == 1
        old = rows[0]["sha256"]

        pair.certificate.write_bytes(other.certificate.read_bytes())
        pair.key.write_bytes(other.key.read_bytes())
        [row] = await world.app.commands.call("certificate reload", {})
        assert row["changed"] and row["sha256"] != old
        rows = await world.app.commands.call("certificate list", {"all": True})
        assert [row["sha256"] == old for row in rows] == [False, True]
        assert [row["on_disk"] == "the same" for row in rows] == [True, False]

        pair.key.write_text("garbage")
        rows = await world.app.commands.call("certificate reload", {"all": True})
        assert [str(pair.key) in row["problem"] for row in rows] == [True, True]
        rows = await world.app.commands.call("certificate list", {"all": True})
        assert [row["sha256"] == old for row in rows] == [False, True]

        pair.key.write_bytes(other.key.read_bytes())
        rows = await world.app.commands.call("certificate reload", {"all": True})
        assert [row["changed"] for row in rows] == [False, True]
