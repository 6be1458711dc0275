"""The shape of the code, held by rules that read the source: who imports whom, and what no module may do.

Every rule is a function from one module to its breaches, and has a snippet below on which it must complain.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from tiers import MAY_IMPORT

ROOT = Path(__file__).parent.parent

DRIVERS = frozenset({"sqlite3", "redis", "cassandra", "aioredis", "hiredis"})
NAMESPACE_STARTS = (
    "urn:xmpp:",
    "urn:xmppd:",
    "jabber:",
    "http://jabber.org/",
    "http://etherx.jabber.org/",
    "urn:ietf:",
)
EMPTY_WORDS = ("Manager", "Helper", "Helpers", "Util", "Utils", "Base", "Impl")
MUTABLE_CALLS = frozenset(
    {"dict", "list", "set", "deque", "defaultdict", "Counter", "OrderedDict", "bytearray"}
)
MUTABLE_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
NEEDS_TASK = frozenset({"timeout", "timeout_at", "wait_for", "current_task", "TaskGroup"})
LONGEST_MODULE = 600


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, its text and its tree, and whether it is the one of a package."""

    name: str
    text: str
    tree: ast.Module
    is_package: bool = False

    @classmethod
    def of(cls, name: str, text: str, *, is_package: bool = False) -> "Module":
        return cls(name, text, ast.parse(text), is_package)

    def is_in(self, *prefixes: str) -> bool:
        return any(_is_under(self.name, prefix) for prefix in prefixes)


@dataclass(frozen=True)
class Import:
    """One import. `from a import b` has the target `a.b`, be `b` a module or a name in one."""

    target: str
    line: int
    for_types_only: bool
    in_function: bool


def _is_under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _targets(node: ast.Import | ast.ImportFrom, module: Module) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    package = node.module or ""
    if node.level:
        names = module.name.split(".")
        above = names[: len(names) - node.level + module.is_package]
        package = ".".join([*above, *filter(None, [node.module])])
    return [f"{package}.{alias.name}" for alias in node.names]


@cache
def _imports(module: Module) -> list[Import]:
    """What a module imports; it is asked for by many rules."""

    def walk(node: ast.AST, *, types: bool, function: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                for target in _targets(child, module):
                    yield Import(target, child.lineno, types, function)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, types=types or _is_type_checking(child), function=function or inside)

    return list(walk(module.tree, types=False, function=False))


def _place(name: str) -> str | None:
    """The longest entry of MAY_IMPORT that covers this module."""
    fitting = [
        prefix for prefix in MAY_IMPORT if name == prefix or (prefix != "xmppd" and _is_under(name, prefix))
    ]
    return max(fitting, key=len, default=None)


def _is_allowed(place: str, target: str) -> bool:
    return any(_is_under(target, allowed) for allowed in MAY_IMPORT[place])


def _package(plugin: str) -> str:
    """The package of a plugin that is more than one file."""
    names = plugin.split(".")
    return ".".join(names[: 3 if names[1:2] == ["game"] else 2])


def tiers(module: Module) -> Iterator[str]:
    place = _place(module.name)
    if place is None:
        yield f"1: {module.name} has no place in MAY_IMPORT"
        return
    for found in _imports(module):
        is_own = module.name.startswith("plugins.") and _is_under(found.target, _package(module.name))
        if _is_under(found.target, "plugins") and module.is_in("xmppd", "plugins") and not is_own:
            yield f"{found.line}: {module.name} imports {found.target}: nobody imports a plugin"
        elif _is_under(found.target, "xmppd") and not _is_allowed(place, found.target):
            yield f"{found.line}: {module.name} imports {found.target}"


def local_imports(module: Module) -> Iterator[str]:
    for found in _imports(module):
        if found.in_function:
            yield f"{found.line}: imports {found.target} inside a function"


def drivers(module: Module) -> Iterator[str]:
    """Drivers of engines live in store/ and cluster/; lxml, a second parser, nowhere. Files of other servers
    are SQLite, too: migrate/ may read those.
    """
    for found in _imports(module):
        top = found.target.partition(".")[0]
        if top == "sqlite3" and module.is_in("xmppd.migrate", "xmppd.migrating"):
            continue
        if top == "lxml" or (top in DRIVERS and not module.is_in("xmppd.store", "xmppd.cluster")):
            yield f"{found.line}: imports {top}"


TRUNKS = (
    "xmppd.cluster.records",
    "xmppd.cluster.trunk",
    "xmppd.cluster.whereabouts",
    "xmppd.cluster.hello",
    "xmppd.cluster.member",
)
"""What two nodes say to each other, without anybody who waits."""


def purity(module: Module) -> Iterator[str]:
    """xml/, stream/, streams of clients and the protocol of trunks know bytes and events only; the core and
    the rest of the cluster but its links know no sockets.
    """
    if module.is_in("xmppd.cluster.link"):
        return
    if module.is_in("xmppd.xml", "xmppd.stream", "xmppd.net.c2s", *TRUNKS):
        forbidden = frozenset({"asyncio", "socket", "ssl", "threading"})
    elif module.is_in("xmppd.core", "xmppd.hooks", "xmppd.cluster"):
        forbidden = frozenset({"socket", "ssl"})
    else:
        return
    for found in _imports(module):
        if found.target.partition(".")[0] in forbidden:
            yield f"{found.line}: imports {found.target}"


def global_statements(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Global):
            yield f"{node.lineno}: global {', '.join(node.names)}"


def module_state(module: Module) -> Iterator[str]:
    """A module-level name may hold a table (in capitals), never a container that grows."""
    for node in module.tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        value = node.value
        called = value.func if isinstance(value, ast.Call) else None
        name_called = getattr(called, "id", getattr(called, "attr", ""))
        is_empty_call = isinstance(value, ast.Call) and name_called in MUTABLE_CALLS and not value.args
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            name = ast.unparse(target)
            is_table = name.lstrip("_").isupper() and not is_empty_call
            is_empty = isinstance(value, ast.List | ast.Dict) and not ast.unparse(value).strip("[]{}")
            is_mutable = isinstance(value, MUTABLE_DISPLAYS) or name_called in MUTABLE_CALLS
            if is_mutable and (not is_table or is_empty) and not name.startswith("__"):
                yield f"{node.lineno}: mutable module state {name}"


def length(module: Module) -> Iterator[str]:
    lines = module.text.count("\n") + 1
    if lines > LONGEST_MODULE:
        yield f"{lines}: longer than {LONGEST_MODULE} lines"


def tasks(module: Module) -> Iterator[str]:
    """A stanza never costs a task: only net/, store/, cluster/, admin/ and the composition may make some."""
    if not module.is_in("xmppd.core", "xmppd.xml", "xmppd.stream", "xmppd.hooks", "xmppd.plugin", "plugins"):
        return
    for node in ast.walk(module.tree):
        name = getattr(node, "attr", getattr(node, "id", ""))
        if name in {"create_task", "ensure_future", "TaskGroup"}:
            yield f"{getattr(node, 'lineno', 0)}: {name}"


def taskless(module: Module) -> Iterator[str]:
    """What may be begun outside of a task (`begun`) asks for no current one: the store, the core, and the
    plugins of the house."""
    if not module.is_in("xmppd.store", "xmppd.core", "xmppd.hooks", "plugins"):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "asyncio":
            name = node.attr
        elif isinstance(node, ast.ImportFrom) and node.module == "asyncio":
            name = next((alias.name for alias in node.names if alias.name in NEEDS_TASK), "")
        else:
            continue
        if name in NEEDS_TASK:
            yield f"{node.lineno}: asyncio.{name} wants to be in a task"


def _strings_in_code(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """All string and bytes literals except those that stand as statements (docstrings)."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in prose:
            if isinstance(node.value, str):
                yield node.lineno, node.value
            elif isinstance(node.value, bytes):
                yield node.lineno, node.value.decode("latin-1")


def namespaces(module: Module) -> Iterator[str]:
    """XML namespaces stand in ns.py; a plugin may invent its own under urn:xmppd:."""
    if module.name == "xmppd.ns":
        return
    for line, text in _strings_in_code(module.tree):
        for start in NAMESPACE_STARTS:
            if start in text and not (start == "urn:xmppd:" and module.is_in("plugins")):
                yield f"{line}: the namespace {text!r} belongs into ns.py"
                break


def prints(module: Module) -> Iterator[str]:
    if module.name == "xmppd.__main__":
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"{node.lineno}: print"


def class_names(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith(EMPTY_WORDS):
            yield f"{node.lineno}: class {node.name} says nothing by its name"


def cycles(modules: list[Module]) -> Iterator[str]:
    """Circles of imports that happen when the program runs."""
    known = {module.name for module in modules}

    def runtime_imports(module: Module) -> set[str]:
        targets = {found.target for found in _imports(module) if not found.for_types_only}
        return (targets | {target.rpartition(".")[0] for target in targets}) & known - {module.name}

    graph = {module.name: runtime_imports(module) for module in modules}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> Iterator[str]:
        if name in path:
            yield " -> ".join([*path[path.index(name) :], name])
        elif name not in done:
            for imported in sorted(graph[name]):
                yield from visit(imported, (*path, name))
            done.add(name)

    for name in sorted(graph):
        yield from visit(name, ())


RULES: tuple[Callable[[Module], Iterator[str]], ...] = (
    tiers, local_imports, drivers, purity, global_statements, module_state,
    length, tasks, taskless, namespaces, prints, class_names,
)  # fmt: skip

BAD = [
    (tiers, "xmppd.xml.scan", "from xmppd.core.router import Router"),
    (tiers, "xmppd.xml.scan", "import xmppd.net.c2s"),
    (tiers, "xmppd.stream.sasl", "from ..core import accounts"),
    (tiers, "xmppd.core.router", "from xmppd.net import c2s"),
    (tiers, "xmppd.core.roster.rosters", "from xmppd.store.sqlite.store import SqliteStore"),
    (tiers, "xmppd.store.sqlite.store", "from xmppd.jid import Jid"),
    (tiers, "xmppd.net.c2s.stream", "from xmppd.app import App"),
    (tiers, "xmppd.net.c2s.stream", "from xmppd.net.wire import Wire"),
    (tiers, "xmppd.net.c2s.stream", "if TYPE_CHECKING:\n    from xmppd.app import App"),
    (tiers, "xmppd.jid", "from xmppd import ns"),
    (tiers, "plugins.ping", "from xmppd.core.router import Router"),
    (tiers, "plugins.ping", "from plugins.disco import Disco"),
    (tiers, "plugins.ping.pong", "from ..disco import Disco"),
    (tiers, "plugins.game.darts.board", "from ..dice import Dice"),
    (tiers, "xmppd.app", "from plugins.disco import Disco"),
    (tiers, "xmppd.core.router", "from xmppd.cluster.trunk import Trunk"),
    (tiers, "xmppd.cluster.trunk", "from xmppd.net.wire import Wire"),
    (tiers, "xmppd.cluster.trunk", "from xmppd.store.table import Table"),
    (tiers, "xmppd.net.wire", "from xmppd.cluster.trunk import Trunk"),
    (tiers, "xmppd.newcomer", ""),
    (local_imports, "xmppd.app", "def f():\n    import json"),
    (local_imports, "plugins.ping", "class A:\n    async def f(self):\n        from os import path"),
    (drivers, "xmppd.core.roster.rosters", "import sqlite3"),
    (drivers, "xmppd.store.sqlite.store", "from lxml import etree"),
    (purity, "xmppd.stream.rows", "import asyncio"),
    (purity, "xmppd.net.c2s.stream", "import ssl"),
    (purity, "xmppd.cluster.trunk", "import asyncio"),
    (purity, "xmppd.cluster.hello", "from asyncio import Protocol"),
    (purity, "xmppd.cluster.mesh", "import socket"),
    (purity, "xmppd.core.router", "from socket import socket"),
    (global_statements, "xmppd.app", "def f():\n    global x\n    x = 1"),
    (module_state, "xmppd.core.router", "sessions = {}"),
    (module_state, "xmppd.core.router", "_sessions: dict[str, int] = dict()"),
    (module_state, "xmppd.core.router", "SESSIONS = defaultdict()"),
    (module_state, "xmppd.core.router", "SESSIONS = {}"),
    (length, "xmppd.app", "\n" * LONGEST_MODULE),
    (tasks, "xmppd.core.router", "loop.create_task(f())"),
    (tasks, "plugins.ping", "from asyncio import ensure_future\nensure_future(f())"),
    (taskless, "xmppd.store.sqlite.writer", "async with asyncio.timeout(1): ..."),
    (taskless, "xmppd.store._turns", "from asyncio import sleep, wait_for"),
    (taskless, "xmppd.core.lastseen", "asyncio.wait_for(f(), 1)"),
    (taskless, "plugins.offline", "asyncio.current_task()"),
    (namespaces, "xmppd.core.router", "NAME = '{jabber:client}message'"),
    (namespaces, "xmppd.core.router", "NAME = b'urn:xmpp:ping'"),
    (namespaces, "xmppd.core.router", "NAME = f'http://jabber.org/{x}'"),
    (namespaces, "xmppd.core.router", "NAME = 'urn:xmppd:mute:0'"),
    (namespaces, "plugins.ping", "NAME = 'urn:xmpp:ping'"),
    (prints, "xmppd.app", "print('hello')"),
    (class_names, "xmppd.app", "class SessionManager: ..."),
]  # fmt: skip

GOOD = [
    (tiers, "xmppd.core.router", "from xmppd import ns\nfrom xmppd.store.table import Table"),
    (tiers, "xmppd.store.sqlite.store", "import sqlite3\nfrom xmppd.store.table import Table"),
    (tiers, "xmppd.app", "from xmppd.net import c2s\nfrom xmppd import __version__"),
    (tiers, "xmppd.admin.cli", "from xmppd import __version__"),
    (tiers, "plugins.ping", "from xmppd import hooks, ns\nfrom xmppd.plugin import Plugin"),
    (tiers, "plugins.ping.pong", "from .ball import Ball"),
    (tiers, "plugins.game.darts.board", "from .arrow import Arrow"),
    (tiers, "xmppd.cluster.mesh", "from xmppd.cluster import trunk\nfrom xmppd.core import sessions"),
    (purity, "xmppd.cluster.link", "import asyncio"),
    (module_state, "xmppd.errors", "TYPES = {'gone': 'cancel'}\n__all__ = ['TYPES']"),
    (namespaces, "plugins.mute", "NS = 'urn:xmppd:mute:0'"),
    (namespaces, "xmppd.core.router", "'''About jabber:client.'''"),
    (taskless, "xmppd.admin.socket", "async with asyncio.timeout(1): ..."),
    (taskless, "xmppd.store._turns", "import asyncio\nasyncio.wait({f()}, timeout=1)"),
    (prints, "xmppd.__main__", "print('hello')"),
]  # fmt: skip


@cache
def _source() -> list[Module]:
    """All modules, parsed once for all rules."""
    files = [*ROOT.glob("xmppd/**/*.py"), *ROOT.glob("plugins/**/*.py")]
    modules = []
    for file in sorted(files):
        dotted = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        is_package = file.name == "__init__.py"
        modules.append(Module.of(dotted, file.read_text(encoding="utf-8"), is_package=is_package))
    return modules


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_holds(rule: Callable[[Module], Iterator[str]]) -> None:
    breaches = [f"{module.name}:{breach}" for module in _source() for breach in rule(module)]
    assert not breaches, "\n" + "\n".join(breaches)


def test_no_import_cycles() -> None:
    assert list(cycles(_source())) == []


def test_no_namespace_has_two_names() -> None:
    names: dict[str, list[str]] = {}
    for name, value in re.findall(r'^(\w+) = "(.+)"$', (ROOT / "xmppd" / "ns.py").read_text(), re.MULTILINE):
        names.setdefault(value, []).append(name)
    assert [found for found in names.values() if len(found) > 1] == []


def test_source_is_found() -> None:
    names = {module.name for module in _source()}
    assert {"xmppd", "xmppd.ns", "xmppd.xml.scan", "xmppd.core.router"} <= names
    assert any(name.startswith("plugins.") for name in names)


@pytest.mark.parametrize(("rule", "name", "text"), BAD)
def test_rule_complains(rule: Callable[[Module], Iterator[str]], name: str, text: str) -> None:
    assert list(rule(Module.of(name, text)))


@pytest.mark.parametrize(("rule", "name", "text"), GOOD)
def test_rule_is_content(rule: Callable[[Module], Iterator[str]], name: str, text: str) -> None:
    assert list(rule(Module.of(name, text))) == []


def test_cycle_is_found_and_types_do_not_count() -> None:
    first = Module.of("xmppd.core.a", "from xmppd.core.b import B")
    second = Module.of("xmppd.core.b", "from xmppd.core import a")
    typed = Module.of("xmppd.core.b", "if TYPE_CHECKING:\n    from xmppd.core import a")
    assert list(cycles([first, second])) == ["xmppd.core.a -> xmppd.core.b -> xmppd.core.a"]
    assert list(cycles([first, typed])) == []
