"""Parts that a recipe names by their class: `{class_path: package.Class, init_args: {...}}`.

Who names a class runs its code, and whoever wrote a run's folder wrote its recipe. So without trust
nothing is imported or called but what the six packages have to offer: their classes that keep the
role's Protocol, and their functions that load one.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

PACKAGES = (
    "cm3_decoding", "cm3_imagetok", "cm3_model", "cm3_retrieval", "cm3_texttok", "cm3_train",
)  # fmt: skip


def part_of(spec: dict[str, Any], role: str, protocol: type, *, trust: bool) -> Any:
    """Make the part that a recipe names.

    With trust any callable will do; jsonargparse's own loader takes subclasses of a base class
    alone, and our Protocols have none.

    Args:
        spec: `class_path`, and `init_args` where it takes some.
        role: What the recipe calls the part, for errors: `retrieval.encoder`.
        protocol: What the part must keep.
        trust: Whether the recipe may run code of others.

    Raises:
        ValueError: There is no such callable, it does not take the arguments, what it makes does
            not keep the Protocol, or it is no part of ours and there is no trust.
    """
    path, arguments = spec.get("class_path", ""), spec.get("init_args") or {}
    if not trust and str(path).split(".")[0] not in PACKAGES:
        raise _untrusted(role, path)
    make = callable_of(spec, role)
    if not trust and not _is_ours(make, protocol):
        raise _untrusted(role, path)
    part = make(**arguments)
    missing = _missing(part, _members(protocol))
    if missing:
        raise ValueError(
            f"{role}: wanted what keeps {protocol.__module__}.{protocol.__name__}, "
            f"got {path!r} without {', '.join(missing)}"
        )
    return part


def callable_of(spec: dict[str, Any], role: str) -> Callable[..., Any]:
    """Import the callable that a recipe names, and see that it takes the arguments; call nothing.

    Raises:
        ValueError: There is no such callable, or it does not take the arguments.
    """
    path, arguments = spec.get("class_path", ""), spec.get("init_args") or {}
    module, _, name = str(path).rpartition(".")
    try:
        make = getattr(importlib.import_module(module), name)
        inspect.signature(make).bind(**arguments)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(
            f"{role}: class_path: wanted package.Class, got {path!r} with {arguments} ({error})"
        ) from None
    return make


def fingerprint_of_part(spec: dict[str, Any]) -> str:
    """Return what a named part is made from: class, arguments, and the files that they name."""
    files, arguments = [], spec.get("init_args")
    for value in arguments.values() if isinstance(arguments, dict) else []:
        path = Path(value) if isinstance(value, str) else None
        if path is not None and path.exists():
            inside = sorted(path.rglob("*")) if path.is_dir() else [path]
            files += [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in inside]
    return json.dumps([spec, files], sort_keys=True)


def _untrusted(role: str, path: object) -> ValueError:
    return ValueError(
        f"{role}: this run names {path!r}, code of others, which opening it would run; "
        "wanted --trust (trust=True) if you know who made the run, or a part of our packages"
    )


def _is_ours(make: Any, protocol: type) -> bool:
    """Tell a class of the six packages that keeps a Protocol, and a function that loads one."""
    loads = inspect.isfunction(make) and make.__name__.startswith("load_")
    kind = get_type_hints(make).get("return") if loads else make
    # a module of ours holds names of others, too, such as those of the standard library
    modules = [getattr(thing, "__module__", None) or "" for thing in (make, kind)]
    ours = all(module.split(".")[0] in PACKAGES for module in modules)
    return ours and inspect.isclass(kind) and not _missing(kind, _members(protocol, callable))


def _members(protocol: type, kind: Callable[[Any], bool] = lambda member: True) -> list[str]:
    return [name for name, member in vars(protocol).items() if name[0] != "_" and kind(member)]


def _missing(thing: Any, names: list[str]) -> list[str]:
    # a property found so is not computed: it may hash weights
    nothing = object()
    return [
        name
        for name in names
        if inspect.getattr_static(thing, name, nothing) is nothing and not hasattr(thing, name)
    ]
