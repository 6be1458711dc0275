"""Whoever else is asked about texts: a service that answers by HTTP, in time or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from xmppd.plugin import HttpClient, HttpFailed

from .chain import Judgement
from .config import Verdict
from .words import ACTIONS

CHARACTERS: Final = 10_000


class Judge:
    """Asks by POST with a JSON object of `account`, `where`, `text` and `lang`; is answered with one of
    `action`, and `text` where that is "mask". `failed` is called with the reason when there is no such
    answer.
    """

    def __init__(
        self, config: Verdict, client: HttpClient, clock: Callable[[], float], failed: Callable[[str], None]
    ) -> None:
        self._config = config
        self._client = client
        self._clock = clock
        self._failed = failed
        self._failures = 0
        self._closed_until = 0.0
        self._asking = 0

    async def ask(self, account: str, where: str, text: str, lang: str) -> Judgement:
        """What the service says, or what is done when it says nothing."""
        config = self._config
        if self._clock() < self._closed_until:
            return Judgement(config.failing, text, "verdict: not asked")
        if self._asking >= config.at_once:
            self._failed("too many at once")
            return Judgement(config.failing, text, "verdict: too many at once")
        self._asking += 1
        try:
            answer = await self._asked(account, where, text, lang)
        except (HttpFailed, ValueError) as error:
            self._failures += 1
            if self._failures >= config.open_after:
                self._failures = 0
                self._closed_until = self._clock() + config.pause
            self._failed(str(error) or type(error).__name__)
            return Judgement(config.failing, text, "verdict: no answer")
        finally:
            self._asking -= 1
        self._failures = 0
        return answer

    async def _asked(self, account: str, where: str, text: str, lang: str) -> Judgement:
        about = {"account": account, "where": where, "text": text, "lang": lang}
        headers = {"Content-Type": "application/json"}
        if token := self._config.token.value:
            headers["Authorization"] = f"Bearer {token}"
        answer = await self._client.post(self._config.url, json.dumps(about).encode(), headers)
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        said = json.loads(answer.body)
        if not isinstance(said, dict) or said.get("action") not in ACTIONS:
            raise ValueError("no action that there is")
        shown = said.get("text", text)
        if not isinstance(shown, str) or len(shown) > max(CHARACTERS, len(text)):
            raise ValueError("a text that is none, or too long")
        return Judgement(said["action"], shown, "verdict")
