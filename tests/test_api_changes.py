"""The public API beside the last tag's: `release/api_changes.py` in small repositories."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = """[project]
name = "{name}"
version = "{version}"
dependencies = ["cm3-model~=0.1.0"]
"""
MODEL = "def draw(prompt, scale=1.0):\n    return prompt\n"
OPEN = "def open_parts(folder, device):\n    return folder\n"


@pytest.fixture(autouse=True)
def _release_is_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "release"))


def git(repository: Path, *args: str) -> None:
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *who, *args], cwd=repository, check=True, capture_output=True)


def write(repository: Path, model: str, *, version: str, module: str = "drawing") -> None:
    """A repository in small: one package, whose stub names `draw`, and the composition."""
    package = repository / "packages/cm3-model"
    sources, apps = package / "src/cm3_model", repository / "apps/cm3leon"
    shutil.rmtree(sources, ignore_errors=True)
    for folder in (sources, apps):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
    for folder, name in ((package, "cm3-model"), (repository, "cm3leon")):
        (folder / "pyproject.toml").write_text(PYPROJECT.format(name=name, version=version))
    names = re.findall(r"^def ([a-z]+)", model, re.MULTILINE)
    stub = "".join(f"from .{module} import {name} as {name}\n" for name in names)
    (sources / "__init__.pyi").write_text(stub)
    (sources / f"{module}.py").write_text(model + "\ndef _inner(a):\n    return a\n")
    (apps / "parts.py").write_text(OPEN)


@pytest.fixture
def repository(tmp_path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    write(folder, MODEL, version="0.1.0")
    commit(folder)
    return folder


def commit(repository: Path) -> None:
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "A change")


def compared(repository: Path, capsys) -> tuple[int, str]:
    import api_changes

    status = api_changes.main(["--root", str(repository)])
    return status, capsys.readouterr().out


def test_without_an_earlier_tag_there_is_nothing_to_compare(repository, capsys):
    assert compared(repository, capsys) == (0, "no earlier tag: nothing to compare\n")
    git(repository, "tag", "v0.1.0")  # what is released from this commit is no earlier one
    git(repository, "tag", "vanilla")
    assert compared(repository, capsys) == (0, "no earlier tag: nothing to compare\n")


def test_a_shallow_clone_says_that_tags_may_be_missing(repository, tmp_path, capsys):
    git(repository, "tag", "v0.1.0")
    write(repository, MODEL + "# more\n", version="0.1.1")
    commit(repository)
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{repository}", str(shallow))
    status, said = compared(shallow, capsys)
    assert status == 0 and "a shallow clone: its tags may be missing" in said


def test_a_breaking_change_fails_until_the_minor_version_rises(repository, capsys):
    git(repository, "tag", "v0.1.0")
    broken = MODEL.replace(", scale=1.0", "")
    for version, wanted in (("0.1.0", 1), ("0.1.1", 1), ("0.2.0", 0), ("1.0.0", 0)):
        write(repository, broken, version=version)
        commit(repository)
        status, said = compared(repository, capsys)
        assert status == wanted
        assert "breaking: cm3-model: `draw(scale)`: *Parameter was removed*" in said
        assert ("wanted version 0.2.0 or higher" in said) == bool(wanted)


def test_a_name_that_goes_is_breaking_and_one_that_comes_is_not(repository, capsys):
    git(repository, "tag", "v0.1.0")
    write(repository, MODEL + "\ndef caption(picture):\n    return picture\n", version="0.1.1")
    commit(repository)
    assert compared(repository, capsys) == (
        0,
        "since v0.1.0: 1 changes of the public API\n  addition: cm3-model: `caption` is new\n",
    )
    git(repository, "tag", "v0.1.1")
    write(repository, MODEL, version="0.1.2")
    commit(repository)
    status, said = compared(repository, capsys)
    assert status == 1 and "cm3-model: `caption`: *Public object was removed*" in said


def test_an_addition_asks_for_a_new_version(repository, capsys):
    git(repository, "tag", "v0.1.0")
    write(repository, MODEL + "\ndef caption(picture):\n    return picture\n", version="0.1.0")
    commit(repository)
    status, said = compared(repository, capsys)
    assert status == 1 and "wanted version 0.1.1 or higher, got 0.1.0" in said


def test_a_public_name_may_move_between_modules_and_private_ones_may_change(repository, capsys):
    git(repository, "tag", "v0.1.0")
    write(repository, MODEL, version="0.1.0", module="painting")
    path = repository / "packages/cm3-model/src/cm3_model/painting.py"
    path.write_text(path.read_text().replace("_inner(a)", "_inner()"))
    commit(repository)
    assert compared(repository, capsys) == (0, "since v0.1.0: 0 changes of the public API\n")


def test_what_the_composition_offers_counts(repository, capsys):
    git(repository, "tag", "v0.1.0")
    (repository / "apps/cm3leon/parts.py").write_text(OPEN.replace("device", "where"))
    commit(repository)
    status, said = compared(repository, capsys)
    assert status == 1 and "cm3leon: `open_parts(device)`: *Parameter was removed*" in said


def test_a_package_that_goes_is_breaking(repository, tmp_path):
    from api_changes import Change, changes

    old = Path(shutil.copytree(repository, tmp_path / "old"))
    shutil.rmtree(repository / "packages/cm3-model")
    assert changes(old, repository) == [Change(text="cm3-model is gone", breaking=True)]
    assert changes(repository, old) == [Change(text="cm3-model is new", breaking=False)]


@pytest.mark.parametrize(
    ("before", "now", "breaking", "wanted"),
    [
        ("0.1.0", "0.1.1", False, None),
        ("0.1.9", "0.1.9", False, "0.1.10"),
        ("0.1.9", "0.1.10", True, "0.2.0"),
        ("0.1.9", "0.2.0", True, None),
        ("1.2.3", "1.2.4", False, "1.3.0"),
        ("1.2.3", "1.3.0", False, None),
        ("1.2.3", "1.9.0", True, "2.0.0"),
        ("1.2.3", "2.0.0", True, None),
    ],
)
def test_the_version_rises_with_the_changes(before, now, breaking, wanted):
    from api_changes import Change, too_little
    from packaging.version import Version

    said = [Change(text="something", breaking=breaking)]
    wrong = too_little(Version(before), Version(now), said)
    assert wrong == (wanted and f"wanted version {wanted} or higher, got {now}")


def test_a_version_below_the_last_tag_is_refused_and_no_change_asks_for_nothing():
    from api_changes import too_little
    from packaging.version import Version

    assert "below the last tag's" in str(too_little(Version("0.2.0"), Version("0.1.9"), []))
    assert too_little(Version("0.2.0"), Version("0.2.0"), []) is None


@pytest.mark.slow
def test_this_tree_beside_itself_has_no_change():
    from api_changes import changes

    assert changes(ROOT, ROOT) == []
