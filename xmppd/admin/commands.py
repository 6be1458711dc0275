"""One registry of commands behind every door: command line, unix socket, later HTTP and ad-hoc commands.

A command is a method declared with `@command`; its signature and annotations are its whole description:

    @command("Stop a player from chatting for some minutes")
    async def mute(self, player: Annotated[Jid, "whom"], minutes: int = 10, *, quiet: bool = False) -> str:

Types are str, int, float, bool and Jid, each also as `T | None`. Text in `Annotated` explains a parameter,
`Secret` marks one that must not be shown or typed openly. Positional parameters are positional on the command
line too; keyword-only ones become options, a bool a switch. The result is data: whatever JSON can hold.
"""

from __future__ import annotations

import difflib
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from xmppd.errors import CommandError, ConfigError, JidError, StoreTimeout, StoreUnavailable, XmppdError
from xmppd.jid import Jid

FAILED, USAGE, UNAVAILABLE, NO_PERMISSION, BAD_CONFIG = 1, 2, 69, 77, 78
"""Exit codes: failed, called wrongly, no server or store to ask, no right to, the configuration is wrong."""

Kind = Literal["str", "int", "float", "bool", "Jid"]
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_KINDS: dict[Any, Kind] = {str: "str", int: "int", float: "float", bool: "bool", Jid: "Jid"}
_ARTICLES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "Jid": "an address",
}


@dataclass(frozen=True, slots=True)
class Secret:
    """Marks, by `Annotated[str, Secret("help")]`, a parameter that is read without echo and never shown."""

    help: str = ""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; `option` ones are given by name on the command line, the others by position."""

    name: str
    kind: Kind
    help: str = ""
    required: bool = True
    default: Json = None
    option: bool = False
    secret: bool = False

    def read(self, value: Json) -> Any:
        """The value that the function gets for what came in as JSON; CommandError when it does not fit."""
        if value is None and not self.required:
            return self.default
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.kind == "Jid" and isinstance(value, str):
            try:
                return Jid.parse(value)
            except JidError as error:
                raise CommandError(f"{self.name}: {value!r} is not an address: {error}", USAGE) from None
        if self.kind == "float" and number:
            return value
        if type(value).__name__ != self.kind:
            raise CommandError(f"{self.name} must be {_ARTICLES[self.kind]}", USAGE)
        return value


@dataclass(frozen=True)
class Description:
    """What a door must know of a command. `offline`: it also works on the store alone, without a server.

    `paged`: it does a part of its work at each call and returns `xmppd.admin.pages` what that came to; the
    door goes on with the parameter `after` until nothing is left.
    """

    name: str
    help: str
    parameters: tuple[Parameter, ...] = ()
    offline: bool = False
    paged: bool = False

    def as_json(self) -> dict[str, Any]:
        """Plain data from which `described` makes an equal description."""
        return {
            "name": self.name,
            "help": self.help,
            "parameters": [asdict(parameter) for parameter in self.parameters],
            "offline": self.offline,
            "paged": self.paged,
        }


def described(data: Mapping[str, Any]) -> Description:
    """The description that another process wrote with `as_json`."""
    parameters = tuple(Parameter(**parameter) for parameter in data["parameters"])
    return Description(data["name"], data["help"], parameters, data["offline"], data.get("paged", False))


@dataclass(frozen=True)
class Command(Description):
    """A description and the function, plain or async, that does it."""

    function: Callable[..., Any] = lambda: None

    async def call(self, arguments: Mapping[str, Json]) -> Any:
        """Check the arguments and run the function; CommandError for a missing, unknown or ill-typed one."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in arguments:
            if name not in known:
                raise CommandError(f"{self.name}: there is no parameter {name!r}", USAGE)
        values = {}
        for name, parameter in known.items():
            if name in arguments:
                values[name] = parameter.read(arguments[name])
            elif parameter.required:
                raise CommandError(f"{self.name}: {name} is missing", USAGE)
        result = self.function(**values)
        return await result if inspect.isawaitable(result) else result


class Declared:
    """What `@command` leaves in a class body: still a method, and one that can describe itself."""

    def __init__(
        self, function: Callable[..., Any], help: str, name: str, *, offline: bool, paged: bool
    ) -> None:
        self.function = function
        self.help = help
        self.name = name
        self.offline = offline
        self.paged = paged

    def __get__(self, instance: object, owner: type) -> Any:
        return self if instance is None else types.MethodType(self.function, instance)

    def describe(self, prefix: str = "") -> Description:
        """The description; a command without a name of its own is called `<prefix> <method>`."""
        name = self.name or f"{prefix} {self.function.__name__}".strip().replace("_", "-")
        return Description(name, self.help, parameters_of(self.function), self.offline, self.paged)


def command(
    help: str, *, name: str = "", offline: bool = False, paged: bool = False
) -> Callable[[Callable[..., Any]], Declared]:
    """Declare a method as a command. `help` is one sentence; `name` may have several words (`user add`)."""
    return lambda function: Declared(function, help, name, offline=offline, paged=paged)


def descriptions_of(owner: type, prefix: str = "") -> list[Description]:
    """Descriptions of all commands that a class declares, in the order of their declaration."""
    return [declared.describe(prefix) for declared in _declared(owner).values()]


def commands_of(instance: object, prefix: str = "") -> list[Command]:
    """All commands that the class of `instance` declares, bound to it."""
    found = []
    for attribute, declared in _declared(type(instance)).items():
        about = declared.describe(prefix)
        found.append(
            Command(
                about.name,
                about.help,
                about.parameters,
                about.offline,
                about.paged,
                function=getattr(instance, attribute),
            )
        )
    return found


def _declared(owner: type) -> dict[str, Declared]:
    members: dict[str, Any] = {}
    for ancestor in reversed(owner.__mro__):
        members.update(vars(ancestor))
    return {name: member for name, member in members.items() if isinstance(member, Declared)}


def parameters_of(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """The parameters of a method, without `self`; TypeError for an annotation that no door could offer."""
    hints = get_type_hints(function, include_extras=True)
    signature = list(inspect.signature(function).parameters.values())[1:]
    return tuple(_parameter(parameter, hints.get(parameter.name)) for parameter in signature)


def _parameter(parameter: inspect.Parameter, hint: Any) -> Parameter:
    kind, notes = _kind(hint)
    if kind is None or parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
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
        option=parameter.kind is inspect.Parameter.KEYWORD_ONLY or kind == "bool" or bool(secrets),
        secret=bool(secrets),
    )


def _kind(hint: Any) -> tuple[Kind | None, tuple[Any, ...]]:
    """The kind behind `T`, `T | None` and `Annotated`, and the notes found on the way."""
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *notes = get_args(hint)
        kind, more = _kind(inner)
        return kind, (*notes, *more)
    if origin in (Union, types.UnionType):
        options = [option for option in get_args(hint) if option is not types.NoneType]
        return _kind(options[0]) if len(options) == 1 else (None, ())
    return _KINDS.get(hint), ()


def clashes(name: str, others: Iterable[str]) -> bool:
    """Whether a door could not offer both: one is the other, or its first words (`user` and `user add`)."""
    return any(f"{name} ".startswith(f"{other} ") or f"{other} ".startswith(f"{name} ") for other in others)


class Commands:
    """Every command that one server offers, by name."""

    def __init__(self, commands: Iterable[Command] = ()) -> None:
        self._by_name: dict[str, Command] = {}
        self.add(Command("commands", "List every command of the running server", function=self.describe))
        self.add(*commands)

    def add(self, *commands: Command) -> None:
        """Offer more commands; ValueError when a name is taken, and then none of them is added."""
        added = dict(self._by_name)
        for new in commands:
            if clashes(new.name, added):
                raise ValueError(
                    f"there is already a command {new.name}, or one that begins or goes on like it"
                )
            added[new.name] = new
        self._by_name = added

    def remove(self, *names: str) -> None:
        """Take commands back (their plugin is unloaded); unknown names are ignored."""
        for name in names:
            self._by_name.pop(name, None)

    def describe(self) -> list[dict[str, Any]]:
        """All descriptions as plain data, for doors in other processes."""
        return [self._by_name[name].as_json() for name in sorted(self._by_name)]

    async def call(self, name: str, arguments: Mapping[str, Json]) -> Any:
        """Run one command with arguments as they come from JSON; CommandError when it cannot be done."""
        found = self._by_name.get(name)
        if found is None:
            close = difflib.get_close_matches(name, self._by_name, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise CommandError(f"there is no command {name!r}{hint}", USAGE)
        try:
            return await found.call(arguments)
        except XmppdError as error:
            raise as_command_error(error) from error


def as_command_error(error: XmppdError) -> CommandError:
    """The same refusal as a sentence and an exit code."""
    if isinstance(error, CommandError):
        return error
    codes = {StoreUnavailable: UNAVAILABLE, StoreTimeout: UNAVAILABLE, ConfigError: BAD_CONFIG}
    return CommandError(str(error), codes.get(type(error), FAILED))
