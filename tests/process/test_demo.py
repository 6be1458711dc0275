"""`scripts/demo` shows the game layer to whoever has just cloned it."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 90.0
LINES = (
    "1. Alice and Bob log in",
    "alice <- <player xmlns='urn:xmppd:players:0' jid='alice@localhost' name='Zoe#EUW'/>",
    "state='friend' name='Kiva#EUW'",
    "<status>Playing blitz</status>",
    "state='accepted'",
    "reached:    2",
    "<body>gg, you * * * *</body>",
    "This is not said here.",
    "<muted xmlns=",
    "That was all.",
)
"""What is printed, in this order: an empty line or a break of one may be anywhere."""


@pytest.mark.own_engine
@pytest.mark.asyncio
async def test_all_steps_are_shown() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XMPPD")}
    program = [sys.executable, str(ROOT / "scripts" / "lib" / "demo.py")]
    running = await asyncio.create_subprocess_exec(*program, env=environment, stdout=asyncio.subprocess.PIPE)
    said, _ = await asyncio.wait_for(running.communicate(), SECONDS)
    assert running.returncode == 0
    shown = " ".join(said.decode().split())
    places = [shown.find(" ".join(line.split())) for line in LINES]
    assert -1 not in places and places == sorted(places), dict(zip(LINES, places, strict=True))
