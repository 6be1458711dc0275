"""What tests of plugins share."""

from pathlib import Path

import pytest
from stores import new_store

from xmppd.store.table import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store in a file: its writes take their time, unlike those in memory."""
    return new_store(tmp_path / "xmppd.sqlite")
