"""What the documents name is there: links, commands, keys of the configuration, files, events of the log."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from xmppd.admin.cli import BUILT_IN
from xmppd.admin.commands import Description, descriptions_of
from xmppd.config import Config
from xmppd.errors import CommandError, ConfigError
from xmppd.finding import find_plugin
from xmppd.rules import built_in_folders
from xmppd.section import Section, fields_of, values_of
from xmppd.store.table import Table
from xmppd.store.transfer import COPIES
from xmppd.tables import TABLES

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
ARCHITECTURE = ROOT / "docs" / "architecture.md"
OPERATIONS = ROOT / "docs" / "operations.md"
DATA_MODEL = ROOT / "docs" / "data-model.md"

LINK = re.compile(r"\[[^]]*]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]+`|^(?: {4}|\t)[^\n]*$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"(?<!from )(?<![\w.@-])(?:\S*/)?xmppd((?: +[^\s`'\"|;&<>()]+)+)")
PATH = re.compile(r"(?:xmppd|plugins|tests|scripts|config|docs|\.ci)/[\w./-]*[\w/]")
KEY = re.compile(r"([a-z]+)\.([a-z_]+)(?:\.[a-z_]+)*")
EVENT = re.compile(r"\blog\.(?:debug|info|warning|error|exception)\(\s*\"([a-z]+(?:-[a-z]+)*)\"")

SECTIONS: dict[str, type[Section]] = {name: type(value) for name, value in values_of(Config()).items()}
FILE_ENDINGS = frozenset({"py", "yaml", "md", "sqlite", "sock", "prof", "crt", "key"})


def names_of(documents: list[Path]) -> list[str]:
    return [str(document.relative_to(ROOT)) for document in documents]


@pytest.fixture(params=DOCUMENTS, ids=names_of(DOCUMENTS))
def document(request: pytest.FixtureRequest) -> Path:
    return request.param


def prose(text: str) -> str:
    return CODE.sub("", text)


def anchors(text: str) -> set[str]:
    """The anchors that the headings of a document make."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path, text: str) -> Iterator[str]:
    for target in LINK.findall(prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or not file.is_relative_to(ROOT):
            yield f"{target}: there is no such file"
        elif anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
            yield f"{target}: there is no such heading"


def plugin_files(folder: Path) -> list[Path]:
    """Plugins of one file, and those that are packages."""
    packages = [file.parent for file in folder.glob("*/__init__.py")]
    return sorted([*folder.glob("[a-z]*.py"), *packages])


def plugin_commands() -> list[Description]:
    """The commands of all built-in plugins, and of those shown in the documents."""
    found: list[Description] = []
    folders = [*built_in_folders(), ROOT / "docs" / "examples"]
    for path in (path for folder in folders for path in plugin_files(folder)):
        try:
            plugin_class, _ = find_plugin(path.stem, [path.parent], Config())
        except (CommandError, ConfigError):
            continue  # a test beside an example is no plugin
        found += descriptions_of(plugin_class, path.stem)
    return found


def declared_tables() -> list[Table]:
    """The tables of the core and of all built-in plugins."""
    found = [*TABLES, COPIES]
    for path in (path for folder in built_in_folders() for path in plugin_files(folder)):
        plugin_class, _ = find_plugin(path.stem, [path.parent], Config())
        found += plugin_class.tables(path.stem)
    return found


def unknown_commands(text: str, known: set[str]) -> Iterator[str]:
    """`xmppd WORDS`, in what is code: one of the first words must be the name of a command."""
    for code in CODE.findall(text):
        for words in COMMAND.findall(code.replace("`", "")):
            given = [
                word for word in words.split() if not word.startswith("-") and not word.endswith(".yaml")
            ]
            has_name = any(" ".join(given[:length]) in known for length in range(1, len(given) + 1))
            if given and given[0].isalpha() and given[0].islower() and not has_name:
                yield f"xmppd{words}: there is no such command"


def unknown_keys(text: str) -> Iterator[str]:
    for span in SPAN.findall(text):
        key = KEY.fullmatch(span)
        if key and key[1] in SECTIONS and key[2] not in {*fields_of(SECTIONS[key[1]]), *FILE_ENDINGS}:
            yield f"{span}: there is no such key"


def missing_files(text: str) -> Iterator[str]:
    for span in SPAN.findall(text):
        if PATH.fullmatch(span) and not (ROOT / span).exists():
            yield f"{span}: there is no such file"


def torn_tables(text: str) -> Iterator[str]:
    """Rows of tables that have no head: an empty line ends a table."""
    for block in re.split(r"\n\s*\n", CODE.sub("", text)):
        lines = block.strip().splitlines()
        if lines and lines[0].startswith("|") and not re.match(r"\|[\s:|-]*$", lines[min(1, len(lines) - 1)]):
            yield f"{lines[0][:60]}: a row without a head"


# what holds


def test_links_resolve(document: Path) -> None:
    assert list(broken_links(document, document.read_text(encoding="utf-8"))) == []


def test_commands_exist(document: Path) -> None:
    known = {about.name for about in (*BUILT_IN, *plugin_commands())}
    assert list(unknown_commands(document.read_text(encoding="utf-8"), known)) == []


def test_keys_exist(document: Path) -> None:
    assert list(unknown_keys(document.read_text(encoding="utf-8"))) == []


def test_tables_are_whole(document: Path) -> None:
    assert list(torn_tables(document.read_text(encoding="utf-8"))) == []


def test_files_of_the_architecture_exist() -> None:
    assert list(missing_files(ARCHITECTURE.read_text(encoding="utf-8"))) == []


def test_the_architecture_names_every_module() -> None:
    named = set(SPAN.findall(ARCHITECTURE.read_text(encoding="utf-8")))
    modules = {str(file.relative_to(ROOT)) for file in ROOT.glob("xmppd/**/*.py")}
    assert {name for name in modules - named if not name.endswith("/__init__.py")} == set()


README_FILES = [
    "docs/examples/hello.py",
    "docs/examples/game/backend.py",
    "docs/examples/game/player.py",
    "tests/test_readme_plugin.py",
]


@pytest.mark.parametrize("file", README_FILES)
def test_the_readme_shows_its_plugin_as_it_is(file: str) -> None:
    shown = f"```python\n{(ROOT / file).read_text(encoding='utf-8')}```\n"
    assert shown in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_command_is_explained_to_operators() -> None:
    text = OPERATIONS.read_text(encoding="utf-8")
    assert [about.name for about in BUILT_IN if f"`xmppd {about.name}" not in text] == []


def test_callers_are_told_which_commands_want_a_scope_of_their_own() -> None:
    text = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
    [told] = [it for it in text.split("\n\n") if "by their own scope and by `*` alone" in it]
    guarded = {about.name for about in (*BUILT_IN, *plugin_commands()) if about.guarded}
    assert set(SPAN.findall(told)) - {"*"} == guarded


def test_every_event_is_explained_to_operators() -> None:
    sources = [*ROOT.glob("xmppd/**/*.py"), *ROOT.glob("plugins/**/*.py")]
    events = {event for file in sources for event in EVENT.findall(file.read_text(encoding="utf-8"))}
    events.discard("session-bound")  # the example in the docstring of `xmppd.log`
    assert events - set(SPAN.findall(OPERATIONS.read_text(encoding="utf-8"))) == set()


@pytest.mark.parametrize("table", declared_tables(), ids=lambda table: table.name)
def test_the_data_model_has_every_table_as_it_is(table: Table) -> None:
    """Its line in the overview, with its key, and words of its own."""
    text = DATA_MODEL.read_text(encoding="utf-8")
    cells = (f"`{table.name}`", ", ".join(table.partition), ", ".join(table.cluster))
    line = f"| {' | '.join(cells)} |".replace("|  |", "| |")
    assert line in text
    _, _, detail = text.partition("\n## The core\n")
    assert table.name in detail


# what is found


@pytest.mark.parametrize("target", ["nothing.md", "README.md#nothing", "../outside.md", "#nothing"])
def test_a_broken_link_is_found(target: str) -> None:
    assert list(broken_links(ROOT / "README.md", f"see [this]({target})"))


@pytest.mark.parametrize(
    "code", ["`xmppd frobnicate`", "    .venv/bin/xmppd user frobnicate alice@localhost"]
)
def test_an_unknown_command_is_found(code: str) -> None:
    assert list(unknown_commands(code, {"status", "user add"}))


@pytest.mark.parametrize(
    "code", ["`xmppd --json status`", "    printf x | xmppd user add a@b --password-stdin"]
)
def test_a_known_command_is_not(code: str) -> None:
    assert list(unknown_commands(code, {"status", "user add"})) == []


def test_an_unknown_key_is_found() -> None:
    assert list(unknown_keys("`limits.depth` and `limits.dpeth`")) == ["limits.dpeth: there is no such key"]


def test_a_missing_file_is_found() -> None:
    assert list(missing_files("`xmppd/jid.py` and `xmppd/jdi.py`")) == ["xmppd/jdi.py: there is no such file"]


def test_a_table_that_is_torn_is_found() -> None:
    head = "| a | b |\n|---|---|\n| 1 | 2 |\n"
    assert list(torn_tables(f"text\n\n{head}\ntext")) == []
    assert list(torn_tables(f"{head}\n| 3 | 4 |\n")) == ["| 3 | 4 |: a row without a head"]
