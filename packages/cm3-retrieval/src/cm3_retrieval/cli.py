"""The command `cm3-retrieval`: build and search a memory bank of pictures.

Takes arguments and hands them to `cm3_retrieval.commands`. A failure is one line on stderr and exit
status 1 (`cm3_retrieval.exit_status`); wrong usage, a wrong value of an option too, is status 2.
`--help` imports neither FAISS nor torch.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cm3_retrieval.exit_status import exit_status
from cm3_retrieval.index.config import AUTO
from cm3_retrieval.neighbours.strategy import RetrievalConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "search" and options.text is None and options.image is None:
        parser.error("search: --text, --image: wanted at least one of them")

    def run() -> None:
        from cm3_retrieval import commands

        commands.COMMANDS[options.command](options)

    return exit_status(run, f"cm3-retrieval {options.command}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cm3-retrieval", description="A searchable memory of captioned pictures."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(
        name: str, text: str, *, on: str = "bank", encodes: bool = False
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument(on, type=Path, help=f"folder of the {on}")
        if encodes:
            sub.add_argument("--encoder", default="ViT-B-32", help="CLIP folder or model name")
            sub.add_argument("--pretrained", help="tag or file of weights of a model by name")
            sub.add_argument("--device", default="cpu")
            sub.add_argument(
                "--amp", action="store_true", help="compute in bfloat16 where possible"
            )
            sub.add_argument("--batch-size", type=_integer(1), default=64)
        return sub

    pictures = "pictures, with captions in metadata.jsonl or in NAME.txt beside NAME.png"
    train = command("train", "Train a small CLIP on captioned pictures.", on="clip")
    train.add_argument("folder", type=Path, help=pictures)
    train.add_argument("--steps", type=_integer(1), default=200)
    train.add_argument("--seed", type=_integer(0), default=0)
    build = command("build", "Build a bank, or rebuild it.", encodes=True)
    build.add_argument("folder", type=Path, help=pictures)
    build.add_argument(
        "--index", default=AUTO, help="FAISS factory string; the default follows from the size"
    )
    build.add_argument("--threads", type=_integer(1), default=1, help="threads of FAISS")
    add = command("add", "Add the pictures that are not in the bank yet.", encodes=True)
    add.add_argument("folder", type=Path, help=pictures)
    search = command("search", "Find documents by text, picture or both.", encodes=True)
    search.add_argument("--text")
    search.add_argument("--image", type=Path)
    search.add_argument(
        "-k", type=_integer(1), default=10, help="number of results, at most all documents"
    )
    search.add_argument(
        "--html", type=Path, help="page with pictures to write; replaces only such pages"
    )
    near = command("neighbours", "Build the neighbour table for training.", encodes=True)
    near.add_argument("table", type=Path, help="folder of the table; a killed run continues there")
    defaults = RetrievalConfig()
    near.add_argument("--max-relevance", type=_cosine, default=defaults.max_relevance)
    near.add_argument(
        "--max-likeness", type=_cosine, help="of two documents; the default is found on the bank"
    )
    near.add_argument("--threads", type=_integer(1), default=1, help="threads of FAISS")
    near.add_argument("--duplicate-threshold", type=_cosine, default=defaults.duplicate_threshold)
    near.add_argument("--candidates", type=_integer(1), default=defaults.num_candidates)
    near.add_argument("--seed", type=_integer(0), default=0)
    judge = command("eval", "Measure recall against exact search, and duplicates.", encodes=True)
    judge.set_defaults(encoder=None)  # with one, captions and pictures of the bank are queries, too
    judge.add_argument(
        "--vectors", type=Path, help="NPY of the documents' vectors, for a bank that has none"
    )
    judge.add_argument("-k", type=_integer(1), default=10)
    judge.add_argument(
        "--queries", type=_integer(1), default=1000, help="number of documents drawn as queries"
    )
    judge.add_argument(
        "--duplicate",
        type=_cosine,
        default=0.99,
        help="score above which a neighbour is a duplicate",
    )
    judge.add_argument(
        "--histogram", type=Path, help="PNG of the scores to write; replaces only such files"
    )
    command("info", "Show what a bank holds.")
    command("verify", "Check hashes, counts and canary queries.")
    return parser


def _integer(least: int) -> Callable[[str], int]:
    """Return the type of an option: an integer of at least `least`."""

    def integer(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"wanted at least {least}, got {value}")
        return value

    return integer


def _cosine(text: str) -> float:
    value = float(text)
    if not -1 <= value <= 1:  # NaN is not
        raise argparse.ArgumentTypeError(f"wanted -1 to 1, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
