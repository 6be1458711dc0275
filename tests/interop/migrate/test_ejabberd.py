"""From a real ejabberd to ours and back: filled by real clients, moved by its own commands."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filling import ACCOUNTS, Filled, Filling
from looks import Look, compare, look_at
from peers import Ejabberd

DOMAIN = "chat.example"

pytestmark = pytest.mark.timeout(300)  # the first test waits until hundreds of clients have filled it


@dataclass
class Left:
    """An ejabberd as it was left: its exports, and what its clients were shown."""

    exports: dict[str, Path]
    filled: Filled
    before: dict[str, Look]


async def fill(ejabberd: Ejabberd, accounts: int) -> Filled:
    filling = Filling(DOMAIN, ejabberd.port, accounts)
    try:
        return await filling.fill(approves=False)
    finally:
        filling.close()


def leave(folder: Path, storage: str, accounts: int) -> Left:
    """Filled, exported, and then looked at: who looks takes what waits."""
    ejabberd = Ejabberd(folder / "server", DOMAIN, storage=storage)
    try:
        ejabberd.start()
        filled = asyncio.run(fill(ejabberd, accounts))
        exports = {"documents": ejabberd.to_xep_0227(folder / "documents")}
        if storage == "sql":
            exports["database"] = ejabberd.database_to(folder / "ejabberd.sqlite")
        else:
            exports["dump"] = ejabberd.dump(folder / "ejabberd.txt")
        before = asyncio.run(look_at(filled.accounts, ejabberd.port))
    except Exception as error:
        error.add_note(ejabberd.said())
        raise
    finally:
        ejabberd.stop()
    return Left(exports, filled, before)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """One with Mnesia."""
    return leave(tmp_path_factory.mktemp("ejabberd"), "mnesia", ACCOUNTS)


@pytest.fixture(scope="module")
def left_in_sql(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """A smaller one with SQLite."""
    return leave(tmp_path_factory.mktemp("ejabberd"), "sql", ACCOUNTS // 5)


def shown(look: Look) -> Look:
    """As ejabberd shows it: without those who only ask, though they were listed."""
    for asks in look.requests:
        item = look.roster.get(asks)
        if item is not None and (item["subscription"], item["ask"]) == ("none", ""):
            del look.roster[asks]
    return look


def as_text(look: Look) -> Look:
    """Of a request Mnesia and SQL have the text of its status alone, which ejabberd shows as English."""
    english = ' {http://www.w3.org/XML/1998/namespace}lang="en"'
    look.requests = {
        asks: [child.replace(english, "") for child in inside] for asks, inside in look.requests.items()
    }
    return look


def test_everything_comes_over_from_a_dump(left: Left, night: Callable[..., Any]) -> None:
    ours = night(left.filled, left.before)
    done = ours.take(left.exports["dump"])
    assert done["lost"] == {}
    ours.server.start()
    ours.look(as_text, shown)
    ours.let_all_in(shown)


def test_everything_comes_over_from_sqlite(left_in_sql: Left, night: Callable[..., Any]) -> None:
    ours = night(left_in_sql.filled, left_in_sql.before)
    done = ours.take(left_in_sql.exports["database"], "--domain", DOMAIN)
    assert done["lost"] == {}
    ours.server.start()
    ours.look(as_text, shown)
    ours.let_all_in(shown)


def test_documents_carry_what_ejabberd_puts_into_them(left: Left, night: Callable[..., Any]) -> None:
    ours = night(left.filled, left.before)
    ours.take(left.exports["documents"])
    ours.server.start()
    ours.look(shown=shown)


def carried(look: Look) -> Look:
    """What import_piefxis takes of it."""
    for item in look.roster.values():
        item["ask"] = ""
    return shown(look)


def test_the_way_back(left: Left, night: Callable[..., Any], tmp_path: Path) -> None:
    ours = night(left.filled, left.before)
    ours.take(left.exports["dump"])
    documents = tmp_path / "documents"
    ours.migrate("export", documents, "--format", "xep-0227", "--dialect", "ejabberd")
    ejabberd = Ejabberd(tmp_path / "ejabberd", DOMAIN)
    try:
        ejabberd.start()
        ejabberd.take_xep_0227(documents / "main.xml")
        awaited = {jid: carried(look) for jid, look in copy.deepcopy(left.before).items()}
        found = asyncio.run(look_at(left.filled.accounts, ejabberd.port, awaited=awaited))
    finally:
        ejabberd.stop()
    compare(awaited, found)
