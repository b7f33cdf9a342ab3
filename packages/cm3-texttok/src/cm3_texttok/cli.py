"""The command line `cm3-texttok`: train, encode, decode, inspect.

Results go to stdout, progress to stderr. A failure is one line on stderr, with exit status 1
(`cm3_texttok.exit_status`); wrong usage, a wrong value of an option too, is status 2.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from cm3_texttok.corpus import SUFFIXES, read_texts
from cm3_texttok.exit_status import exit_status
from cm3_texttok.text_file import decoded
from cm3_texttok.tokenizer import TextTokenizer, check_target
from cm3_texttok.training import check_counts

_FILES = f"files that end in {', '.join(SUFFIXES)}"
_FIELD = "key of a .jsonl object, or column of a .parquet file, that holds the text"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.run is _train:
        try:
            check_counts(**_counts(options))
        except ValueError as error:
            parser.error(f"train: {error}")
    return exit_status(lambda: options.run(options), "cm3-texttok")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cm3-texttok", description="Text to ids and back.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], words: str):
        added = commands.add_parser(name, help=words, description=words)
        added.set_defaults(run=run)
        return added

    train = command("train", _train, "learn a tokenizer from files")
    train.add_argument("files", nargs="+", metavar="FILE", help=_FILES)
    train.add_argument("--out", required=True, metavar="FOLDER", help="where to write it")
    train.add_argument("--field", default="text", help=f"{_FIELD} (default: text)")
    train.add_argument(
        "--vocab-size", type=int, default=56320, help="number of ids (default: 56320)"
    )
    train.add_argument("--num-masks", type=int, default=16, help="mask tokens (default: 16)")
    train.add_argument("--num-threads", type=int, default=2, help="threads (default: 2)")

    encode = command("encode", _encode, "print the ids of each text, one text a line")
    encode.add_argument("tokenizer", metavar="FOLDER", help="a saved tokenizer")
    encode.add_argument("texts", nargs="*", metavar="TEXT", help="texts; none: lines of stdin")

    decode = command("decode", _decode, "print the text of ids")
    decode.add_argument("tokenizer", metavar="FOLDER", help="a saved tokenizer")
    decode.add_argument("ids", nargs="*", metavar="ID", help="one text's ids; none: lines of stdin")

    inspect = command("inspect", _inspect, "print figures of a tokenizer on files, as a table")
    inspect.add_argument("tokenizer", metavar="FOLDER", help="a saved tokenizer")
    inspect.add_argument("files", nargs="+", metavar="FILE", help=_FILES)
    inspect.add_argument("--field", default="text", help=f"{_FIELD} (default: text)")
    return parser


def _train(options: argparse.Namespace) -> None:
    check_target(options.out)
    start = time.perf_counter()
    texts = _with_progress(read_texts(options.files, field=options.field))
    tokenizer = TextTokenizer.train(texts, **_counts(options))
    tokenizer.save(options.out)
    seconds = time.perf_counter() - start
    print(f"{options.out}: {tokenizer.vocab_size} ids in {seconds:.1f} s", file=sys.stderr)


def _counts(options: argparse.Namespace) -> dict[str, int]:
    return {name: getattr(options, name) for name in ("vocab_size", "num_masks", "num_threads")}


def _with_progress(texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts, and print their count on stderr every second."""
    count, characters, due = 0, 0, time.monotonic() + 1
    for text in texts:
        yield text
        count, characters = count + 1, characters + len(text)
        if time.monotonic() >= due:
            print(f"read {count} texts, {characters / 1e6:.1f} M characters", file=sys.stderr)
            due = time.monotonic() + 1
    print(f"read {count} texts, {characters / 1e6:.1f} M characters; learning", file=sys.stderr)


def _encode(options: argparse.Namespace) -> None:
    tokenizer = TextTokenizer.load(options.tokenizer)
    for texts in _batches(options.texts or _stdin()):
        for row in tokenizer.encode_batch(texts):
            print(*row.tolist())


def _decode(options: argparse.Namespace) -> None:
    tokenizer = TextTokenizer.load(options.tokenizer)
    for number, row in enumerate([options.ids] if options.ids else map(str.split, _stdin()), 1):
        try:
            ids = [int(word) for word in row]
        except ValueError as error:
            raise ValueError(f"ids:{number}: wanted integers, got: {error}") from None
        sys.stdout.buffer.write(tokenizer.decode(ids).encode() + b"\n")
    sys.stdout.buffer.flush()


def _inspect(options: argparse.Namespace) -> None:
    tokenizer = TextTokenizer.load(options.tokenizer)
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    texts = characters = size = longest = 0
    for batch in _batches(read_texts(options.files, field=options.field)):
        rows = tokenizer.encode_batch(batch)
        counts += np.bincount(rows.values, minlength=counts.size)
        texts, longest = texts + len(batch), max(longest, int(rows.lengths.max()))
        characters += sum(map(len, batch))
        size += sum(len(text.encode()) for text in batch)
    tokens = int(counts.sum())
    if tokens == 0:
        raise ValueError(f"files: wanted at least one text with characters, got {texts} texts")
    in_bytes = int(counts[tokenizer.byte_ids].sum())  # such an id is one byte of the text
    learnt = tokenizer.vocab_size - tokenizer.byte_ids.stop
    used = int(np.count_nonzero(counts[tokenizer.byte_ids.stop :]))
    table = [
        ("ids", f"{tokenizer.vocab_size}"),
        ("structural ids", f"{tokenizer.byte_ids.start - 1}"),
        ("byte pieces", f"{len(tokenizer.byte_ids)}"),
        ("learnt pieces", f"{learnt}"),
        ("texts", f"{texts}"),
        ("characters", f"{characters}"),
        ("bytes", f"{size}"),
        ("tokens", f"{tokens}"),
        ("tokens of the longest text", f"{longest}"),
        ("bytes per token", f"{size / tokens:.3f}"),
        ("characters per token", f"{characters / tokens:.3f}"),
        ("coverage: bytes in learnt pieces", f"{1 - in_bytes / size:.3%}"),
        ("learnt pieces used", f"{used} ({used / max(learnt, 1):.1%})"),
    ]
    for name, value in table:
        print(f"{name:<34}{value:>16}")


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(texts)
    while batch := list(itertools.islice(iterator, 1000)):
        yield batch


def _stdin() -> Iterator[str]:
    """Yield the lines of stdin, blank ones too."""
    return (line for _, line in decoded(sys.stdin.buffer, "stdin"))


if __name__ == "__main__":
    sys.exit(main())
