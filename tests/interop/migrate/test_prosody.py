"""From a real Prosody to ours and back: filled by real clients, moved by its own tools."""

from __future__ import annotations

import asyncio
import copy
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from filling import ACCOUNTS, APPROVING, Filled, Filling
from looks import Look, compare, look_at
from peers import Prosody

DOMAIN = "chat.example"

pytestmark = pytest.mark.timeout(300)  # the first test waits until hundreds of clients have filled it


@dataclass
class Left:
    """A Prosody as it was left: its data, the same in SQLite, documents of XEP-0227, and what its clients
    were shown.
    """

    data: Path
    database: Path
    documents: Path
    filled: Filled
    before: dict[str, Look]


async def fill(prosody: Prosody) -> Filled:
    filling = Filling(DOMAIN, prosody.port, ACCOUNTS)
    try:
        return await filling.fill(approves=True)
    finally:
        filling.close()


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """Filled, stopped, exported, and then looked at: who looks takes what waits."""
    folder = tmp_path_factory.mktemp("prosody")
    prosody = Prosody(folder / "server", DOMAIN)
    try:
        prosody.start()
        filled = asyncio.run(fill(prosody))
        prosody.stop()
        data = folder / "data"
        shutil.copytree(prosody.data, data)
        database = prosody.to_sql(folder / "prosody.sqlite")
        documents = prosody.to_xep_0227(folder / "documents")
        prosody.start()
        before = asyncio.run(look_at(filled.accounts, prosody.port))
        before = {jid: filled_vcard(look) for jid, look in before.items()}
    finally:
        prosody.stop()
    return Left(data, database, documents, filled, before)


def shown(look: Look) -> Look:
    """As Prosody shows it: no approval, and line breaks and tabs raw in attributes, where XML makes them
    spaces. What it makes of the vCard4 that it keeps has empty elements.
    """
    for item in look.roster.values():
        item["approved"] = ""
        item["name"] = re.sub(r"\r\n|[\t\n\r]", " ", item["name"])
    return filled_vcard(look)


def filled_vcard(look: Look) -> Look:
    """The look, without empty elements in the vCard."""
    for _ in range(2):  # N, when all of its parts are empty
        look.vcard = re.sub(r"<\{vcard-temp\}\w+></>", "", look.vcard)
    return look


def test_everything_comes_over_from_the_data_folder(left: Left, night: Callable[..., Any]) -> None:
    ours = night(left.filled, left.before)
    done = ours.take(left.data)
    assert done["lost"].keys() <= {"pep-configuration"}
    approved = {
        row["account"]: [item["jid"] for item in row["roster"] if item.get("approved")] for row in ours.rows()
    }
    assert {jid: found for jid, found in approved.items() if found} == {
        jid: ["early@remote.example"] for jid, _ in left.filled.accounts[:APPROVING]
    }
    ours.server.start()
    ours.look(shown=shown)
    ours.let_all_in(shown)


def test_everything_comes_over_from_sql(left: Left, night: Callable[..., Any]) -> None:
    ours = night(left.filled, left.before)
    done = ours.take(left.database)
    assert done["lost"].keys() <= {"pep-configuration"}
    ours.server.start()
    ours.look(shown=shown)


def carried(look: Look) -> Look:
    """What documents of prosody-migrator have of it."""
    requests: dict[str, list[str]] = {asks: [] for asks in look.requests}
    return replace(look, requests=requests, blocks=[], offline=[], stamps=[])


def test_documents_carry_what_prosody_puts_into_them(left: Left, night: Callable[..., Any]) -> None:
    ours = night(left.filled, left.before)
    ours.take(left.documents)
    ours.server.start()
    ours.look(carried, shown)


def test_the_way_back(left: Left, night: Callable[..., Any], tmp_path: Path) -> None:
    ours = night(left.filled, left.before)
    ours.take(left.data)
    documents = tmp_path / "documents"
    ours.migrate("export", documents, "--format", "xep-0227", "--dialect", "prosody")
    prosody = Prosody(tmp_path / "prosody", DOMAIN, vcard="vcard")
    prosody.take_xep_0227(documents)
    try:
        prosody.start()
        awaited = {jid: carried(look) for jid, look in copy.deepcopy(left.before).items()}
        found = asyncio.run(look_at(left.filled.accounts, prosody.port, awaited=awaited))
    finally:
        prosody.stop()
    compare(awaited, {jid: shown(look) for jid, look in found.items()})
