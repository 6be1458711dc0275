# ruff: noqa: RUF001 - texts that look alike are what this is about
"""Microseconds that the filter of plugin moderation takes for a message, and what reading its lists does to
the loop.

usage: scripts/bench/filter [WORDS [ROUNDS]] | --write FOLDER
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from time import perf_counter, process_time

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import ahocorasick

from plugins.game.moderation.chain import Chain
from plugins.game.moderation.folding import Folder
from plugins.game.moderation.words import Words, words_in

TEXTS = {
    "short": "gg wp!",
    "usual": "hello, shall we meet at the old bridge by eight or nine, then go mid?",
    "Cyrillic": "привет, как дела? пойдем играть сегодня вечером, если хочешь",
    "Chinese": "你好，我们八点在桥边见面，然后一起去打一局吧",
    "in disguise": "what a d\u200b4\u0301rnw0rd th\u0456s is!",
    "masked": "what a darnword this is",
}
DISGUISES = {
    "digits": "what a d4rnw0rd this is!",
    "signs": "what a d@rnword this is!",
    "runs": "what a daaarnwooord this is!",
    "unseen": "what a d\u200ba\u2060r\u00adnword this is!",
    "marks": "what a da\u0301rn\u0336wo\u0308rd this is!",
    "look-alikes": "what a dаrnwоrd th\u0456s is!",
    "wide": "what a ｄａｒｎｗｏｒｄ this is!",
    "in circles": "what a ⓓⓐⓡⓝⓦⓞⓡⓓ this is!",
    "mathematical": "what a 𝖉𝖆𝖗𝖓𝖜𝖔𝖗𝖉 this is!",
    "spelled": "what a d a r n w o r d this is!",
    "with dots": "what a d.a.r.n.w.o.r.d this is!",
    "mixed": "привет d\u200bаrnw0rd 你好 ｗｏｒｌｄ, это $0 ﬁne",
}
"""One word on a list, in a disguise of each kind."""
ENDLESS = {
    "in disguise": "what a d\u200b4\u0301rnw0rd th\u0456s is! ",
    "with no word": "wh\u200bat a g00d th\u0456ng thi\u0301s is! ",
    "spelled": "n o t h i n g s p e l l e d i s h e r e a t a l l ",
    "in pieces": "n o t so h e r e so ",
    "one word": "d\u200b4\u0301rnw0rd",
    "runs": "dddaaarrrnnnw ",
    "signs": "$a$@ !$! ",
    "ligatures": "ﷺ",
}
"""Over and over again."""
CALLS = 2_000


def words(count: int, star: str = "") -> str:
    """So many made-up words."""
    chance = random.Random(1)
    letters = "abcdefghijkmnopqrstuvwxyz"
    made = {"".join(chance.choices(letters, k=chance.randint(6, 12))) for _ in range(count)}
    return "\n".join(["darnword", *(f"{word}{star}" for word in made)])


async def built(text: str) -> tuple[Words, float, float]:
    """The lists, the seconds that it took, and the longest that the loop stood still meanwhile."""
    gaps, is_over = [0.0], False

    async def tick() -> None:
        last = process_time()
        while not is_over:
            await asyncio.sleep(0)
            gaps.append(process_time() - last)
            last = process_time()

    ticking = asyncio.create_task(tick())
    began = perf_counter()
    made = await words_in(Folder(), [("words.txt", "en", text)], "mask", ahocorasick.Automaton)
    seconds = perf_counter() - began
    is_over = True
    await ticking
    return made, seconds, max(gaps)


def cost(chain: Chain, text: str, rounds: int, calls: int = CALLS) -> float:
    """Microseconds for one, in the fastest round."""
    best = 1.0
    for _ in range(rounds):
        began = perf_counter()
        for _ in range(calls):
            chain.look(text)
        best = min(best, (perf_counter() - began) / calls)
    return best * 1e6


def new_characters(chain: Chain) -> float:
    """Microseconds for a character that was never seen, of those of 10,000 ideographs and syllables."""
    text = "".join(map(chr, [*range(0x4E00, 0x7510), *range(0xAC00, 0xD310)]))
    began = perf_counter()
    chain.look(text)
    return (perf_counter() - began) / len(text) * 1e6


def main() -> None:
    if sys.argv[1:2] == ["--write"]:
        folder = Path(sys.argv[2])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "en.txt").write_text(words(100_000))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    for name, star in (("words by themselves", ""), ("beginnings of words", "*")):
        made, seconds, gap = asyncio.run(built(words(count, star)))
        print(f"{made.count} {name}: read in {seconds:.2f} s, the loop stood still for {gap * 1000:.1f} ms")
        chain = Chain(made, (), 0.0, "pass", 5_000, False)
        for kind, text in TEXTS.items():
            print(f"  {kind:12}{len(text):4} characters{cost(chain, text, rounds):8.2f} us")
        for kind, text in DISGUISES.items():
            print(f"  {kind:12}{len(text):4} characters{cost(chain, text, rounds):8.2f} us")
        chain = Chain(made, (), 0.0, "pass", 20_000, False)
        print(f"  a new character: {new_characters(chain):.2f} us; texts of 1,000 and 10,000 characters:")
        for kind, piece in ENDLESS.items():
            each = [
                cost(chain, (piece * length)[:length], rounds, 20_000 // length) / length
                for length in (1_000, 10_000)
            ]
            print(f"  {kind:12}{each[0]:8.3f} and {each[1]:.3f} us a character")


if __name__ == "__main__":
    main()
