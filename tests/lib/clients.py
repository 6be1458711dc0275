"""How many clients each test has: where all run on several nodes, a test of one client alone runs on one,
since what nodes say to each other is seen only when somebody is on each.

A run on one node counts clients, and writes that into the folder that `XMPPD_TEST_CLIENTS` names; one on
several nodes reads it. What it finds nothing about runs on several.
"""

import functools
import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import stores

from xmppd.testing import World


class Clients:
    """A plugin of pytest. `nodes` is how many the worlds of the test that runs have."""

    def __init__(self, folder: Path) -> None:
        self.nodes = stores.NODES
        self._folder = folder
        self._count = 0
        self._of_test: dict[str, int] = {}
        if stores.NODES == 1:
            self._count_connections()
        else:
            for file in folder.glob("*.json"):
                self._of_test |= json.loads(file.read_text())

    def _count_connections(self) -> None:
        """Count those to all worlds of a test together, which are as many as its clients or more."""
        connect = World.connect

        @functools.wraps(connect)
        def counted(*arguments: Any, **options: Any) -> Any:
            self._count += 1
            return connect(*arguments, **options)

        World.connect = counted  # type: ignore[method-assign]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Run one test."""
        self._count = 0
        if stores.NODES > 1:
            self.nodes = 1 if self._of_test.get(item.nodeid, 2) < 2 else stores.NODES
        result = yield
        if stores.NODES == 1:
            self._of_test[item.nodeid] = self._count
        return result

    def pytest_sessionfinish(self) -> None:
        """Write what was counted, all at once."""
        if stores.NODES == 1:
            new = self._folder / f"{os.getpid()}.new"
            new.write_text(json.dumps(self._of_test))
            new.replace(new.with_suffix(".json"))
