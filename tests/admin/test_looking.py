"""Commands that only look say the same with and without a whole server around the store."""

import pytest

from xmppd.admin.builtin import LOOKS
from xmppd.admin.cli import BUILT_IN
from xmppd.config import load
from xmppd.errors import CommandError, XmppdError
from xmppd.offline import offline

ALICE, BOB = "alice@localhost", "bob@localhost"

CALLS = [
    ("user list", {}),
    ("user list", {"domain": "localhost"}),
    ("user list", {"lacking": "SCRAM-SHA-512"}),
    ("user show", {"account": ALICE}),
    ("roster show", {"account": ALICE}),
    ("roster show", {"account": BOB}),
    ("roster log", {"account": ALICE}),
    ("roster log", {"account": ALICE, "contact": "carol@localhost"}),
]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A store with two accounts, one of which has contacts."""
    folder = tmp_path_factory.mktemp("looking")
    file = folder / "xmppd.yaml"
    file.write_text(f"server: {{data_folder: {folder}/data}}\nauth: {{iterations: 4096}}\n")
    config = load(file, {})
    with offline(config, needs="server", create=True) as door:
        for account in (ALICE, BOB):
            door.call("user add", {"account": account, "password": "secret"})
        for contact, name in ((BOB, "Bob"), ("carol@localhost", "Carol")):
            door.call("roster add", {"account": ALICE, "contact": contact, "name": name})
        door.call("user disable", {"account": BOB})
    return config


@pytest.mark.parametrize(("name", "arguments"), CALLS)
def test_both_say_the_same(config, name, arguments):
    with offline(config, needs="server") as door:
        expected = door.call(name, arguments)
    with offline(config, needs="records") as door:
        door.check(name, arguments)
        assert door.call(name, arguments) == expected
    assert expected or arguments == {"account": BOB}


@pytest.mark.parametrize("name", ["user show", "roster show", "roster log"])
def test_nobody_is_a_sentence(config, name):
    with (
        offline(config, needs="records") as door,
        pytest.raises(XmppdError, match="there is no account nobody@localhost"),
    ):
        door.call(name, {"account": "nobody@localhost"})


def test_there_are_no_others(config):
    assert {name for name, _ in CALLS} == LOOKS
    assert {about.name for about in BUILT_IN if about.offline} >= LOOKS
    with (
        offline(config, needs="records") as door,
        pytest.raises(CommandError, match="there is no command 'user remove'"),
    ):
        door.call("user remove", {"account": ALICE})


def test_a_store_that_is_not_there_is_not_made(tmp_path):
    (tmp_path / "xmppd.yaml").write_text(f"server: {{data_folder: {tmp_path}/data}}\n")
    config = load(tmp_path / "xmppd.yaml", {})
    with pytest.raises(CommandError, match="--create makes an empty one"), offline(config, needs="records"):
        pass
    assert not (tmp_path / "data").exists()
    with offline(config, needs="records", create=True) as door:
        assert door.call("user list", {}) == []
