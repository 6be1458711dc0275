"""A backup of a server at work, put back by the command line."""

import asyncio
import subprocess
import sys

import pytest


async def run(server, *arguments):
    command = [sys.executable, "-m", "xmppd", "--config", str(server.file), *arguments]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=server.folder, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.asyncio
async def test_what_was_there_at_the_backup_is_there_after_the_restore(prepared) -> None:
    server = prepared(store={"engine": "sqlite"})
    await server.start()
    server.add("alice", "bob")
    copy = server.folder / "copy.sqlite"
    assert (await run(server, "store", "backup", "--out", str(copy)))[0] == 0
    server.add("mallory")
    code, _, error = await run(server, "store", "restore", str(copy))
    assert (code, "is running" in error) == (1, True)
    await server.stop()
    digest = (await run(server, "--json", "store", "digest"))[1]
    code, _, error = await run(server, "store", "restore", str(copy))
    assert (code, error) == (0, "")
    assert (await run(server, "--json", "store", "digest"))[1] != digest
    await server.start()
    assert [row["account"] for row in server.command("user list")] == ["alice@localhost", "bob@localhost"]
    client = await server.login("alice")
    await client.ping()
    await server.stop()
    kept = list(server.data.glob("xmppd.sqlite.before-*Z"))
    assert len(kept) == 1
