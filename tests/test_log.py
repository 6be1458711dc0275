"""Logs: what a line holds, and what can never get into one."""

import io
import json
import logging
import sys

import pytest

from xmppd.log import configure, escape, tell_ignored
from xmppd.settings import LogConfig


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def logging_to():
    """Configures logging like the server does, and puts everything back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def start(stream, node="", **config):
        configure(LogConfig(**config), stream, node=node)
        return logging.getLogger("xmppd.test")

    yield start
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("cassandra").setLevel(logging.NOTSET)
    logging.captureWarnings(False)


def test_json_when_nobody_watches(logging_to):
    stream = io.StringIO()
    log = logging_to(stream, node="n1")
    log.info(
        "session-bound", extra={"jid": "zo\u00eb@localhost/x", "ms": 1.5, "stream": "s1", "nothing": None}
    )
    text = stream.getvalue()
    assert text.isascii()
    assert text.count("\n") == 1
    line = json.loads(text)
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "info",
        "event": "session-bound",
        "node": "n1",
        "jid": "zo\u00eb@localhost/x",
        "ms": 1.5,
        "stream": "s1",
    }


def test_text_with_colours_on_a_terminal(logging_to):
    stream = Terminal()
    logging_to(stream).warning("slow", extra={"jid": "a@b", "ms": 3})
    clock, rest = stream.getvalue().split(" ", 1)
    assert len(clock) == len("00:00:00.000")
    assert rest == "\x1b[33mWARNING\x1b[0m slow jid=a@b ms=3\n"


def test_text_without_colours_elsewhere(logging_to):
    stream = io.StringIO()
    logging_to(stream, format="text").info("ready", extra={"reason": 'a "b"', "empty": ""})
    assert stream.getvalue().split(" ", 1)[1] == 'INFO    ready reason="a \\"b\\"" empty=""\n'


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("C:\\", '"C:\\\\"'),
        ('a\\" level=x', '"a\\\\\\" level=x"'),
        ("a\nb", '"a\\nb"'),
        ("2001:db8::1", "2001:db8::1"),
        (["[2001:db8::1]:5222", "127.0.0.1:5222"], "[2001:db8::1]:5222,127.0.0.1:5222"),
    ],
)
def test_no_value_looks_like_more_than_one(logging_to, value, shown):
    stream = io.StringIO()
    logging_to(stream, format="text").info("x", extra={"name_of": value})
    assert stream.getvalue().split(" ", 1)[1] == f"INFO    x name_of={shown}\n"


def test_json_on_a_terminal_when_told_so(logging_to):
    stream = Terminal()
    logging_to(stream, format="json").info("ready")
    assert json.loads(stream.getvalue())["event"] == "ready"


def test_the_level_holds(logging_to):
    stream = io.StringIO()
    log = logging_to(stream, level="warning")
    log.info("unheard")
    assert stream.getvalue() == ""


def test_configuring_again_replaces(logging_to):
    first, second = io.StringIO(), io.StringIO()
    logging_to(first)
    logging_to(second).info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


@pytest.mark.parametrize("name", ["password", "body", "api_token", "client_secret"])
@pytest.mark.parametrize("format", ["text", "json"])
def test_what_is_named_like_a_secret_is_masked(logging_to, name, format):
    stream = io.StringIO()
    logging_to(stream, format=format).info("x", extra={name: "hunter2"})
    assert name in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


HOSTILE = "a\nb\r\x1b[31m\x00\x7f\x9b\u2028\u202e\ud800 c"


def test_escape_leaves_one_visible_line():
    assert escape(HOSTILE) == "a\\nb\\r\\x1b[31m\\x00\\x7f\\x9b\\u2028\\u202e\\ud800 c"
    assert escape("zo\u00eb \U0001f600") == "zo\u00eb \U0001f600"


@pytest.mark.parametrize("format", ["text", "json"])
def test_values_cannot_forge_lines_or_drive_the_terminal(logging_to, format):
    stream = io.StringIO()
    logging_to(stream, format=format).info(
        HOSTILE, extra={"jid": HOSTILE, "reason": f"{HOSTILE}\n00:00 fake"}
    )
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert all(character.isprintable() for character in text[:-1])


@pytest.mark.parametrize("format", ["text", "json"])
def test_long_values_are_cut(logging_to, format):
    stream = io.StringIO()
    logging_to(stream, format=format).info("x", extra={"reason": "y" * 100_000})
    assert len(stream.getvalue()) < 2_000


@pytest.mark.parametrize("format", ["text", "json"])
def test_lists_are_joined(logging_to, format):
    stream = io.StringIO()
    logging_to(stream, format=format).info("x", extra={"domains": ["a", "b"]})
    assert "a,b" in stream.getvalue()


def test_an_exception_is_one_field(logging_to):
    stream = io.StringIO()
    log = logging_to(stream)
    try:
        raise ValueError("line one\nline two \x1b")
    except ValueError:
        log.exception("failed", extra={"jid": "a@b"})
    line = json.loads(stream.getvalue())
    assert line["exception"].endswith("ValueError: line one\nline two \x1b")
    assert stream.getvalue().count("\n") == 1


def test_an_exception_on_a_terminal_is_indented(logging_to):
    stream = Terminal()
    log = logging_to(stream)
    try:
        raise ValueError("one\n00:00:00.000 INFO forged \x1b")
    except ValueError:
        log.exception("failed")
    _, *rest = stream.getvalue().rstrip("\n").split("\n")
    assert rest[-1] == "    00:00:00.000 INFO forged \\x1b"
    assert all(line.startswith("    ") for line in rest)


def test_other_libraries_are_named(logging_to):
    stream = io.StringIO()
    logging_to(stream)
    logging.getLogger("asyncio").error("Task %s was lost", "x")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["logger"]) == ("Task x was lost", "asyncio")


@pytest.mark.parametrize(("level", "heard"), [("info", ["broken"]), ("debug", ["down again", "broken"])])
def test_the_driver_of_cassandra_is_heard_when_it_matters(logging_to, level, heard):
    stream = io.StringIO()
    logging_to(stream, level=level)
    driver = logging.getLogger("cassandra.pool")
    driver.warning("down again")
    driver.error("broken")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == heard


def test_what_the_driver_of_cassandra_also_raises_is_not_told_twice(logging_to):
    stream = io.StringIO()
    logging_to(stream, level="info")
    driver = logging.getLogger("cassandra.cluster")
    driver.error("Error preparing query:")
    driver.error("Unexpected failure while adding node %s", "a")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["event"] == "Unexpected failure while adding node a"


class Broken:
    def __del__(self):
        raise ZeroDivisionError


def test_what_python_can_raise_to_nobody_is_a_line(logging_to, monkeypatch, capsys):
    monkeypatch.setattr(sys, "unraisablehook", tell_ignored)
    stream = io.StringIO()
    logging_to(stream, format="json")
    for _ in range(3):
        Broken()
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["event"] == "error-ignored"
    assert "ZeroDivisionError" in line
    assert capsys.readouterr().err == ""
