"""One registry of commands behind every door: command line, unix socket, HTTP, later ad-hoc commands.

A command is a method declared with `@command`; its signature and annotations are its whole description:

    @command("Stop a player from chatting for some minutes")
    async def mute(self, player: Annotated[Jid, "whom"], minutes: int = 10, *, quiet: bool = False) -> str:

Types are str, int, float, bool and Jid, each also as `T | None`, and as `list[T]` for an option that may be
given several times. Text in `Annotated` explains a parameter,
`Secret` marks one that must not be shown or typed openly. Positional parameters are positional on the command
line too; keyword-only ones become options, a bool a switch. The result is data: whatever JSON can hold.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from xmppd.errors import CommandError, ConfigError, JidError, StoreTimeout, StoreUnavailable, XmppdError
from xmppd.jid import Jid

FAILED, USAGE, UNAVAILABLE, NO_PERMISSION, BAD_CONFIG = 1, 2, 69, 77, 78
"""Exit codes: failed, called wrongly, no server or store to ask, no right to, the configuration is wrong."""

Kind = Literal["str", "int", "float", "bool", "Jid"]
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

Checker = TypeVar("Checker", bound=Callable[..., Any])

ALL: Final = "*"
"""The scope of who may do everything."""

_KINDS: dict[Any, Kind] = {str: "str", int: "int", float: "float", bool: "bool", Jid: "Jid"}
_ARTICLES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "Jid": "an address",
}
_FROM_TEXT: dict[Kind, Callable[[str], Json]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": lambda text: {"true": True, "false": False}[text],
    "Jid": str,
}


@dataclass(frozen=True, slots=True)
class Secret:
    """Marks, by `Annotated[str, Secret("help")]`, a parameter that is read without echo and never shown. One
    of many `lines` is named by its file on the command line.
    """

    help: str = ""
    lines: bool = False


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; `option` ones are given by name on the command line, the others by position. The value
    of `many` is a list.
    """

    name: str
    kind: Kind
    help: str = ""
    required: bool = True
    default: Json = None
    option: bool = False
    secret: bool = False
    many: bool = False
    lines: bool = False

    def read(self, value: Json) -> Any:
        """The value that the function gets for what came in as JSON; CommandError when it does not fit."""
        if value is None and not self.required:
            return self.default
        if not self.many:
            return self._read(value)
        if not isinstance(value, list):
            raise self._wrong(f"{self.name} must be a list")
        return [self._read(item) for item in value]

    def _read(self, value: Json) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.kind == "Jid" and isinstance(value, str):
            try:
                return Jid.parse(value)
            except JidError as error:
                raise self._wrong(f"{self.name}: {value!r} is not an address: {error}") from None
        if self.kind == "float" and number:
            return value
        if type(value).__name__ != self.kind:
            raise self._wrong(f"{self.name} must be {_ARTICLES[self.kind]}")
        return value

    def read_text(self, texts: Sequence[str]) -> Json:
        """The JSON of what came in as text, several times where there may be many; CommandError."""
        if self.many:
            return [self._json(text) for text in texts]
        if len(texts) != 1:
            raise self._wrong(f"{self.name} may be given once")
        return self._json(texts[0])

    def _json(self, text: str) -> Json:
        try:
            return _FROM_TEXT[self.kind](text)
        except (ValueError, KeyError):
            raise self._wrong(f"{self.name} must be {_ARTICLES[self.kind]}") from None

    def _wrong(self, message: str) -> CommandError:
        return CommandError(message, USAGE, field=self.name, rule="parameter")


@dataclass(frozen=True)
class Description:
    """What a door must know of a command. `offline`: it also works on the store alone, without a server.
    `reads`: it changes nothing. `guarded`: it tells secrets, or has to do with files of the machine, so no
    scope allows it that does not name it.

    `paged`: it does a part of its work at each call and returns by `page` what that came to; the
    door goes on with the parameter `after` until nothing is left. `confirm`: what a person is asked first,
    with parameters in braces. `once`: its result is a secret, which is shown once and kept nowhere.
    `downloads`: its result is a file of this media type (`Download`), which doors pass on as it is made.
    `follows`: it returns a Feed, whose records go on until the caller leaves. `masks`: the log of what was
    done does not name the accounts it is about.
    """

    name: str
    help: str
    parameters: tuple[Parameter, ...] = ()
    offline: bool = False
    paged: bool = False
    confirm: str = ""
    reads: bool = False
    guarded: bool = False
    once: bool = False
    downloads: str = ""
    follows: bool = False
    masks: bool = False

    @property
    def noun(self) -> str:
        """What it is about: the first word of its name."""
        return self.name.partition(" ")[0]

    @property
    def verb(self) -> str:
        """What is done to that: all other words, with hyphens; "" for a name of one word."""
        return self.name.partition(" ")[2].replace(" ", "-")

    @property
    def scopes(self) -> tuple[str, ...]:
        """What allows it, the narrowest first: `roster:show`, `roster:read`, `roster:*`, `*:read`, `*`.
        `write` stands for all that change something.
        """
        kind = "read" if self.reads else "write"
        itself = f"{self.noun}:{self.verb or kind}"
        if self.guarded:
            return itself, ALL
        return (
            itself,
            f"{self.noun}:{kind}",
            f"{self.noun}:*",
            f"*:{kind}",
            ALL,
        )

    def as_json(self) -> dict[str, Any]:
        """Plain data from which `described` makes an equal description."""
        return {
            "name": self.name,
            "help": self.help,
            "parameters": [asdict(parameter) for parameter in self.parameters],
            "offline": self.offline,
            "paged": self.paged,
            "confirm": self.confirm,
            "reads": self.reads,
            "guarded": self.guarded,
            "once": self.once,
            "downloads": self.downloads,
            "follows": self.follows,
            "masks": self.masks,
        }


def described(data: Mapping[str, Any]) -> Description:
    """The description that another process wrote with `as_json`."""
    parameters = tuple(Parameter(**parameter) for parameter in data["parameters"])
    return Description(
        data["name"],
        data["help"],
        parameters,
        data["offline"],
        data.get("paged", False),
        data.get("confirm", ""),
        data.get("reads", False),
        data.get("guarded", False),
        data.get("once", False),
        data.get("downloads", ""),
        data.get("follows", False),
        data.get("masks", False),
    )


@dataclass(frozen=True)
class Command(Description):
    """A description and the function, plain or async, that does it. `checker` takes the parameters that are
    no secrets, and raises what the function would raise because of them. `caller` is the parameter that is
    given who has it done, if there is one. `versioner` takes the same parameters, and tells which version of
    its result there is.
    """

    function: Callable[..., Any] = lambda: None
    checker: Callable[..., Any] | None = None
    versioner: Callable[..., Awaitable[int | str]] | None = None
    caller: str = ""

    async def call(self, arguments: Mapping[str, Json], by: Caller) -> Any:
        """Check the arguments and run the function; CommandError for a missing, unknown or ill-typed one."""
        values = self._values(arguments, self.parameters)
        result = self.function(**values, **({self.caller: by} if self.caller else {}))
        return await result if inspect.isawaitable(result) else result

    async def version(self, arguments: Mapping[str, Json]) -> str:
        """The version of what `call` would return, or of what was there a moment before; "" where there are
        none. CommandError.
        """
        if self.versioner is None:
            return ""
        return str(await self.versioner(**self._values(arguments, self.parameters)))

    async def check(self, arguments: Mapping[str, Json]) -> None:
        """Find what is wrong with the arguments before somebody is asked for secrets, or whether they are
        sure; CommandError.
        """
        values = self._values(arguments, [known for known in self.parameters if not known.secret])
        if self.checker is not None:
            result = self.checker(**values)
            if inspect.isawaitable(result):
                await result

    def _values(self, arguments: Mapping[str, Json], parameters: Iterable[Parameter]) -> dict[str, Any]:
        known = {parameter.name: parameter for parameter in parameters}
        for name in arguments:
            if name not in known:
                message = f"{self.name}: there is no parameter {name!r}"
                raise CommandError(message, USAGE, field=name, rule="parameter")
        values = {}
        for name, parameter in known.items():
            if name in arguments:
                values[name] = parameter.read(arguments[name])
            elif parameter.required:
                raise CommandError(f"{self.name}: {name} is missing", USAGE, field=name, rule="parameter")
        return values


@dataclass(frozen=True, slots=True)
class Download:
    """A file as the result of a command: `pieces` are made while they are taken."""

    name: str
    content_type: str
    pieces: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who has a command done: by which door (`socket`, `http`, `adhoc`, `offline`), under which name, from
    which address, "" where there is none; and with which scopes, None: he may do everything.
    """

    door: str = ""
    name: str = ""
    address: str = ""
    scopes: frozenset[str] | None = None


NOBODY: Final = Caller()
"""The server itself."""


class Declared:
    """What `@command` leaves in a class body: still a method, and one that can describe itself.

    `about` is without parameters; its name is empty for a command that takes that of its method.
    """

    def __init__(self, function: Callable[..., Any], about: Description) -> None:
        self.function = function
        self.about = about
        self.checker: Callable[..., Any] | None = None
        self.versioner: Callable[..., Any] | None = None

    def __get__(self, instance: object, owner: type) -> Any:
        return self if instance is None else types.MethodType(self.function, instance)

    def check(self, checker: Checker) -> Checker:
        """Decorates the method that finds what is wrong before secrets are asked for: see `Command`."""
        self.checker = checker
        return checker

    def version(self, versioner: Checker) -> Checker:
        """Decorates the method that tells the version of a result: see `Command`."""
        self.versioner = versioner
        return versioner

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """What the method takes; TypeError: see `parameters_of`."""
        return parameters_of(self.function)

    def describe(self, prefix: str = "") -> Description:
        """The description; a command without a name of its own is called `<prefix> <method>`."""
        name = self.about.name or f"{prefix} {self.function.__name__}".strip().replace("_", "-")
        return replace(self.about, name=name, parameters=self.parameters)

    def bound(self, instance: object, prefix: str = "") -> Command:
        """The command of one object."""
        checker = None if self.checker is None else types.MethodType(self.checker, instance)
        about = self.describe(prefix)
        fields = {field: getattr(about, field) for field in about.__dataclass_fields__}
        versioner = None if self.versioner is None else types.MethodType(self.versioner, instance)
        function = types.MethodType(self.function, instance)
        return Command(
            **fields,
            function=function,
            checker=checker,
            versioner=versioner,
            caller=caller_of(self.function),
        )


def command(
    help: str,
    *,
    name: str = "",
    offline: bool = False,
    paged: bool = False,
    confirm: str = "",
    reads: bool = False,
    guarded: bool = False,
    once: bool = False,
    downloads: str = "",
    follows: bool = False,
    masks: bool = False,
) -> Callable[[Callable[..., Any]], Declared]:
    """Declare a method as a command. `help` is one sentence; `name` may have several words (`user add`);
    `reads`: it changes nothing; `guarded`: it tells secrets, or reads or writes files; `once`: its result is
    a secret, which is shown once; `downloads`: it is a Download of this media type; `follows`: it is a Feed;
    `masks`: accounts are not named in the log of what was done. A parameter of the type Caller is who has it
    done.
    """
    about = Description(
        name,
        help,
        offline=offline,
        paged=paged,
        confirm=confirm,
        reads=reads or follows,
        guarded=guarded,
        once=once,
        downloads=downloads,
        follows=follows,
        masks=masks,
    )
    return lambda function: Declared(function, about)


def descriptions_of(owner: type, prefix: str = "") -> list[Description]:
    """Descriptions of all commands that a class declares, in the order of their declaration."""
    return [declared.describe(prefix) for declared in _declared(owner).values()]


def commands_of(instance: object, prefix: str = "") -> list[Command]:
    """All commands that the class of `instance` declares, bound to it."""
    return [declared.bound(instance, prefix) for declared in _declared(type(instance)).values()]


def _declared(owner: type) -> dict[str, Declared]:
    members: dict[str, Any] = {}
    for ancestor in reversed(owner.__mro__):
        members.update(vars(ancestor))
    return {name: member for name, member in members.items() if isinstance(member, Declared)}


def parameters_of(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """The parameters of a method, without `self`; TypeError for an annotation that no door could offer."""
    hints = get_type_hints(function, include_extras=True)
    signature = list(inspect.signature(function).parameters.values())[1:]
    return tuple(
        _parameter(parameter, hints.get(parameter.name))
        for parameter in signature
        if hints.get(parameter.name) is not Caller
    )


def caller_of(function: Callable[..., Any]) -> str:
    """The parameter of a method that is given who has it done; "" where there is none."""
    return next((name for name, hint in get_type_hints(function).items() if hint is Caller), "")


def _parameter(parameter: inspect.Parameter, hint: Any) -> Parameter:
    kind, many, notes = _kind(hint)
    is_option = parameter.kind is inspect.Parameter.KEYWORD_ONLY
    is_open = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if kind is None or is_open or (many and not is_option):
        raise TypeError(f"parameter {parameter.name}: a command cannot take {hint}")
    secrets = [note for note in notes if isinstance(note, Secret)]
    texts = [note for note in notes if isinstance(note, str)] + [secret.help for secret in secrets]
    required = parameter.default is inspect.Parameter.empty
    return Parameter(
        parameter.name,
        kind,
        help=" ".join(texts),
        required=required,
        default=None if required else parameter.default,
        option=is_option or kind == "bool" or bool(secrets),
        secret=bool(secrets),
        many=many,
        lines=any(secret.lines for secret in secrets),
    )


def _kind(hint: Any) -> tuple[Kind | None, bool, tuple[Any, ...]]:
    """The kind behind `T`, `T | None`, `list[T]` and `Annotated`, whether there may be many, and the notes
    found on the way.
    """
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *notes = get_args(hint)
        kind, many, more = _kind(inner)
        return kind, many, (*notes, *more)
    if origin in (Union, types.UnionType):
        options = [option for option in get_args(hint) if option is not types.NoneType]
        return _kind(options[0]) if len(options) == 1 else (None, False, ())
    if origin is list:
        return _KINDS.get(get_args(hint)[0]), True, ()
    return _KINDS.get(hint), False, ()


def page(
    rows: Sequence[Mapping[str, Any]],
    counts: Mapping[str, int],
    *,
    total: int | None = None,
    after: str | None = None,
    exit_code: int = 0,
) -> dict[str, Any]:
    """What a paged command returns: rows, counts to be added up, and the token to go on `after`, None at
    the end. The first of the counts says how far it is; `total` is what it comes to, if known, in the first
    page.
    """
    return {
        "rows": list(map(dict, rows)),
        "counts": dict(counts),
        "total": total,
        "after": after,
        "exit_code": exit_code,
    }


def clashes(name: str, others: Iterable[str]) -> bool:
    """Whether a door could not offer both: one is the other, or its first words (`user` and `user add`)."""
    return any(f"{name} ".startswith(f"{other} ") or f"{other} ".startswith(f"{name} ") for other in others)


def as_command_error(error: XmppdError) -> CommandError:
    """The same refusal as a sentence and an exit code."""
    if isinstance(error, CommandError):
        return error
    codes = {StoreUnavailable: UNAVAILABLE, StoreTimeout: UNAVAILABLE, ConfigError: BAD_CONFIG}
    kind = type(error)
    rule = re.sub("(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower()
    return CommandError(str(error), codes.get(kind, FAILED), rule=rule)
