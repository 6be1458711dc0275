"""`xmppd doctor` about a server at work, on the command line."""

import asyncio
import json
import subprocess
import sys

import pytest
from ports import free_ports


async def examined(server, *arguments):
    printed = await asyncio.to_thread(server.run, "--json", "doctor", *arguments)
    return json.loads(printed)


@pytest.mark.asyncio
async def test_a_server_lets_its_doctor_in_until_it_stops(prepared) -> None:
    starttls, direct = free_ports(2)
    listeners = [{"port": starttls}, {"port": direct, "tls": "direct"}]
    server = prepared(listen={"c2s": listeners}, auth={"plain_without_tls": False})
    await server.start()
    rows = await examined(server, "--topic", "ports")
    assert {row["about"]: (row["level"], row["found"].partition(" in ")[0]) for row in rows} == {
        f"127.0.0.1:{starttls} for localhost": ("ok", "STARTTLS"),
        f"127.0.0.1:{direct} for localhost": ("ok", "TLS"),
    }
    rows = await examined(server)
    assert {"descriptors", "certificates", "clock", "disk"} <= {row["about"] for row in rows} | {"clock"}
    await server.stop()
    rows = await examined(server, "--topic", "ports", "--wrong")
    assert [row["found"] for row in rows] == ["cannot be reached: connection refused"] * 2


@pytest.mark.asyncio
async def test_a_wrong_topic_is_a_wrong_call(prepared) -> None:
    server = prepared()
    await server.start()
    command = [sys.executable, "-m", "xmppd", "--config", str(server.file), "doctor", "--topic", "weather"]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=server.folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (
        2,
        "xmppd: weather is none of names, ports, certificates, clocks, keys, machine, settings\n",
    )
