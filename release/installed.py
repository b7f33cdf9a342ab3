"""Run in a fresh environment: what was installed is the wheel, and its public names are there.

`python -I release/installed.py cm3_model --absent cm3_train cm3leon`. A module's public names are
its `__all__`; each is taken, which imports what it needs. The commands of the distribution, too.
A module without `__all__` is a composition: each of its modules is imported.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import re
import sys
from importlib.metadata import Distribution, distribution
from importlib.util import find_spec
from pathlib import Path


def check(name: str) -> str:
    """Import all that a distribution offers, and say what there was."""
    module = importlib.import_module(name)
    assert module.__file__ is not None and module.__file__.startswith(sys.prefix), (
        f"{name} comes from {module.__file__}, not from the wheel"
    )
    assert (Path(module.__file__).parent / "py.typed").is_file(), f"{name} has no py.typed"
    there = distribution(name)
    commands = [entry for entry in there.entry_points if entry.group == "console_scripts"]
    for command in commands:
        command.load()
    if hasattr(module, "__all__"):
        names = list(module.__all__)
        for public in names:
            getattr(module, public)
    else:
        names, extras = [], extra_modules(there)
        for found in pkgutil.walk_packages(module.__path__, f"{name}."):
            try:
                importlib.import_module(found.name)
            except ModuleNotFoundError as error:
                if error.name not in extras:
                    raise
                print(f"{found.name} wants an extra: {error.name}")
            else:
                names.append(found.name)
    return f"{name} {there.version}: {len(names)} names, {len(commands)} commands"


def extra_modules(installed: Distribution) -> set[str]:
    """Name the modules that only an extra of a distribution brings."""
    wanted = [text for text in installed.requires or [] if "extra ==" in text]
    return {re.split(r"[^\w.-]", text)[0].replace("-", "_") for text in wanted}


def main(arguments: list[str] | None = None) -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="+", help="modules that must be there")
    parser.add_argument("--absent", nargs="*", default=[], help="modules that must not be there")
    given = parser.parse_args(arguments)
    present = [name for name in given.absent if find_spec(name)]
    assert not present, f"{present} installed beside {given.modules}"
    for name in given.modules:
        print(check(name))


if __name__ == "__main__":
    main()
