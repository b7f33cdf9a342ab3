"""A directive for the API reference: `.. public-names:: cm3_decoding`.

Lists a package's public names under the modules that define them, in the order of the stub, and
then the names of its `interface` and `contract`. sphinx.ext.autodoc writes each entry.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from public_names import public_names
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

# The roles and the checks to run on one's own class: public, but no names of the package itself.
WHOLE_MODULES = ("interface", "contract")


def grouped(package: str, sources: Path) -> dict[str, list[tuple[str, str]]]:
    """Map each module to its public names, each with the module to take it from."""
    groups: dict[str, list[tuple[str, str]]] = {}
    named = public_names(sources)
    for name, module in named.items():
        groups.setdefault(module, []).append((package, name))
    for module in WHOLE_MODULES:
        path = f"{package}.{module}"
        defined = [
            (path, name)
            for name, value in vars(importlib.import_module(path)).items()
            if getattr(value, "__module__", None) == path
            and not name.startswith("_")
            and name not in named
        ]
        if defined:
            groups.setdefault(module, []).extend(defined)
    return groups


def entry(path: str, name: str, defined_in: str) -> Iterator[str]:
    """Give the lines of reStructuredText that document one name."""
    value: Any = getattr(importlib.import_module(path), name)
    if inspect.isclass(value):
        kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
        yield from (f".. {kind}:: {path}.{name}", "   :members:")
        if value.__bases__ != (object,):
            yield "   :show-inheritance:"
    elif inspect.isroutine(value):
        yield f".. autofunction:: {path}.{name}"
    else:  # autodoc looks for the text beside the import, where there is none
        yield from (f".. py:data:: {path}.{name}", "")
        docs = ModuleAnalyzer.for_module(defined_in).find_attr_docs().get(("", name), [])
        yield from (f"   {line}" for line in docs)
    yield ""


class PublicNames(SphinxDirective):
    """The public names of one package."""

    required_arguments = 1
    option_spec: ClassVar = {}

    def run(self) -> list[nodes.Node]:
        """Write the sections of the package's modules."""
        (package,) = self.arguments
        sources = Path(inspect.getfile(importlib.import_module(package))).parent
        lines = []
        for module, names in grouped(package, sources).items():
            path = f"{package}.{module}"
            headline = (importlib.import_module(path).__doc__ or "").strip().splitlines()[0]
            lines += [path, "-" * len(path), "", headline, ""]
            for taken_from, name in names:
                lines += entry(taken_from, name, path)
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def keep_colons(app: Sphinx, what: str, *others: Any) -> None:
    """Keep napoleon from taking "Number of ids: text and codes" for a type and its description."""
    if what in {"attribute", "data", "property"}:
        lines: list[str] = others[-1]
        lines[:0] = ["..", ""]  # an empty comment, whose line napoleon looks at instead


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("public-names", PublicNames)
    app.connect("autodoc-process-docstring", keep_colons, priority=100)  # before napoleon's
    return {"parallel_read_safe": True}
