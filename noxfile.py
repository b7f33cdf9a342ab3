"""What CI runs: ``uv run nox``. One session alone: ``uv run nox -s "tests(cm3-model)"``.

``tests`` builds one package's wheel and runs that package's tests where nothing else of ours is
installed. All other sessions run in the project's own environment, the one that runs nox.
"""

import sys
import tomllib
from pathlib import Path
from typing import Any

import nox

ROOT = Path(__file__).parent
BIN = Path(sys.executable).parent  # the project's environment
PACKAGES = sorted(folder.name for folder in (ROOT / "packages").glob("cm3-*"))
APPS = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / "apps").glob("*.py")
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
)

# What a package's tests compare it with, and the package itself does not need; no test is skipped
# there for want of it.
PEERS = {
    "cm3-decoding": ("transformers",),
    "cm3-imagetok": ("lpips", "scikit-image", "transformers"),
    "cm3-model": ("transformers",),
}

nox.options.sessions = ["lint", "types", "tests", "integration", "apps", "docs"]

# Run in the fresh environment: the wheel itself is under test, and no other package is at hand.
ALONE = """
import sys
from importlib.util import find_spec
mine, *others = sys.argv[1:]
origin = find_spec(mine).origin
assert origin.startswith(sys.prefix), f"{mine} comes from {origin}, not from the wheel"
present = [name for name in others if find_spec(name)]
assert not present, f"{present} installed beside {mine}"
"""


def run(session: nox.Session, tool: str, *args: str) -> None:
    """Run a tool of the project's environment."""
    session.run(str(BIN / tool), *args, external=True)


def metadata(package: str) -> dict[str, Any]:
    """A package's [project] table."""
    text = (ROOT / "packages" / package / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["project"]


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Format, lint rules, and the boundaries between the packages."""
    run(session, "ruff", "format", "--check", ".")
    run(session, "ruff", "check", ".")
    run(session, "lint-imports", "--no-logo", "--no-cache")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Pyright on the packages' sources and the apps."""
    run(session, "pyright", "--pythonpath", sys.executable)


@nox.session(venv_backend="uv")
@nox.parametrize("package", PACKAGES, ids=PACKAGES)
def tests(session: nox.Session, package: str) -> None:
    """One package's wheel, installed alone in a fresh environment, and that package's tests."""
    dist = Path(session.create_tmp()) / "dist"
    for stale in dist.glob("*.whl"):
        stale.unlink()
    build = ("uv", "build", "--quiet", "--wheel", "--package", package, "--out-dir", str(dist))
    session.run(*build, external=True)
    (wheel,) = dist.glob("*.whl")
    # uv reads the pins from [tool.uv] constraint-dependencies, since we stand in the project's root
    extras = ",".join(metadata(package).get("optional-dependencies", {}))
    under_test = f"{wheel}[{extras}]" if extras else str(wheel)
    session.install(under_test, "pytest", "hypothesis", *PEERS.get(package, ()))
    mine = package.replace("-", "_")
    others = [name.replace("-", "_") for name in PACKAGES if name != package]
    session.run("python", "-I", "-c", ALONE, mine, *others, silent=True)
    with session.chdir(ROOT / "packages" / package):
        session.run("pytest", *session.posargs)


@nox.session(venv_backend="none")
def integration(session: nox.Session) -> None:
    """The packages together: tests/."""
    run(session, "pytest", "tests", "-m", "not apps", *session.posargs)


@nox.session(venv_backend="none")
def apps(session: nox.Session) -> None:
    """Each app answers --help and takes one short step."""
    for app in APPS:
        session.run(sys.executable, str(app), "--help", external=True, silent=True)
    run(session, "pytest", "tests", "-m", "apps", *session.posargs)


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """The documentation, every warning an error."""
    run(session, "sphinx-build", "-W", "--keep-going", "-q", "docs", "docs/_build/html")
