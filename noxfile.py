"""What CI runs: `uv run nox`. One session alone: `uv run nox -s "tests(cm3-model)"`.

The default, `ci`, runs all sessions but `release` side by side. `tests` builds one package's wheel
and runs that package's tests where nothing else of ours is installed. `release` builds what is
published. All other sessions run in the project's own environment, the one that runs nox.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor, as_completed
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

# The tutorials' test, which is the docs session's work.
TUTORIALS = ROOT / "tests" / "test_tutorials.py"

# What a package's tests compare it with, and the package itself does not need; no test is skipped
# there for want of it.
PEERS = {
    "cm3-decoding": ("transformers",),
    "cm3-imagetok": ("lpips", "scikit-image", "transformers"),
    "cm3-model": ("transformers",),
}

# The longest first, so that none is left over when the others are done.
SIDE_BY_SIDE = ["integration(p)", "apps", "integration(q-z)", "integration(a-o)"]
SIDE_BY_SIDE += ["tests(cm3-train)", "docs"]
SIDE_BY_SIDE += [f"tests({name})" for name in PACKAGES if name != "cm3-train"]
SIDE_BY_SIDE += ["types", "lint"]

# Threads of PyTorch's wait for each other in busy loops: on small tensors, with other work on the
# same cores, two take up to five times the CPU seconds of one.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}

INSTALLED = str(ROOT / "release" / "installed.py")

nox.options.sessions = ["ci"]

# With `-I` an app runs the installed composition, not the one that lies beside it.
APP = """
import runpy, sys
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

# Each app in turn, in one process: what they import takes far longer than --help.
HELP = """
import runpy, sys
for app in sys.argv[1:]:
    sys.argv = [app, "--help"]
    try:
        runpy.run_path(app, run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
"""


def run(
    session: nox.Session,
    tool: str,
    *args: str,
    silent: bool = False,
    success: tuple[int, ...] = (0,),
) -> None:
    """Run a tool of the project's environment."""
    command = str(BIN / tool), *args
    session.run(*command, external=True, silent=silent, env=ONE_THREAD, success_codes=success)


def metadata(package: str) -> dict[str, Any]:
    """Read a package's [project] table."""
    text = (ROOT / "packages" / package / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["project"]


def modules(package: str) -> list[str]:
    """Give what release/installed.py is asked: the package is there, and no other of ours."""
    others = [name.replace("-", "_") for name in (*PACKAGES, "cm3leon") if name != package]
    return [package.replace("-", "_"), "--absent", *others]


def alone(name: str, posargs: list[str]) -> tuple[str, int, str]:
    """Run one session in a nox of its own; return its name, exit status and output."""
    command = [sys.executable, "-m", "nox", "--session", name, "--", *posargs]
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    done = subprocess.run(command, cwd=ROOT, stdout=pipe, stderr=both, text=True)
    return name, done.returncode, done.stdout


@nox.session(venv_backend="none")
def ci(session: nox.Session) -> None:
    """All the others, as many at a time as there are cores; each one's output, when it ends."""
    failed = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(alone, name, session.posargs) for name in SIDE_BY_SIDE]
        for job in as_completed(jobs):
            name, status, output = job.result()
            failed += [name] if status else []
            print(output, flush=True)
    if failed:
        session.error(f"failed: {', '.join(failed)}")


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
    session.run("python", "-I", INSTALLED, *modules(package), silent=True)
    with session.chdir(ROOT / "packages" / package):
        session.run("pytest", *session.posargs, env=ONE_THREAD)


@nox.session(venv_backend="none")
@nox.parametrize("letters", ["a-o", "p", "q-z"], ids=["a-o", "p", "q-z"])
def integration(session: nox.Session, letters: str) -> None:
    """The packages together: tests/, in three parts, so that none is left over alone."""
    found = set((ROOT / "tests").glob(f"test_[{letters}]*.py")) - {TUTORIALS}
    files = sorted(map(str, found))
    success = (0, 5) if session.posargs else (0,)  # 5: -k has chosen tests of the other part alone
    run(session, "pytest", *files, "-m", "not apps", *session.posargs, success=success)


@nox.session(venv_backend="none")
def apps(session: nox.Session) -> None:
    """Each app answers --help and takes one short step."""
    run(session, "python", "-c", HELP, *map(str, APPS), silent=True)
    run(session, "pytest", "tests", "-m", "apps", *session.posargs)


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """The documentation, every warning an error, and the tutorials as a reader follows them."""
    run(session, "sphinx-build", "-W", "--keep-going", "-q", "docs", "docs/_build/html")
    success = (0, 5) if session.posargs else (0,)  # as in integration
    run(session, "pytest", str(TUTORIALS), *session.posargs, success=success)


@nox.session(venv_backend="none")
def release(session: nox.Session) -> None:
    """Into dist/: wheels and sdists of all, checked, installed alone and together, compared."""
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    build = ("uv", "build", "--quiet", "--all-packages", "--out-dir", str(dist))
    session.run(*build, external=True)  # an sdist, and the wheel from that sdist alone
    wheels, sdists = sorted(dist.glob("*.whl")), sorted(dist.glob("*.tar.gz"))
    run(session, "twine", "check", "--strict", *map(str, [*wheels, *sdists]))
    run(session, "python", "release/distributions.py", "dist")
    run(session, "python", "release/api_changes.py")
    for package in PACKAGES:
        (wheel,) = dist.glob(f"{package.replace('-', '_')}-*.whl")
        fresh(session, [wheel], modules(package))
    python = fresh(session, wheels, [name.replace("-", "_") for name in (*PACKAGES, "cm3leon")])
    (archive,) = dist.glob("cm3leon-*.tar.gz")
    unpacked = Path(session.create_tmp()).resolve() / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    shutil.unpack_archive(archive, unpacked, filter="data")
    with session.chdir(unpacked / archive.name.removesuffix(".tar.gz")):
        app = (python, "-I", "-c", APP, "apps/pretrain.py")
        smoke = ("--config", "apps/configs/smoke.yaml", "--runs", str(unpacked / "runs"))
        session.run(*app, *smoke, external=True, silent=True, env=ONE_THREAD)
        session.run(python, "-I", "-c", HELP, *map(str, APPS), external=True, silent=True)
    run(session, "python", "release/checksums.py", "dist")
    run(session, "python", "release/checksums.py", "dist", "--check")
    run(session, "python", "release/before_a_tag.py")


def fresh(session: nox.Session, wheels: list[Path], wanted: list[str]) -> str:
    """Install wheels in an environment of their own, take every public name; give its Python."""
    folder = Path(session.create_tmp()).resolve() / "fresh"
    python = str(folder / "bin" / "python")
    uv = ("uv", "--quiet")
    session.run(*uv, "venv", "--clear", "--python", sys.executable, str(folder), external=True)
    session.run(*uv, "pip", "install", "--python", str(folder), *map(str, wheels), external=True)
    session.run(python, "-I", INSTALLED, *wanted, external=True)
    return python
