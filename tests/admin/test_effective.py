"""What `config show` and `config diff` say of a configuration."""

import json

import pytest

from xmppd import effective
from xmppd.config import load
from xmppd.testing import World

TEXT = """\
server:
  domains: [a.example, b.example]
http:
  tokens:
    - {name: all, sha256: %s, scopes: ["*"]}
limits: {roster_items: 7}
plugins:
  config:
    announce: {admins: [root@localhost]}
    other: {password: geheim, days: 3}
"""


def config(tmp_path, text=TEXT % ("a" * 64), **environ):
    file = tmp_path / "xmppd.yaml"
    file.write_text(text)
    return load(file, environ)


def test_each_key_has_a_value_and_an_origin(tmp_path):
    found = config(tmp_path, XMPPD__LIMITS__ROSTER_BYTES="90000", XMPPD__AUTH__ITERATIONS="5000")
    rows = {row["key"]: row for row in effective.rows_of(found)}
    file = tmp_path / "xmppd.yaml"
    assert rows["server.domains"] == {
        "key": "server.domains",
        "value": ["a.example", "b.example"],
        "origin": f"{file}:2",
    }
    assert (rows["limits.roster_items"]["value"], rows["limits.roster_items"]["origin"]) == (7, f"{file}:6")
    assert (rows["auth.iterations"]["value"], rows["auth.iterations"]["origin"]) == (
        5000,
        "$XMPPD__AUTH__ITERATIONS",
    )
    assert rows["limits.name_bytes"]["origin"] == "default"
    assert rows["http.tokens[0].name"]["origin"] == f"{file}:5"
    json.dumps(list(rows.values()))


def test_no_secret_is_shown(tmp_path):
    found, other = config(tmp_path), config(tmp_path, TEXT.replace("geheim", "anders") % ("b" * 64))
    shown = json.dumps([effective.rows_of(found), effective.differences(found, other, ())])
    assert not any(secret in shown for secret in ("a" * 64, "b" * 64, "geheim", "anders"))
    assert {row["key"] for row in effective.differences(found, other, ())} == {
        "http.tokens[0].sha256",
        "plugins.config.other.password",
    }


def test_what_differs_says_what_it_takes(tmp_path):
    before = config(tmp_path)
    after = config(
        tmp_path, (TEXT % ("a" * 64)).replace("7}", "8, name_bytes: 100}").replace(", b.example", "")
    )
    rows = effective.differences(before, after, ("server.domains", "limits.roster_items"))
    assert [(row["key"], row["running"], row["file"], row["needs"]) for row in rows] == [
        ("limits.name_bytes", before.limits.name_bytes, 100, "reload"),
        ("limits.roster_items", 7, 8, "restart"),
        ("server.domains", ["a.example", "b.example"], ["a.example"], "restart"),
    ]
    assert effective.differences(before, before, ()) == []


@pytest.mark.asyncio
async def test_settings_of_plugins_at_work_are_shown_with_their_defaults():
    async with World(plugins=("archive", "announce")) as world:
        plugins = [loaded.plugin for loaded in world.app.loader.loaded]
        rows = {row["key"]: row["value"] for row in effective.rows_of(world.app.config, plugins)}
    assert rows["plugins.config.archive.page"] == 50 and rows["plugins.config.announce.admins"] == []
