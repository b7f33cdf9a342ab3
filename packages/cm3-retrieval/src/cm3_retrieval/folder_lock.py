"""One writer at a time in a folder; readers need no lock.

Takes a folder; holds a lock on it for a `with` block. The lock is the operating system's, so it
ends with the process that holds it, however that ends.
"""

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LOCK_NAME = ".lock"
"""The lock's file, there only while someone writes or after a writer was killed."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""What a file system without locks answers; writers are then on their own."""

_held = threading.local()


@contextmanager
def locked(folder: Path | str) -> Iterator[IO[str]]:
    """Wait until no other process and no other thread writes in `folder`, then hold its lock.

    A thread that holds the lock may take it again.

    Args:
        folder: The folder; made if missing.

    Yields:
        The lock's file. A writer notes in it what the next one has to clean up if it is killed;
        with no note left it is removed.

    Raises:
        OSError: The folder cannot be written.
    """
    path = Path(folder).resolve() / LOCK_NAME
    files: dict[tuple[int, Path], IO[str]] = _held.__dict__.setdefault("files", {})
    holder = os.getpid(), path  # a forked child does not hold its parent's locks
    if holder in files:
        yield files[holder]
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _acquired(path) as file:
        files[holder] = file
        try:
            yield file
        finally:
            del files[holder]
            if not os.fstat(file.fileno()).st_size:
                path.unlink(missing_ok=True)  # while locked: whoever waits sees that it is gone


def _acquired(path: Path) -> IO[str]:
    """Open and lock the file; open anew if its last holder has removed it in the meantime."""
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                file.close()
                raise
            return file
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()
