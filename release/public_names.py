"""Which names of a package are public: those that its `__init__` imports from its own modules.

The stub `__init__.pyi` says it where there is one, since such a package imports each name when it
is first used. Read from the source: nothing is imported.
"""

from __future__ import annotations

import ast
from pathlib import Path


def public_names(sources: Path) -> dict[str, str]:
    """Map each public name to the module that defines it, such as CodeBlock to "segments"."""
    stub = sources / "__init__.pyi"
    path = stub if stub.is_file() else sources / "__init__.py"
    names = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        package, _, module = node.module.partition(".")
        if node.level == 1:
            module = node.module
        elif package != sources.name:
            continue
        names |= {alias.asname or alias.name: module for alias in node.names}
    return names
