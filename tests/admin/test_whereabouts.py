"""A running server is found from any folder, and another one is not taken for it."""

import contextlib
import errno
import socket
from pathlib import Path

import pytest

from xmppd import configfile
from xmppd.admin import whereabouts
from xmppd.configfile import defaults, read
from xmppd.errors import CommandError


@pytest.fixture
def environ(tmp_path):
    return {"HOME": str(tmp_path / "home")}


@pytest.fixture
def serve(tmp_path, environ):
    """Makes running servers: something that listens, and its note."""
    with contextlib.ExitStack() as undo:

        def serve(name, config):
            folder = tmp_path / name / "data"
            folder.mkdir(parents=True)
            listener = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            listener.bind(str(folder / "xmppd.sock"))
            listener.listen()
            undo.enter_context(whereabouts.noted(Path(config), folder / "xmppd.sock", environ))
            return folder / "xmppd.sock", listener

        yield serve


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("")
    return path


def find(environ, path=None):
    return whereabouts.find_server(read(path, environ), is_named=path is not None, environ=environ)


def test_by_its_configuration(serve, environ, written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    serve("other", defaults())
    assert find(environ, written) is None
    mine, _ = serve("mine", written)
    assert find(environ, written) == mine
    assert find(environ, Path("mine.yaml")) == mine
    assert find({**environ, "XMPPD_CONFIG": str(written)}) == mine


def test_the_folder_here_comes_first(serve, environ, written, tmp_path, monkeypatch):
    here, _ = serve("here", written)
    serve("other", written)
    monkeypatch.chdir(here.parent.parent)
    assert find(environ, written).absolute() == here


def test_one_in_another_folder_is_not_meant_where_the_folder_is_said(
    serve, environ, written, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    mine, _ = serve("mine", written)
    there = {**environ, "XMPPD__SERVER__DATA_FOLDER": str(tmp_path / "other" / "data")}
    assert find(there, written) is None
    other, _ = serve("other", written)
    assert find(there, written) == other
    assert find({**environ, "XMPPD__SERVER__DATA_FOLDER": str(mine.parent)}, written) == mine


def test_the_only_one_when_nothing_was_named(serve, environ, written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if configfile.find(environ) != defaults():
        pytest.skip("this machine has a configuration of its own")
    mine, _ = serve("mine", written)
    assert find(environ) == mine
    assert find(environ, defaults()) is None, "a named file is meant"


def test_one_of_several_has_to_be_named(serve, environ, written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    serve("one", written)
    serve("two", written)
    with pytest.raises(CommandError, match="several servers are running") as caught:
        find(environ, written)
    assert all(f"{written}, in {tmp_path}/{name}/data" in str(caught.value) for name in ("one", "two"))


def test_the_note_of_a_dead_server_means_nothing(serve, environ, written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, listener = serve("mine", written)
    listener.close()
    assert find(environ, written) is None
    (whereabouts.folder(environ) / "spoilt.json").write_text("[")
    assert find(environ, written) is None


def test_a_note_goes_with_its_server(serve, environ, written, tmp_path):
    with whereabouts.noted(written, tmp_path / "xmppd.sock", environ):
        assert len(list(whereabouts.folder(environ).iterdir())) == 1
    assert list(whereabouts.folder(environ).iterdir()) == []


def test_where_no_note_can_be_written_there_is_none(written, tmp_path):
    (tmp_path / "file").write_text("")
    with whereabouts.noted(written, tmp_path / "xmppd.sock", {"HOME": str(tmp_path / "file")}):
        pass


def test_a_stuck_server_of_another_configuration_is_no_matter(serve, environ, written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, listener = serve("other", tmp_path / "other.yaml")
    listener.listen(0)
    with contextlib.ExitStack() as undo:
        outcome = 0
        while not outcome:
            waiting = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            waiting.setblocking(False)
            outcome = waiting.connect_ex(str(path))
        assert outcome == errno.EAGAIN
        assert find(environ, written) is None
        mine, _ = serve("mine", written)
        assert find(environ, written) == mine
