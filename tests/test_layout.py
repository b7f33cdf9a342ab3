"""The repository's own rules: what each package ships, how files are named, who may import whom."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path for path in (ROOT / "packages").glob("cm3-*"))
APPS = sorted((ROOT / "apps").glob("*.py"))
MODULES = {package.name: package.name.replace("-", "_") for package in PACKAGES}
VAGUE = {"utils", "util", "common", "base", "helpers", "helper", "factory", "misc"}
COMMANDS = ["pip install uv && uv run python apps/pretrain.py", "pip install uv && uv run nox"]

each_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)


def source(package: Path) -> Path:
    return package / "src" / MODULES[package.name]


def imported(path: Path) -> set[str]:
    """Top-level names that a Python file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def requirement_name(requirement: str) -> str:
    """``open_clip_torch>=3,<4`` -> ``open-clip-torch``."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name.group()).lower()


def test_there_are_six_packages() -> None:
    assert len(PACKAGES) == 6


@each_package
@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "pyproject.toml"])
def test_package_ships(package: Path, name: str) -> None:
    assert (package / name).read_text(encoding="utf-8").strip()


@each_package
def test_package_is_typed_and_has_an_interface(package: Path) -> None:
    assert (source(package) / "py.typed").is_file()
    assert (source(package) / "contract.py").is_file()
    tree = ast.parse((source(package) / "interface.py").read_text(encoding="utf-8"))
    values = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert re.fullmatch(r"\d+\.\d+", str(values.get("INTERFACE_VERSION")))


@each_package
def test_changelog_names_the_version(package: Path) -> None:
    version = tomllib.loads((package / "pyproject.toml").read_text())["project"]["version"]
    assert version in (package / "CHANGELOG.md").read_text(encoding="utf-8")


@each_package
def test_every_requirement_has_a_pin(package: Path) -> None:
    """What a package needs is pinned in the root, so every machine runs the same versions."""
    root = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pins = {requirement_name(pin) for pin in root["tool"]["uv"]["constraint-dependencies"]}
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    wanted = {requirement_name(requirement) for requirement in project["dependencies"]}
    assert wanted - pins == set()


@pytest.mark.parametrize(
    ("name", "copies"), [("artifact", 5), ("picture_file", 2), ("text_file", 2), ("exit_status", 3)]
)
def test_the_copies_of_a_file_are_equal(name: str, copies: int) -> None:
    """No package imports another, so each has its own copy, and its own copy of the tests."""
    having = [package for package in PACKAGES if (source(package) / f"{name}.py").is_file()]
    assert len(having) == copies
    assert len({(source(package) / f"{name}.py").read_bytes() for package in having}) == 1
    tests = {package: (package / "tests" / f"test_{name}.py").read_text() for package in having}
    assert len({text.replace(MODULES[p.name], "cm3_x") for p, text in tests.items()}) == 1


def test_pictures_are_opened_by_one_reader() -> None:
    """What Pillow's own `open` makes of strangers' files differs, and may start a program."""
    files = [*(ROOT / "apps").rglob("*.py"), *(ROOT / "packages").glob("*/src/**/*.py")]
    texts = {path.name for path in files if "Image.open(" in path.read_text()}
    drawn = {"openmoji.py", "things.py", "recolouring.py"}  # these read what they drew themselves
    service = "pictures.py"  # under a service's own limits; a mask keeps its transparency
    assert texts == {"picture_file.py", service, *drawn}


@each_package
def test_tests_mirror_src(package: Path) -> None:
    parts = {path.stem for path in source(package).rglob("*.py")} - {"__init__", "interface"}
    tests = {path.stem.removeprefix("test_") for path in (package / "tests").rglob("test_*.py")}
    assert parts - tests == set()


@each_package
def test_package_imports_nothing_of_ours(package: Path) -> None:
    """Neither another package nor an app, in its sources and in its tests."""
    forbidden = {name for other, name in MODULES.items() if other != package.name}
    forbidden |= {"cm3leon"} | {app.stem for app in APPS}
    files = [*source(package).rglob("*.py"), *(package / "tests").rglob("*.py")]
    found = {
        str(path.relative_to(ROOT)): names
        for path in files
        if (names := imported(path) & forbidden)
    }
    assert found == {}


def test_an_app_parses_calls_and_prints() -> None:
    assert [app.name for app in APPS if len(app.read_text().splitlines()) > 90] == []
    house = (ROOT / "apps" / "cm3leon").rglob("*.py")
    assert [path.name for path in house if len(path.read_text().splitlines()) > 300] == []


def test_nothing_changes_the_import_path() -> None:
    files = [path for top in ("packages", "apps", "benchmarks") for path in walk(top)]
    assert [path for path in files if "sys.path" in (ROOT / path).read_text()] == []


def test_no_file_has_a_vague_name() -> None:
    files = [path for top in ("packages", "apps", "benchmarks", "tests") for path in walk(top)]
    assert files
    assert [str(path) for path in files if path.stem.lower() in VAGUE] == []


def walk(top: str) -> list[Path]:
    """Python files below a folder of the repository, without environments and caches."""
    return [
        path.relative_to(ROOT)
        for path in (ROOT / top).rglob("*.py")
        if not any(part.startswith(".") or part == "build" for part in path.relative_to(ROOT).parts)
    ]


def test_paper_map_points_at_files() -> None:
    page = (ROOT / "docs" / "paper-map.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:packages|apps|tests|benchmarks|docs|examples)/[^`\s]+)`", page)
    assert len(paths) >= 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_readme_has_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [command for command in COMMANDS if command not in text] == []


def test_ci_runs_what_the_readme_says() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert COMMANDS[1] in script.read_text(encoding="utf-8").splitlines()


def test_no_lock_file_in_git() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "uv.lock"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert listed.stdout == ""
