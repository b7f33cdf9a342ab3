"""What still stands between this tree and a tag; it is said, and stops nothing.

`python release/before_a_tag.py` reads the changelogs, the READMEs and the metadata.
"""

from __future__ import annotations

import re
import sys
from datetime import date

from api_changes import git
from distributions import ROOT, Distribution, distributions


def unreleased(changelog: str) -> list[str]:
    """List the lines of a changelog that stand under "Unreleased"."""
    found = re.search(r"^## Unreleased$(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    return re.findall(r"^- .*$", found[1], re.MULTILINE) if found else []


def left_to_do(given: list[Distribution], tags: list[str]) -> list[str]:
    """Say, one line each, what has to be done before the version is tagged."""
    lines = []
    version = given[-1].project["version"]
    if f"v{version}" in tags:
        lines.append(f"v{version} is tagged: raise the version")
    for one in given:
        changelog = one.changelog.read_text(encoding="utf-8") if one.changelog else None
        if changelog is not None and (waiting := len(unreleased(changelog))):
            lines.append(f"{one.name}: {waiting} unreleased changes, to stand under a version")
        if changelog is not None and f"## {version}" not in changelog:
            lines.append(f"{one.name}: the changelog does not know version {version}")
        if "Repository" not in one.project["urls"]:
            lines.append(f"{one.name}: [project.urls] names no Repository")
        readme = (one.folder / "README.md").read_text(encoding="utf-8")
        if "not on PyPI" in readme:
            lines.append(f"{one.name}: the README says that it is not on PyPI")
        if relative := re.findall(r"\]\((?!https?:|#|mailto:)([^)]+)\)", readme):
            lines.append(
                f"{one.name}: {len(relative)} links of the README lead nowhere on an index"
            )
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    if f"version: {version}" not in citation or f"date-released: {date.today()}" not in citation:
        lines.append(f"CITATION.cff: wanted version {version} and date-released {date.today()}")
    return lines


def main() -> int:
    """Run; gives the exit status."""
    lines = left_to_do(distributions(), git(ROOT, "tag", "--list").split())
    print("before a tag:" if lines else "ready to be tagged")
    print("\n".join(f"  {line}" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
