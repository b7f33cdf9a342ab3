"""The service: requests a second drawn together and one by one, and a storm of clients.

    uv run python benchmarks/serve.py --run runs/tiny --out FILE

Starts apps/serve.py in a process of its own and asks it over HTTP for one picture a request.
`together_over_one_by_one` compares requests a second of `--clients` clients, each of which waits
for its answer before it asks again, with those of a single such client, in alternating rounds.

The storm is `--requests` requests of `--clients` clients at once; one in ten goes away before its
answer comes and one in ten is malformed. Every answered picture must be the one that the drawing
code gives for its prompt and seed in this process (`wrong` counts the others), a refused one must
be told when to come again. `memory_after_over_before` compares the server's resident memory after
two storms with that after one.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
import torch
from PIL import Image
from timing import machine_facts, report

from cm3_decoding import generate_rows
from cm3leon.drawing.draw import drawing
from cm3leon.parts import open_parts

PROMPTS = [
    f"{colour} {thing} on {ground}"
    for colour in ("red", "blue", "green", "yellow")
    for thing in ("apple", "fox", "hat", "star")
    for ground in ("white", "black", "pink")
]
MALFORMED: tuple[dict[str, Any] | bytes, ...] = (
    {},
    {"prompt": 7},
    {"prompt": "a", "candidates": -1},
    {"prompt": "a", "seed": "x"},
    {"prompt": "a", "unknown": 1},
    {"prompt": "a" * 100_000},
    {"prompt": "a", "documents": ["12345"]},
    {"prompt": "a", "top_p": 7},
    b"{",
    b"\xff\xfe",
)


def asked(number: int) -> dict[str, Any]:
    return {"prompt": PROMPTS[number % len(PROMPTS)], "candidates": 1, "seed": number % 97}


class Server:
    """apps/serve.py in a process of its own."""

    def __init__(self, run: Path, *options: str) -> None:
        command = [sys.executable, "apps/serve.py", "--run", str(run), "--port", "0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "http" not in line:
            raise RuntimeError(f"serve.py: wanted an address, got {line!r}")
        self.url = line[line.index("http") :].strip().rstrip("/")

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return psutil.Process(self.process.pid).memory_info().rss

    def close(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


async def one_picture(
    client: aiohttp.ClientSession, url: str, number: int
) -> tuple[int, np.ndarray | None]:
    """Return the status of a request, and its picture."""
    async with client.post(f"{url}/api/draw", json=asked(number)) as answer:
        if answer.status != 200:
            if answer.status == 429 and int(answer.headers["Retry-After"]) < 1:
                raise RuntimeError("Retry-After: wanted 1 or more")
            return answer.status, None
        file = (await answer.json())["pictures"][0]["picture"]
        return 200, np.asarray(Image.open(io.BytesIO(base64.b64decode(file))).convert("RGB"))


async def rate(url: str, clients: int, requests: int) -> float:
    """Return requests a second of clients that each wait for an answer before they ask again."""
    numbers = iter(range(requests))

    async def client() -> None:
        async with aiohttp.ClientSession() as session:
            for number in numbers:
                status, _ = await one_picture(session, url, number)
                if status != 200:
                    raise RuntimeError(f"wanted an answer, got status {status}")

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return requests / (time.perf_counter() - start)


async def storm(
    url: str, clients: int, requests: int, seed: int, check: Callable[[int, np.ndarray], bool]
) -> dict[str, int]:
    """Ask, leave and stammer; return counts of what came of it."""
    numbers, found = iter(range(requests)), Counter[str]()
    chance = random.Random(seed)
    kinds = [chance.choice(["leave", "malformed", *["stay"] * 8]) for _ in range(requests)]
    waiting: list[int] = []

    async def client(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            kind = kinds[number]
            if kind == "malformed":
                body = chance.choice(MALFORMED)
                data = {"json": body} if isinstance(body, dict) else {"data": body}
                header = {"Content-Type": "application/json"}
                async with session.post(f"{url}/api/draw", headers=header, **data) as answer:
                    text = await answer.text()
                    good = 400 <= answer.status < 500 and "Traceback" not in text
                    found["malformed" if good else "wrong"] += 1
                    if not good:
                        print(f"{body!r:.60}: {answer.status} {text:.200}", file=sys.stderr)
            elif kind == "leave":
                try:
                    patience = chance.uniform(0.01, 0.5)
                    await asyncio.wait_for(one_picture(session, url, number), patience)
                    found["answered"] += 1
                except TimeoutError:
                    found["left"] += 1
            else:
                status, picture = await one_picture(session, url, number)
                if status == 429:
                    found["refused"] += 1
                elif picture is None or not check(number, picture):
                    found["wrong"] += 1
                    print(f"{asked(number)}: status {status}, another picture", file=sys.stderr)
                else:
                    found["answered"] += 1

    async def watch(session: aiohttp.ClientSession) -> None:
        while True:
            async with session.get(f"{url}/metrics") as answer:
                lines = (await answer.text()).splitlines()
            values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
            waiting.append(int(float(values["cm3_waiting"])))
            await asyncio.sleep(0.2)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        watching = asyncio.ensure_future(watch(session))
        await asyncio.gather(*(client(session) for _ in range(clients)))
        watching.cancel()
    return {
        "answered": found["answered"],
        "left": found["left"],
        "malformed": found["malformed"],
        "refused": found["refused"],
        "wrong": found["wrong"],
        "most_waiting": max(waiting, default=0),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=32, help="as of serve.py")
    parser.add_argument("--waiting", type=int, default=32, help="as of serve.py")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    options = [f"--rows={given.rows}", f"--waiting={given.waiting}"]

    parts = open_parts(given.run, "cpu")
    needed = sorted({(one["prompt"], one["seed"]) for one in map(asked, range(given.requests))})
    seeds = np.array([[seed] for _, seed in needed])
    rows = drawing(parts, [prompt for prompt, _ in needed], seeds=seeds).rows
    ids = torch.stack(generate_rows(parts.model, rows, device=parts.device)).numpy()
    codes = parts.tokenizers.vocabulary.ids_to_codes(ids)
    # one by one: the last bit of a pixel depends on what is decoded with it
    drawn = [parts.tokenizers.decode(own[None])[0] for own in codes]
    wanted = dict(zip(needed, drawn, strict=True))

    def check(number: int, picture: np.ndarray) -> bool:
        one = asked(number)
        return np.array_equal(picture, wanted[one["prompt"], one["seed"]])

    server = Server(given.run, *options)
    try:
        together = min(given.clients, given.waiting)
        asyncio.run(rate(server.url, together, together))
        rates: dict[str, list[float]] = {"one_by_one": [], "together": []}
        for _ in range(given.rounds):
            rates["one_by_one"].append(asyncio.run(rate(server.url, 1, 12)))
            rates["together"].append(asyncio.run(rate(server.url, together, 3 * together)))
        storms, memory = [], []
        for seed in range(2):
            storms.append(
                asyncio.run(storm(server.url, given.clients, given.requests, seed, check))
            )
            memory.append(server.memory)
        status = server.close()
    finally:
        server.process.kill()
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    counts = {name: sum(one[name] for one in storms) for name in storms[0]}
    counts["most_waiting"] = max(one["most_waiting"] for one in storms)
    figures = {
        "together_over_one_by_one": medians["together"] / medians["one_by_one"],
        "one_by_one_requests_per_second": medians["one_by_one"],
        "together_requests_per_second": medians["together"],
        "clients_together": together,
        **{f"storm_{name}": value for name, value in counts.items()},
        "memory_after_over_before": memory[1] / memory[0],
        "exit_status": status,
    }
    facts = machine_facts(torch.get_num_threads())
    settings = {"run": given.run.name, "clients": given.clients, "options": " ".join(options)}
    report(figures | facts | settings | {"torch": torch.__version__}, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
