"""Whom each table is about: declared everywhere, and refused at load where it is not."""

from pathlib import Path

import pytest

from xmppd.config import made_of
from xmppd.errors import CommandError
from xmppd.finding import names_in
from xmppd.rules import built_in_folders
from xmppd.store.cache.families import FAMILIES, family_of
from xmppd.store.person import Person, Through, nobody, wrong_with
from xmppd.store.table import Table
from xmppd.store.transfer import COPIES
from xmppd.tables import tables_of
from xmppd.testing import World

ROOT = Path(__file__).parent.parent.parent
BARE = """
from xmppd.plugin import Person, Plugin, Table, Through, nobody

class Book(Plugin):
    '''Keeps what it is told.'''
    lines = Table(partition=("account",), columns={"text": "text"}%s)
"""


def everything() -> list[Table]:
    names = names_in(built_in_folders())
    return [*tables_of(made_of({"plugins": {"enabled": sorted(names)}})), COPIES]


def test_every_table_says_whom_it_is_about() -> None:
    tables = everything()
    assert len(tables) >= 30
    assert {table.name: wrong for table in tables if (wrong := wrong_with(table, tables))} == {}


def test_the_data_model_says_the_same() -> None:
    text = (ROOT / "docs" / "data-model.md").read_text()
    table = text.partition("| table | owned by |")[2].partition("\n\n")[0]
    rows = {row.split(" | ")[0]: row for row in table.splitlines()[2:]}
    for known in everything():
        person = known.person
        assert person is not None
        whose = (
            f"`{person.column}`"
            if person.column
            else f"nobody: {person.why}"
            if person.why
            else "nobody's rows"
        )
        whose += f", a number of `{person.through.table}`" if person.through else ""
        mentions = ", ".join(f"`{column}` {fate}" for column, fate in person.mentions.items())
        secret = ", ".join(f"`{column}`" for column in person.secret)
        name = f"| `{known.name}`"
        assert rows.pop(name) == f"{name} | {whose} | {mentions} | {secret} |"
    assert not rows


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "book.py:6: the table book_lines: it does not say which person"),
        (", person=Person()", "it names neither a column nor, for want of a person, the reason"),
        (", person=Person('text')", "must be the first partition column, account, not text"),
        (", person=Person('account', mentions={'peer': 'kept'})", "it has no column peer"),
        (
            ", person=Person('account', mentions={'text': 'burnt'})",
            "'burnt' is none of kept, masked, deleted",
        ),
        (", person=Person('account', Through('book_owners', ('uid',)))", "there is no table book_owners"),
    ],
)
async def test_a_plugin_whose_table_does_not_say_so_is_not_loaded(
    said: str, why: str, tmp_path: Path
) -> None:
    (tmp_path / "book.py").write_text(BARE % said)
    with pytest.raises(CommandError, match=r"docs/plugins\.md") as refused:
        async with World(plugins=("book",), plugin_folders=(tmp_path,)):
            pass
    assert why in str(refused.value)
    (tmp_path / "book.py").write_text(BARE % ", person=nobody('a test')")
    async with World(plugins=("book",), plugin_folders=(tmp_path,)) as world:
        assert world.plugin("book").lines.declaration.person == nobody("a test")


def test_a_partition_is_of_one_person() -> None:
    days = Table("days", ("owner", "month"), columns={"owner": "int", "month": "int"})
    owners = Table("owners", ("account",), columns={"uid": "int"}, person=Person("account"))
    months = Table("months", ("owner",), ("month",), {"owner": "int", "month": "int"}, person=Person("owner"))
    for through, why in [
        (None, "its partition is not one person's"),
        (Through("owners", ("uid",)), "nothing says which partitions are one person's"),
        (Through("owners", ("id",), "months"), "the table owners has no column id"),
        (Through("owners", ("uid",), "months"), ""),
    ]:
        table = Table(days.name, days.partition, columns=days.columns, person=Person("owner", through))
        assert wrong_with(table, [table, owners, months]) == why


def test_every_key_of_redis_has_a_family() -> None:
    assert [family_of(f"x:{name}:y", "x") for name in FAMILIES] == list(FAMILIES)
    assert family_of("x:other:y", "x") == family_of("roster:y", "x") == ""
    sources = [*(ROOT / "xmppd" / "store" / "cache").glob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    sources += (ROOT / "xmppd" / "rights").glob("*.py")
    text = "".join(file.read_text() for file in sources)
    assert {name for name in FAMILIES if f"{name}:" in text or f":{name}" in text} == set(FAMILIES)
