"""The running server at the other end of HTTP, as the command line wants it (docs/http-api.md)."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Generator, Mapping
from typing import Any, Final, NoReturn
from urllib.parse import urlencode, urlsplit

from xmppd.admin.client import SILENT_SECONDS, Begin
from xmppd.admin.commands import FAILED, NO_PERMISSION, UNAVAILABLE, USAGE, Description
from xmppd.admin.contexts import Context
from xmppd.errors import CommandError

SECONDS: Final = 300.0
PIECE: Final = 65_536
TRIES: Final = 10
AGAIN_SECONDS: Final = 3.0
"""How often, and after how long, it comes again to what it follows."""
EXIT_CODES: Final = {400: USAGE, 401: NO_PERMISSION, 403: NO_PERMISSION, 405: USAGE, 503: UNAVAILABLE}
"""By status; the others are failures."""


class Remote:
    """The server of a context. `known` are the commands that may be called, by name."""

    def __init__(self, context: Context, known: Mapping[str, Description]) -> None:
        self._context = context
        self._known = known

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Run a command; its result, or CommandError."""
        if self._known[name].reads:
            return self._ask("GET", self._path_of(name, arguments), None)
        return self._ask("POST", self._path_of(name, {}), json.dumps(arguments).encode())

    def download(self, name: str, arguments: Mapping[str, Any], begin: Begin) -> None:
        """Run a command whose result is a file; CommandError, also when it breaks off."""
        about = self._known[name]
        connection = _connection(self._context.url)
        try:
            answer = self._asked(connection, "GET", self._path_of(name, arguments), None)
            if answer.status != 200:
                self._refusal(answer.status, answer.read())
            take = begin(answer.msg.get_filename() or about.verb)
            while piece := answer.read(PIECE):
                take(piece)
        except (OSError, http.client.HTTPException) as error:
            raise self._silent(error) from None
        finally:
            connection.close()

    def follow(self, name: str, arguments: Mapping[str, Any]) -> Generator[Mapping[str, Any], None, None]:
        """The records of a command that follows, as they come; CommandError. Where the connection breaks it
        comes again, some times, and goes on behind the last one.
        """
        last, tries = "", 0
        while True:
            connection = _connection(self._context.url, SILENT_SECONDS)
            try:
                asked = {"Last-Event-ID": last} if last else {}
                answer = self._asked(connection, "GET", self._path_of(name, arguments), None, asked)
                if answer.status != 200:
                    self._refusal(answer.status, answer.read())
                is_over = False
                for line in answer:
                    if line.startswith(b"data: "):
                        tries = 0
                        yield json.loads(line[6:])
                    elif line.startswith(b"id: "):
                        last = line[4:].decode().strip()
                    is_over = is_over or line.startswith(b"event: end")
                if is_over or not last:
                    return
            except (OSError, http.client.HTTPException) as error:
                if not last or tries >= TRIES:
                    raise self._silent(error) from None
            finally:
                connection.close()
            tries += 1
            time.sleep(AGAIN_SECONDS)

    def _path_of(self, name: str, arguments: Mapping[str, Any]) -> str:
        """The path of a command, with a query."""
        about = self._known[name]
        path = "/".join(("/api/v1", about.noun, about.verb) if about.verb else ("/api/v1", about.noun))
        query = urlencode({key: _text(value) for key, value in arguments.items()}, doseq=True)
        return f"{path}?{query}" if query else path

    def check(self, name: str, arguments: Mapping[str, Any]) -> None:
        """What is wrong is found when it is called."""

    def _ask(self, method: str, path: str, body: bytes | None) -> Any:
        connection = _connection(self._context.url)
        try:
            answer = self._asked(connection, method, path, body)
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._silent(error) from None
        finally:
            connection.close()
        if answer.status in (200, 204):
            return self._json(text)
        return self._refusal(answer.status, text)

    def _asked(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        more: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self._context.token}", "Content-Type": "application/json"}
        connection.request(method, path, body, {**headers, **(more or {})})
        return connection.getresponse()

    def _silent(self, error: Exception) -> CommandError:
        reason = " ".join(map(str, error.args)) or type(error).__name__
        return CommandError(f"{self._context.url} did not answer ({reason})", UNAVAILABLE)

    def _json(self, text: bytes) -> Any:
        try:
            return json.loads(text) if text else None
        except ValueError:
            raise CommandError(f"{self._context.url} is not a server of ours") from None

    def _refusal(self, status: int, text: bytes) -> NoReturn:
        result = self._json(text)
        detail = result.get("detail") or result.get("title") if isinstance(result, dict) else None
        message = str(detail or f"status {status}")
        raise CommandError(message.removesuffix("."), EXIT_CODES.get(status, FAILED))


def _connection(url: str, seconds: float = SECONDS) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        tls = ssl.create_default_context()
        return http.client.HTTPSConnection(host, parts.port, timeout=seconds, context=tls)
    return http.client.HTTPConnection(host, parts.port, timeout=seconds)


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return [_text(item) for item in value]
    return value if isinstance(value, str) else json.dumps(value)
