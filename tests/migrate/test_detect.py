"""Which format a source has."""

from pathlib import Path

import pytest
from truth import SAMPLES

from xmppd.migrate.detect import LOOKS, named, open_source, recognised
from xmppd.migrate.formats import FORMATS
from xmppd.migrate.record import Account
from xmppd.migrate.source import Options, SourceError


def test_names_are_unique_and_described() -> None:
    names = [each.name for each in FORMATS]
    assert len(set(names)) == len(names)
    assert [name for name in names if name not in LOOKS] == []
    assert [named(name) for name in names] == list(FORMATS)


def test_a_name_that_is_none() -> None:
    with pytest.raises(SourceError, match=r"there is no format 'x'; there are jsonl, csv, ") as error:
        open_source(Path("f"), format="x")
    for each in FORMATS:
        assert each.name in str(error.value)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ('{"account": "a@h"}\n', "jsonl"),
        ("account,password\na@h,p\n", "csv"),
        ("account,contact\na@h,c@h\n", "csv"),
        ("{tables,[{passwd,[{attributes,[us,password]}]}]}.\n", "ejabberd-mnesia"),
        ("<?xml version='1.0'?><server-data xmlns='urn:xmpp:pie:0'/>", "xep-0227"),
    ],
)
def test_files(tmp_path: Path, content: str, name: str) -> None:
    path = tmp_path / "file"
    path.write_text(content)
    assert recognised(path).name == name


def test_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text('{"account": "a"}\n')
    for format in ("", "jsonl"):
        reader = open_source(path, format=format, options=Options("h", tmp_path))
        assert list(reader) == [Account("a", "h", "file:1")]


def test_nothing_and_several(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("hello\n")
    with pytest.raises(SourceError, match=r"file: a file of no format that is known; jsonl: a file whose"):
        open_source(path)
    with pytest.raises(SourceError, match="a folder of no format that is known"):
        open_source(tmp_path)
    with pytest.raises(SourceError, match="is not there"):
        open_source(tmp_path / "none")
    with pytest.raises(SourceError, match="is no file"):
        open_source(Path("/dev/zero"))
    (tmp_path / "a.csv").write_text("account\n")
    (tmp_path / "h" / "accounts").mkdir(parents=True)
    (tmp_path / "h" / "accounts" / "a.dat").write_text("return {};")
    with pytest.raises(SourceError, match=r"looks like csv, prosody; say by --format which"):
        open_source(tmp_path)


def test_samples() -> None:
    for folder, name in (("ejabberd-23.01/mnesia-sha1/dump/mnesia.dump", "ejabberd-mnesia"),):
        assert recognised(SAMPLES / folder).name == name
