"""Clients with windows. Nothing here is collected but by scripts/interop-desktop, which installs them."""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from desktops import Desktop, until

collect_ignore_glob = [] if "XMPPD_TEST_DESKTOP" in os.environ else ["test_*"]

PLUGINS = "disco ping version time last vcard private blocking offline carbons archive"

SHOWN = 20_000
"""How many characters of what a program said."""

Row = tuple[object, ...]


@pytest.fixture
def desktop() -> Iterator[Desktop]:
    """One for a test. What its program said is shown when the test fails."""
    made = Desktop()
    yield made
    print(made.said()[-SHOWN:])
    made.close()


@pytest.fixture
def plugins() -> dict[str, list[str]]:
    """The settings of a server with all that they ask for."""
    return {"enabled": PLUGINS.split()}


@pytest.fixture
def rows() -> Callable[..., object]:
    """Waits until a client's own database has these rows: `await rows(file, query, expected)`."""

    async def wait(file: Path, query: str, expected: list[Row]) -> None:
        found: list[Row] = []

        def is_there() -> bool:
            nonlocal found
            try:
                with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
                    found = database.execute(query).fetchall()
            except sqlite3.OperationalError as error:
                found = [(str(error),)]
            return found == expected

        try:
            await asyncio.to_thread(until, is_there, "")
        except AssertionError:
            assert found == expected

    return wait
