"""What is released: seven distributions, and what the wheel and the sdist of each must hold.

`python release/distributions.py dist` checks a folder that `uv build --all-packages` filled: one
wheel and one sdist of each, complete metadata, every source file, no file of others.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from packaging.metadata import InvalidMetadata, Metadata
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """One of the seven: the six packages, and the composition, which is the root's."""

    folder: Path
    """Where its pyproject.toml is."""
    sources: Path
    """The importable package's folder."""
    project: dict[str, Any]
    """The [project] table."""

    @property
    def name(self) -> str:
        """The name to install by, such as cm3-model."""
        return self.project["name"]

    @property
    def module(self) -> str:
        """The name to import by, such as cm3_model."""
        return self.sources.name

    @property
    def stem(self) -> str:
        """What its files begin with, such as cm3_model-0.1.0."""
        return f"{self.module}-{self.project['version']}"

    @property
    def changelog(self) -> Path | None:
        """The file of changes; the composition has none."""
        path = self.folder / "CHANGELOG.md"
        return path if path.is_file() else None


def distributions(root: Path = ROOT) -> list[Distribution]:
    """List the six packages and then the composition."""
    found = []
    for folder in [*sorted((root / "packages").glob("cm3-*")), root]:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        module = project["name"].replace("-", "_")
        sources = folder / ("apps" if folder == root else "src") / module
        found.append(Distribution(folder=folder, sources=sources, project=project))
    return found


def version_faults(given: list[Distribution]) -> list[str]:
    """Tell where the seven versions, or what the composition requires of the six, disagree."""
    versions = {one.name: one.project["version"] for one in given}
    faults = []
    if len(set(versions.values())) > 1:
        faults.append(f"wanted one version of all, got {versions}")
    wanted = {
        Requirement(text).name: Requirement(text) for text in given[-1].project["dependencies"]
    }
    for one in given[:-1]:
        version, required = one.project["version"], wanted[one.name].specifier
        if str(required) != f"~={version.rsplit('.', 1)[0]}.0":
            faults.append(f"{given[-1].name} requires {one.name} {required} beside its {version}")
    return faults


def metadata_faults(one: Distribution, text: bytes) -> list[str]:
    """Tell what the METADATA of a wheel, or the PKG-INFO of an sdist, lacks."""
    try:
        said = Metadata.from_email(text)
    except (InvalidMetadata, ExceptionGroup) as error:
        return [f"{one.name}: the metadata breaks the standard: {error}"]
    must = {
        "name": said.name == one.name,
        "version": str(said.version) == one.project["version"],
        "summary": bool(said.summary),
        "readme": bool(said.description) and said.description_content_type == "text/markdown",
        "license": said.license_expression == "Apache-2.0",
        "license files": {"LICENSE", *one.project["license-files"]}
        <= set(said.license_files or []),
        "authors": bool(said.author),
        "keywords": bool(said.keywords),
        "requires-python": said.requires_python is not None,
        "urls": bool(said.project_urls),
        "classifiers": {"Typing :: Typed", "Programming Language :: Python :: 3.11"}
        <= set(said.classifiers or []),
    }
    return [f"{one.name}: the metadata lacks: {name}" for name, there in must.items() if not there]


def wheel_faults(one: Distribution, path: Path) -> list[str]:
    """Tell what a wheel lacks, and what it should not hold."""
    with zipfile.ZipFile(path) as wheel:
        names = {name for name in wheel.namelist() if not name.endswith("/")}
        text = wheel.read(f"{one.stem}.dist-info/METADATA")
    wanted = {
        (PurePosixPath(one.module) / file.relative_to(one.sources)).as_posix()
        for file in one.sources.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    wanted.add(f"{one.module}/py.typed")
    others = {name for name in names if not name.startswith((f"{one.module}/", f"{one.stem}."))}
    licences = f"{one.stem}.dist-info/licenses/LICENSE"
    return [
        *metadata_faults(one, text),
        *(f"{path.name} lacks {name}" for name in sorted({*wanted, licences} - names)),
        *(f"{path.name} should not hold {name}" for name in sorted(others)),
    ]


def sdist_faults(one: Distribution, path: Path) -> list[str]:
    """Tell what an sdist lacks."""
    with tarfile.open(path) as sdist:
        names = {member.name for member in sdist.getmembers()}
        unpacked = sdist.extractfile(f"{one.stem}/PKG-INFO")
        text = unpacked.read() if unpacked else b""
    changelog = ["CHANGELOG.md"] if one.changelog else []
    wanted = {
        f"{one.stem}/{name}" for name in ("LICENSE", "README.md", "pyproject.toml", *changelog)
    }
    return [
        *metadata_faults(one, text),
        *(f"{path.name} lacks {name}" for name in sorted(wanted - names)),
    ]


def faults(dist: Path, given: list[Distribution]) -> list[str]:
    """Tell all that is wrong with a folder of built files."""
    wheels = {dist / f"{one.stem}-py3-none-any.whl": one for one in given}
    sdists = {dist / f"{one.stem}.tar.gz": one for one in given}
    built = {path for pattern in ("*.whl", "*.tar.gz") for path in dist.glob(pattern)}
    found = version_faults(given)
    found += [f"{path.name} was not built" for path in sorted({*wheels, *sdists} - built)]
    found += [f"{path.name} is none of ours" for path in sorted(built - {*wheels, *sdists})]
    for path in sorted(built & wheels.keys()):
        found += wheel_faults(wheels[path], path)
    for path in sorted(built & sdists.keys()):
        found += sdist_faults(sdists[path], path)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", type=Path, help="folder of wheels and sdists")
    given = distributions()
    wrong = faults(parser.parse_args(arguments).dist, given)
    print("\n".join(wrong) or f"{len(given)} wheels and {len(given)} sdists are complete")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
