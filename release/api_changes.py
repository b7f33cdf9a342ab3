"""The public API beside the last tag's: what a user's code would stumble over.

`python release/api_changes.py` compares by griffe, which reads sources and imports nothing. A
breaking change is an error unless the version rose as CONTRIBUTING.md says: before 1.0 its minor
part, from then on its major part.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import griffe
from distributions import ROOT, Distribution, distributions
from packaging.version import InvalidVersion, Version
from public_names import public_names

# Of a package, what its __init__ names is public, and these modules whole. Of the composition, what
# the documentation tells users to import.
PUBLIC_MODULES = ("interface", "contract")
COMPOSITION = "cm3leon"
COMPOSITION_NAMES = (
    "parts.open_parts",
    "drawing.draw.draw",
    "evaluation.tasks.interface.EvaluationTask",
)


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something that users of the API notice."""

    text: str
    """What changed, in one line."""
    breaking: bool
    """Whether code that worked may no longer work."""


def git(root: Path, *args: str) -> str:
    """Run git in the repository and give what it prints."""
    done = subprocess.run(["git", *args], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def last_tag(root: Path) -> str | None:
    """Give the highest version tag (v0.2.0) of the commits before this one."""
    here = set(git(root, "tag", "--points-at", "HEAD").split())
    earlier: dict[Version, str] = {}
    for tag in git(root, "tag", "--merged", "HEAD", "--list", "v*").split():
        try:
            version = Version(tag)
        except InvalidVersion:
            continue
        if tag not in here:
            earlier[version] = tag
    return earlier[max(earlier)] if earlier else None


def sources_of(root: Path, tag: str, folder: Path) -> None:
    """Write the packages and the apps of a tag into a folder; the repository is only read."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", tag], cwd=root, check=True, capture_output=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], check=True, input=archive.stdout)


def public(one: Distribution) -> griffe.Module:
    """Give a module that holds a distribution's public names and nothing else."""
    package = griffe.load(one.module, search_paths=[one.sources.parent], allow_inspection=False)
    assert isinstance(package, griffe.Module)
    if one.module == COMPOSITION:
        paths = [path for path in COMPOSITION_NAMES if is_in(package, path)]
    else:
        paths = [f"{module}.{name}" for name, module in public_names(one.sources).items()]
        paths += [name for name in PUBLIC_MODULES if name in package.members]
    shown = griffe.Module(one.module)
    for path in paths:
        alias = griffe.Alias(path.rsplit(".", 1)[-1], package[path], parent=shown)
        alias.public = True
        shown.members[alias.name] = alias
    return shown


def is_in(package: griffe.Module, path: str) -> bool:
    """Tell whether a dotted path leads to an object of a package."""
    try:
        package[path]
    except KeyError:
        return False
    return True


def changes(old: Path, new: Path) -> list[Change]:
    """Compare the API of two trees of this repository."""
    before = {one.name: one for one in distributions(old)}
    now = {one.name: one for one in distributions(new)}
    said = [Change(text=f"{name} is gone", breaking=True) for name in before.keys() - now.keys()]
    said += [Change(text=f"{name} is new", breaking=False) for name in now.keys() - before.keys()]
    for name in sorted(before.keys() & now.keys()):
        was, being = public(before[name]), public(now[name])
        for breakage in griffe.find_breaking_changes(was, being):
            line = breakage.explain(griffe.ExplanationStyle.MARKDOWN).removeprefix("- ")
            said.append(Change(text=f"{name}: {line}", breaking=True))
        for added in sorted(being.members.keys() - was.members.keys()):
            said.append(Change(text=f"{name}: `{added}` is new", breaking=False))
    return said


def too_little(before: Version, now: Version, said: list[Change]) -> str | None:
    """Say which version the changes ask for, if the version has not risen so far."""
    if now < before:
        return f"version {now} is below the last tag's, {before}"
    major, minor = before.major, before.minor
    if any(change.breaking for change in said):
        wanted = Version(f"{major + 1}.0.0" if major else f"0.{minor + 1}.0")
    elif said:
        wanted = Version(f"{major}.{minor + 1}.0" if major else f"0.{minor}.{before.micro + 1}")
    else:
        return None
    return f"wanted version {wanted} or higher, got {now}" if now < wanted else None


def main(arguments: list[str] | None = None) -> int:
    """Run; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="repository; default: this one")
    root = parser.parse_args(arguments).root
    tag = last_tag(root)
    if tag is None:
        shallow = git(root, "rev-parse", "--is-shallow-repository") == "true"
        hint = " (a shallow clone: its tags may be missing)" if shallow else ""
        print(f"no earlier tag: nothing to compare{hint}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        sources_of(root, tag, Path(folder))
        said = changes(Path(folder), root)
    print(f"since {tag}: {len(said)} changes of the public API")
    for change in said:
        print(f"  {'breaking' if change.breaking else 'addition'}: {change.text}")
    versions = {one.project["version"] for one in distributions(root)}
    wrong = too_little(Version(tag), min(map(Version, versions)), said)
    if wrong:
        print(wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
