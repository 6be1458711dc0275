"""A world ends although what a session of it sent is under way for ever: its own time goes on meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from managing import managed
from several import several

from xmppd.testing import World

SILENT = '''
import asyncio
from xmppd.plugin import Plugin, iq_get

class Silent(Plugin):
    """Never answers."""

    @iq_get("{urn:x}x")
    async def answer(self, request):
        await asyncio.Event().wait()
'''


@pytest.mark.asyncio
async def test_what_is_never_answered_holds_up_no_end(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "silent.py").write_text(SILENT)
    world = World(plugins=("silent",), plugin_folders=(tmp_path,), nodes=2, settings=several(redis_url))
    async with world:
        bob, _ = await managed(world, "bob", node=0)
        await bob.send("<iq type='get' id='1'><x xmlns='urn:x'/></iq>")
        assert bob.session.managed.is_busy
        await world.settle()
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
