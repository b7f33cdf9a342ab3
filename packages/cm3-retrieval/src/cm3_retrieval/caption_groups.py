"""Pictures with several captions, and captions with several pictures, as groups."""

from collections.abc import Sequence


def groups_of(captions: Sequence[str], files: Sequence[str]) -> list[int]:
    """Return a group for each (caption, file): one for all that share a file or a caption.

    The pairs are edges between files and captions; a group is what they connect.
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        while (above := parent.setdefault(node, node)) != node:
            parent[node] = node = parent[above]
        return node

    pairs = [(("caption", c), ("file", f)) for c, f in zip(captions, files, strict=True)]
    for caption, file in pairs:
        parent[root(caption)] = root(file)
    numbers: dict[tuple[str, str], int] = {}
    return [numbers.setdefault(root(file), len(numbers)) for _, file in pairs]
