"""What may come next on a command line, for shells that complete words, and for our own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from xmppd.admin.commands import Description, Parameter

_BASH: Final = """\
_xmppd() {
  local IFS=$'\\n'
  COMPREPLY=($(xmppd --complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _xmppd xmppd
"""
SHELLS: Final = {
    "bash": _BASH,
    "zsh": f"autoload -U +X bashcompinit && bashcompinit\n{_BASH}",
    "fish": """\
complete -c xmppd -f -a '(xmppd --complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
""",
}
"""What each shell has to read, by its name."""

COMMON: Final = ("--config", "--context", "--json", "--help")
WITH_VALUE: Final = ("--config", "--context")


def candidates(words: Sequence[str], known: Sequence[Description], contexts: Sequence[str] = ()) -> list[str]:
    """What the last of some words may become; the others are whole."""
    *before, last = words or [""]
    if before and before[-1] == "--context":
        return _beginning(contexts, last)
    names = [tuple(about.name.split()) for about in known]
    spoken, skip = list[str](), False
    for word in before:
        if skip or word.startswith("-"):
            skip = not skip and word in WITH_VALUE
        else:
            spoken.append(word)
    for about, name in zip(known, names, strict=True):
        if tuple(spoken[: len(name)]) == name:
            return _beginning(
                [*map(_option, filter(_is_option, about.parameters)), *_more(about), *COMMON], last
            )
    length = len(spoken)
    following = {name[length] for name in names if len(name) > length and name[:length] == tuple(spoken)}
    return _beginning([*sorted(following), *(COMMON if last.startswith("-") else ())], last)


def _beginning(words: Sequence[str], start: str) -> list[str]:
    return [word for word in dict.fromkeys(words) if word.startswith(start)]


def _is_option(parameter: Parameter) -> bool:
    return parameter.option


def _option(parameter: Parameter) -> str:
    return "--" + parameter.name.replace("_", "-")


def _more(about: Description) -> list[str]:
    """Options that no parameter stands for."""
    secrets = [f"{_option(parameter)}-stdin" for parameter in about.parameters if parameter.secret]
    generate = ["--generate"] if secrets else []
    return [
        *secrets,
        *generate,
        *(["--yes"] if about.confirm else []),
        *(["--create"] if about.offline else []),
    ]
