"""The registry: what a declaration says, and how calls are checked."""

import json
from typing import Annotated

import pytest

from xmppd.admin.commands import (
    Command,
    Parameter,
    Secret,
    as_command_error,
    command,
    commands_of,
    described,
    descriptions_of,
)
from xmppd.admin.registry import Commands
from xmppd.admin.render import render
from xmppd.errors import (
    CommandError,
    ConfigError,
    Problem,
    StoreBug,
    StoreTimeout,
    StoreUnavailable,
    XmppdError,
)
from xmppd.jid import Jid


class Chat:
    """What a plugin could declare."""

    def __init__(self):
        self.muted = {}

    @command("Stop a player from chatting")
    async def mute(
        self,
        player: Annotated[Jid, "whom"],
        minutes: int = 10,
        *,
        quiet: bool = False,
        why: str | None = None,
    ) -> dict:
        self.muted[player.bare] = (minutes, quiet, why)
        return {"muted": player.bare}

    @command("Set the share of messages looked at", name="chat sample", offline=True)
    def sample(self, share: float, key: Annotated[str, Secret("the key")] = "") -> str:
        return f"{share:.2f}"

    @command("Break")
    def fall_over(self) -> None:
        raise XmppdError("it fell over")


@pytest.fixture
def chat():
    return Chat()


@pytest.fixture
def commands(chat):
    return Commands(commands_of(chat, "chat"))


def test_a_signature_is_the_description():
    mute, sample, fall_over = descriptions_of(Chat, "chat")
    assert (mute.name, mute.help, mute.offline) == ("chat mute", "Stop a player from chatting", False)
    assert mute.parameters == (
        Parameter("player", "Jid", help="whom"),
        Parameter("minutes", "int", required=False, default=10),
        Parameter("quiet", "bool", required=False, default=False, option=True),
        Parameter("why", "str", required=False, option=True),
    )
    assert (sample.name, sample.offline) == ("chat sample", True)
    assert sample.parameters[1] == Parameter(
        "key", "str", help="the key", required=False, default="", option=True, secret=True
    )
    assert fall_over.name == "chat fall-over"


def test_a_declared_command_is_still_a_method(chat):
    assert chat.sample(0.5) == "0.50"


def test_descriptions_survive_json(commands):
    for data in json.loads(json.dumps(commands.describe())):
        assert described(data).as_json() == data
    assert [data["name"] for data in commands.describe()] == [
        "chat fall-over",
        "chat mute",
        "chat sample",
        "commands",
    ]


def test_a_type_that_no_door_could_offer_is_refused():
    class Wrong:
        @command("x")
        def wrong(self, values: list[str]) -> None: ...

    with pytest.raises(TypeError, match="values"):
        descriptions_of(Wrong)


@pytest.mark.asyncio
async def test_values_reach_the_function_typed(commands, chat):
    assert await commands.call("chat mute", {"player": "Alice@localhost/x", "quiet": True}) == {
        "muted": "alice@localhost"
    }
    await commands.call("chat mute", {"player": "bob@localhost", "minutes": 3, "why": "spam", "quiet": None})
    assert chat.muted == {"alice@localhost": (10, True, None), "bob@localhost": (3, False, "spam")}
    assert await commands.call("chat sample", {"share": 1}) == "1.00"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("chat muet", {}, r"no command 'chat muet' \(did you mean chat mute\?\)"),
        ("chat mute", {}, "player is missing"),
        ("chat mute", {"player": "a@b", "minute": 1}, "no parameter 'minute'"),
        ("chat mute", {"player": 5}, "player must be an address"),
        ("chat mute", {"player": "@"}, "'@' is not an address"),
        ("chat mute", {"player": "a@b", "minutes": "5"}, "minutes must be a whole number"),
        ("chat mute", {"player": "a@b", "minutes": True}, "minutes must be a whole number"),
        ("chat mute", {"player": "a@b", "quiet": 1}, "quiet must be true or false"),
        ("chat mute", {"player": "a@b", "why": ["x"]}, "why must be text"),
        ("chat sample", {"share": "1"}, "share must be a number"),
        ("chat sample", {"share": None}, "share must be a number"),
    ],
)
async def test_wrong_calls_are_refused(commands, name, arguments, message):
    with pytest.raises(CommandError, match=message) as caught:
        await commands.call(name, arguments)
    assert caught.value.exit_code == 2


@pytest.mark.asyncio
async def test_errors_of_the_server_become_errors_of_the_command(commands):
    with pytest.raises(CommandError, match="it fell over") as caught:
        await commands.call("chat fall-over", {})
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (CommandError("x", 42), 42),
        (StoreUnavailable("x"), 69),
        (StoreTimeout("x"), 69),
        (StoreBug("x"), 1),
        (ConfigError([Problem("x", 1, 1, "x", "x")]), 78),
    ],
)
def test_each_error_has_its_exit_code(error, exit_code):
    assert as_command_error(error).exit_code == exit_code


@pytest.mark.asyncio
async def test_commands_come_and_go(commands, chat):
    with pytest.raises(ValueError, match="chat mute"):
        commands.add(Command("chat new", "x"), *commands_of(chat, "chat"))
    assert "chat new" not in [data["name"] for data in commands.describe()]
    commands.remove("chat mute", "unknown")
    with pytest.raises(CommandError):
        await commands.call("chat mute", {"player": "a@b"})
    commands.add(commands_of(chat, "chat")[0])
    assert await commands.call("chat mute", {"player": "a@b"}) == {"muted": "a@b"}


@pytest.mark.parametrize("name", ["chat mute", "chat", "chat mute all"])
def test_a_name_cannot_be_a_command_and_a_group(commands, name):
    with pytest.raises(ValueError, match=name):
        commands.add(Command(name, "x"))
    commands.add(Command("chatter", "x"), Command("chat mutes", "x"))


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (None, ""),
        ("one\ntwo", "one\ntwo"),
        (True, "yes"),
        (["a", 1, None], "a\n1\n-"),
        ([], ""),
        ({"name": "x", "long_key": ["a", "b"], "e": []}, "name:     x\nlong_key: a, b\ne:        -"),
        ({"things": [{"name": "x", "size": 1}, {"name": "y"}]}, "things: x, y"),
        ({"a": {"b": [1]}}, 'a: {"b": [1]}'),
        ([{"a": "x", "b": 1}, {"a": "long", "c": False}], "A     B  C\nx     1  -\nlong  -  no"),
        ("\x1b[31mred\r", "\\x1b[31mred\\r"),
        ([{"a": "\x1b\n"}], "A\n\\x1b\\n"),
    ],
)
def test_results_as_text(result, text):
    assert render(result) == text
