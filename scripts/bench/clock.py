"""clock --library L [--port P]: the wall clock of a running server is set, there and back.

libfaketime lies to the server about the time of day; the monotonic clock stays true, as it does in life.
Between two jumps clients write to somebody who is away, change a roster and stay silent for a moment.
"""

import argparse
import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from stream import Stream, connect

from xmppd.admin.client import request

HERE = Path(__file__).parent
JUMPS = ("+0", "+600s", "-600s", "+1d", "-1d", "+0")
QUIET_SECONDS = 1.5
"""Longer than the sweep that closes silent sessions waits between two looks."""
PASSWORD = "secret"
ROSTER = "jabber:iq:roster"


def start(folder: Path, port: int, library: str) -> int:
    """The pid of a server whose clock follows the file `jump`."""
    (folder / "jump").write_text("+0\n")
    lies = {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(folder / "jump"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    command = [HERE / "start", folder, str(port), "full"]
    said = subprocess.run(
        command, env={**os.environ, **lies}, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return int(said.split()[1])


async def version_after(client: Stream, name: str) -> int:
    """Change the roster; its version then."""
    item = f"<item jid='friend@localhost' name='{name}'/>"
    await client.ask("set", f"<query xmlns='{ROSTER}'>{item}</query>")
    answer = await client.ask("get", f"<query xmlns='{ROSTER}'/>")
    return int(re.findall(rb"ver=['\"](\d+)", answer)[-1])


async def try_jumps(folder: Path, port: int) -> list[str]:
    """What is wrong."""
    for user in ("alice", "bob", "carol"):
        account = {"account": f"{user}@localhost", "password": PASSWORD}
        await asyncio.to_thread(request, folder / "xmppd.sock", "user add", account)
    alice, bob, carol = [await connect(port) for _ in range(3)]
    for client, user in ((alice, "alice"), (bob, "bob")):
        await client.log_in(user, PASSWORD)
        client.write("<presence/>")
    versions, sent = [], 0
    for jump in JUMPS:
        (folder / "jump").write_text(f"{jump}\n")
        for _ in range(2):
            body = f"<body>n{sent}</body>"
            alice.write(f"<message to='carol@localhost' type='chat'>{body}</message>")
            await alice.ping()
            sent += 1
        versions.append(await version_after(alice, jump))
        time = await bob.ask("get", "<time xmlns='urn:xmpp:time'/>", to="localhost")
        print(f"{jump:>6}: {re.findall(rb'<utc>([^<]*)', time)[0].decode()}, roster {versions[-1]}")
        await asyncio.sleep(QUIET_SECONDS)
        await bob.ping()
    await carol.log_in("carol", PASSWORD)
    carol.write("<presence/>")
    came = [int(number) for number in re.findall(rb"<body>n(\d+)", await carol.ping())]
    wrong = [] if came == list(range(sent)) else [f"messages came as {came}"]
    if versions != sorted(set(versions)):
        wrong.append(f"roster versions went {versions}")
    return wrong + [f"logged: {line}" for line in (folder / "xmppd.log").read_text().splitlines()]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--library", required=True, help="libfaketimeMT.so.1")
    parser.add_argument("--port", type=int, default=25752)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="xmppd-clock-"))
    pid = start(folder, arguments.port, arguments.library)
    try:
        wrong = asyncio.run(try_jumps(folder, arguments.port))
    finally:
        os.kill(pid, signal.SIGTERM)
        shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(["FAILED:", *wrong]) if wrong else "passed: nobody was sent away, and every order held")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
