"""What is decided of all pairs together: repeated ones, copies, groups and splits.

A few numbers a pair are held in memory, some `BYTES_A_PAIR` at the peak; pixels, captions and codes
stay in the sealed folders of their shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cm3_retrieval.bank.files import read_table
from cm3_retrieval.sealed_folder import MANIFEST_NAME, read_folder
from cm3leon.data.pairs import HELD_OUT, SPLITS, DataError
from cm3leon.preparation.copies import near_copies
from cm3leon.preparation.encoding import COMPONENT, NO_SPLIT

BYTES_A_PAIR = 220
"""Of this process's memory at the peak of the decisions."""
COLUMNS = ("key", "name", "content", "group", "phash", "split")
TRAIN = SPLITS.index("train")


@dataclass(frozen=True)
class Decisions:
    """What becomes of the N rows of all shards, one after another."""

    starts: np.ndarray
    """(S + 1,) first row of each shard."""
    kept: np.ndarray
    """(N,) bool."""
    split: np.ndarray
    """(N,) uint8, places in `SPLITS`."""
    group: np.ndarray
    """(N,) int64, one number for all that must not be on two sides."""
    keys: np.ndarray
    """(N,) int64."""
    counts: dict[str, int]
    """What was found, for the report."""

    def of_shard(self, number: int) -> Decisions:
        """Return those of the rows of one shard."""
        rows = slice(int(self.starts[number]), int(self.starts[number + 1]))
        starts = np.array([0, rows.stop - rows.start])
        parts = (self.kept[rows], self.split[rows], self.group[rows], self.keys[rows])
        return Decisions(starts, *parts, self.counts)

    def save(self, folder: Path) -> None:
        """Write the arrays, for workers to map, and bank members by group."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("starts", "kept", "split", "group", "keys"):
            np.save(folder / f"{name}.npy", getattr(self, name))
        members = np.flatnonzero(self.kept & (self.split == TRAIN))
        members = members[np.lexsort((self.keys[members], self.group[members]))]
        np.save(folder / "member_groups.npy", self.group[members])
        np.save(folder / "member_keys.npy", self.keys[members])

    @classmethod
    def open(cls, folder: Path) -> Decisions:
        """Map the arrays that `save` wrote."""
        names = ("starts", "kept", "split", "group", "keys")
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in names), counts={})


class Members:
    """The bank's documents of each group, in files that all workers map."""

    def __init__(self, folder: Path, decisions: Decisions) -> None:
        self._groups = np.load(folder / "member_groups.npy", mmap_mode="r")
        self._keys = np.load(folder / "member_keys.npy", mmap_mode="r")
        own = decisions.keys[decisions.kept].tolist(), decisions.group[decisions.kept].tolist()
        self._group_of = dict(zip(*own, strict=True))

    def __call__(self, key: int) -> list[int]:
        """Return the keys of the documents in the group of one of the shard's pairs."""
        group = self._group_of[key]
        start, stop = (np.searchsorted(self._groups, group, side) for side in ("left", "right"))
        return self._keys[start:stop].tolist()


def pairs_of(work: Path, shard: int) -> pa.Table:
    """Return the rows that a shard was encoded to, mapped from their file."""
    paths = read_folder(encoded(work, shard), MANIFEST_NAME, COMPONENT)[1]
    return read_table(paths["pairs.arrow"])


def encoded(work: Path, shard: int) -> Path:
    """Return the sealed folder of an encoded shard."""
    return work / "encoded" / f"{shard:06}"


def decide(
    work: Path,
    shards: int,
    *,
    near_bits: int,
    drop_duplicates: bool,
    validation_share: float,
    test_share: float,
    seed: int,
) -> Decisions:
    """Decide for all rows of all shards; a function of the rows and their order alone.

    Args:
        work: Holds the encoded shards.
        shards: Their number.
        near_bits: As of `near_copies`.
        drop_duplicates: Whether of copies only the first picture is kept.
        validation_share: Share of the groups, where no split is given.
        test_share: Likewise.
        seed: Which groups.

    Raises:
        DataError: No pair is left, a split is empty, or some rows have a split and others none.
    """
    columns, starts = _index(work, shards)
    keys, names, contents, groups, hashes, split = (columns[name] for name in COLUMNS)
    kept = np.zeros(len(keys), bool)
    kept[np.unique(keys, return_index=True)[1]] = True
    counts = {"repeated": int(len(keys) - kept.sum())}
    copy = _copies(names, hashes, near_bits)
    counts["near_duplicates"] = len(np.unique(names[copy & kept]))
    if drop_duplicates:
        kept &= ~copy
    if not kept.any():
        raise DataError("wanted at least one usable pair, got none; see quarantine.jsonl")
    group = np.zeros(len(keys), np.int64)
    group[kept] = _joined(contents[kept], groups[kept])
    given = split[kept] != NO_SPLIT
    if given.any() and not given.all():
        raise DataError("wanted a split for every record or for none, got it for some")
    if not given.any():
        split[kept] = _drawn(group[kept], validation_share, test_share, seed)
    else:
        held_out = np.isin(split, [SPLITS.index(name) for name in HELD_OUT])
        sides = np.isin(group[kept & held_out], group[kept & (split == TRAIN)])
        counts["held_out_pairs_of_training_groups"] = int(sides.sum())
    for name in ("train", "validation", "test"):
        if not (kept & (split == SPLITS.index(name))).any():
            raise DataError(
                f"wanted pairs in train, validation and test, got none in {name}; of "
                f"{int(kept.sum())} usable pairs in {len(np.unique(group[kept]))} groups"
            )
    return Decisions(starts, kept, split, group, keys, counts)


def _index(work: Path, shards: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
    lengths = [0]
    for shard in range(shards):
        table = pairs_of(work, shard)
        lengths.append(table.num_rows)
        for name in COLUMNS:
            parts[name].append(table.column(name).to_numpy())
    return {name: np.concatenate(found) for name, found in parts.items()}, np.cumsum(lengths)


def _copies(names: np.ndarray, hashes: np.ndarray, bits: int) -> np.ndarray:
    """Tell which rows (N,) are of a picture that is a near copy of an earlier one.

    Captions of one picture share its name, and are no copies of each other.
    """
    _, first, picture = np.unique(names, return_index=True, return_inverse=True)
    cluster = near_copies(hashes[first], bits)
    earliest = np.full(cluster.max(initial=-1) + 1, len(names))
    np.minimum.at(earliest, cluster, first)
    return (first > earliest[cluster])[picture]


def _joined(contents: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return a number (N,) for all rows that share a file's bytes or a group, and what they share.

    It is the smallest group's, so it does not depend on the order of the rows.
    """
    _, files = np.unique(contents, return_inverse=True)
    named, groups = np.unique(groups, return_inverse=True)
    nodes = int(files.max()) + 1 + len(named)
    ones = np.ones(len(files), np.int8)
    edges = coo_array((ones, (files, int(files.max()) + 1 + groups)), shape=(nodes, nodes))
    labels = connected_components(edges, directed=False)[1][-len(named) :]
    smallest = np.full(labels.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(smallest, labels, named)
    return smallest[labels][groups]


def _drawn(group: np.ndarray, validation: float, test: float, seed: int) -> np.ndarray:
    """Draw a split for each group, by a hash of its number: no list of groups decides it."""
    place = mixed(group.astype(np.uint64) ^ mixed(np.array([seed], np.uint64))) / 2.0**64
    return np.select(
        [place < test, place < test + validation],
        [SPLITS.index("test"), SPLITS.index("validation")],
        TRAIN,
    ).astype(np.uint8)


def mixed(values: np.ndarray) -> np.ndarray:
    """Mix the bits of uint64: SplitMix64 (doi:10.1145/2714064.2660195)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def sampled(decisions: Decisions, count: int) -> np.ndarray:
    """Return the rows of `count` pairs of each split: of the smallest keys, which are hashes."""
    rows: Sequence[np.ndarray] = [
        found[np.argsort(decisions.keys[found], kind="stable")[:count]]
        for found in (
            np.flatnonzero(decisions.kept & (decisions.split == place))
            for place in range(len(SPLITS))
        )
    ]
    return np.sort(np.concatenate(rows))
