"""A path that libraries can open which take no other names than UTF-8.

Takes any path; gives one in UTF-8 to the same file, for a `with` block. A file name on Linux is any
bytes; FAISS and safetensors refuse those that are not UTF-8.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def utf8_path(path: Path | str) -> Iterator[str]:
    """Yield the path itself, or a link to its file from a temporary folder."""
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / "link"
            link.symlink_to(Path(path).resolve())
            yield str(link)
    else:
        yield name
