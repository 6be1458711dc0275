"""Two players come, make friends, and are told of their match: `play.py KEY.pem SECRET [PORT HTTP_PORT]`."""

import asyncio
import sys
from pathlib import Path

from backend import match_found, token
from player import Player


async def play(key: str, secret: str, port: int = 5222, http: int = 5280) -> None:
    news: asyncio.Queue[str] = asyncio.Queue()

    async def until(*words: str) -> None:
        for word in words:
            said = ""
            while word not in said:
                said = await asyncio.wait_for(news.get(), 30)
                print(said, flush=True)

    for player in (Player("bob", token("bob", key)), Player("kiva", token("kiva", key), "bob@localhost")):
        player.add_event_handler("news", news.put_nowait)
        player.connect("127.0.0.1", port)
        await until("is there")
    await until("bob sees kiva@localhost play")
    server = f"http://127.0.0.1:{http}"
    print(await asyncio.to_thread(match_found, server, secret, "7", ["bob", "kiva"]), flush=True)
    await until("told of match/7", "told of match/7")


if __name__ == "__main__":
    asyncio.run(play(Path(sys.argv[1]).read_text(), sys.argv[2], *map(int, sys.argv[3:])))
