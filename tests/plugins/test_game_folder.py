"""Plugins for games have a folder of their own beside the others."""

from pathlib import Path

import pytest

from xmppd.config import Config, made_of
from xmppd.configfile import shipped
from xmppd.errors import ConfigError
from xmppd.finding import names_in, source_of
from xmppd.rules import built_in_folders, plugin_folders

HELLO = "from xmppd.plugin import Plugin\n\nclass Hello(Plugin):\n    pass\n"


def test_the_built_in_folders_come_first() -> None:
    config = made_of({"plugins": {"folders": ["/somewhere"]}})
    assert plugin_folders(config) == [shipped("plugins"), shipped("plugins") / "game", Path("/somewhere")]
    assert not (shipped("plugins") / "game" / "__init__.py").exists()
    assert "game" not in names_in(built_in_folders())


def test_a_wrong_name_is_told_the_right_one_also_of_a_package(tmp_path: Path) -> None:
    (tmp_path / "players").mkdir()
    (tmp_path / "players" / "__init__.py").write_text(HELLO)
    config = made_of({"plugins": {"enabled": ["playerz"]}})
    with pytest.raises(ConfigError, match="did you mean players"):
        source_of("playerz", [tmp_path], config)
    assert source_of("players", [tmp_path], Config()).load().__name__ == "Hello"
