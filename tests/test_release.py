"""What `nox -s release` does, piece by piece; the session itself installs for minutes."""

import importlib
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

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


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """All wheels and sdists, as the session builds them; tests must leave them as they are."""
    dist = tmp_path_factory.mktemp("dist")
    build = ["uv", "build", "--quiet", "--offline", "--all-packages", "--out-dir", str(dist)]
    subprocess.run(build, cwd=ROOT, check=True)
    return dist


@pytest.fixture
def dist(built, tmp_path) -> Path:
    """A copy to do damage to."""
    return Path(shutil.copytree(built, tmp_path / "dist"))


def test_seven_versions_agree_and_the_composition_requires_its_own():
    from distributions import distributions, version_faults

    given = distributions()
    assert [one.name for one in given] == [
        "cm3-decoding", "cm3-imagetok", "cm3-model", "cm3-retrieval", "cm3-texttok", "cm3-train",
        "cm3leon",
    ]  # fmt: skip
    assert version_faults(given) == []
    given[2].project["version"] = "0.9.0"
    wrong = version_faults(given)
    assert "wanted one version of all" in wrong[0]
    assert any("requires cm3-model" in line for line in wrong)


def test_the_documentation_and_the_citation_name_the_same_version():
    from distributions import distributions

    version = distributions()[-1].project["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version and citation["cff-version"] == "1.2.0"
    assert f"version = {{{version}}}" in (ROOT / "docs/cite.md").read_text()
    names = {}
    exec(
        (ROOT / "docs/conf.py").read_text(), names | {"__file__": str(ROOT / "docs/conf.py")}, names
    )
    assert names["release"] == version


def test_wheels_and_sdists_are_complete(built):
    from distributions import distributions, faults

    assert faults(built, distributions()) == []


def test_twine_has_nothing_to_say(built):
    files = [str(path) for path in sorted(built.glob("cm3*"))]
    command = [sys.executable, "-m", "twine", "check", "--strict", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("PASSED") == 14, done.stdout + done.stderr


def test_what_is_missing_or_foreign_is_named(dist):
    from distributions import distributions, faults

    (wheel,) = dist.glob("cm3_model-*.whl")
    rewritten(wheel, drop="cm3_model/py.typed", add="tests/test_model.py")
    (dist / "other-1.0.tar.gz").touch()
    (sdist,) = dist.glob("cm3_train-*.tar.gz")
    sdist.unlink()
    wrong = faults(dist, distributions())
    assert f"{sdist.name} was not built" in wrong
    assert "other-1.0.tar.gz is none of ours" in wrong
    assert f"{wheel.name} lacks cm3_model/py.typed" in wrong
    assert f"{wheel.name} should not hold tests/test_model.py" in wrong
    assert len(wrong) == 4


def rewritten(wheel: Path, drop: str, add: str) -> None:
    with zipfile.ZipFile(wheel) as before:
        held = {name: before.read(name) for name in before.namelist() if name != drop}
    with zipfile.ZipFile(wheel, "w") as after:
        for name, content in (held | {add: b""}).items():
            after.writestr(name, content)


@pytest.mark.parametrize(
    ("field", "named"),
    [
        ("License-Expression: Apache-2.0\n", "license"),
        ("Project-URL: Paper, https://arxiv.org/abs/2309.02591\n", "urls"),
        ("License-File: LICENSE\n", "license files"),
        ("Classifier: Typing :: Typed\n", "classifiers"),
        ("Description-Content-Type: text/markdown\n", "readme"),
    ],
)
def test_metadata_that_lacks_something_is_refused(built, field, named):
    from distributions import distributions, metadata_faults

    one = distributions()[2]
    with zipfile.ZipFile(next(built.glob("cm3_model-*.whl"))) as wheel:
        text = wheel.read(f"{one.stem}.dist-info/METADATA").decode()
    assert metadata_faults(one, text.encode()) == []
    assert field in text
    wrong = metadata_faults(one, text.replace(field, "").encode())
    assert wrong == [f"cm3-model: the metadata lacks: {named}"]


def test_each_sdist_builds_alone_to_the_same_wheel(built, tmp_path):
    from distributions import distributions

    for one in distributions():
        shutil.unpack_archive(built / f"{one.stem}.tar.gz", tmp_path / "alone", filter="data")
        source, out = tmp_path / "alone" / one.stem, tmp_path / "wheels"
        build = ["uv", "build", "--quiet", "--offline", "--wheel", "--out-dir", str(out)]
        subprocess.run([*build, str(source)], cwd=tmp_path, check=True)
        name = f"{one.stem}-py3-none-any.whl"
        assert (out / name).read_bytes() == (built / name).read_bytes(), name


def test_the_sdist_of_the_composition_has_apps_and_recipes(built, tmp_path):
    (sdist,) = built.glob("cm3leon-*.tar.gz")
    shutil.unpack_archive(sdist, tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    for pattern in ("*.py", "configs/*.yaml"):
        wanted = {path.relative_to(ROOT) for path in (ROOT / "apps").glob(pattern)}
        assert wanted == {path.relative_to(folder) for path in (folder / "apps").glob(pattern)}


def test_checksums_are_those_of_sha256sum_and_tell_what_changed(dist):
    import checksums

    assert checksums.main([str(dist)]) == 0
    assert checksums.main([str(dist), "--check"]) == 0
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=dist, check=True)
    changed, gone = sorted(dist.glob("*.whl"))[:2]
    changed.write_bytes(changed.read_bytes() + b"\0")
    gone.unlink()
    (dist / "new-1.0.tar.gz").touch()
    assert checksums.differences(dist) == [
        f"{gone.name} is missing",
        "new-1.0.tar.gz is not in SHA256SUMS",
        f"{changed.name} has changed",
    ]
    assert checksums.main([str(dist), "--check"]) == 1


@pytest.mark.parametrize(
    "name",
    ["cm3_decoding", "cm3_imagetok", "cm3_model", "cm3_retrieval", "cm3_texttok", "cm3_train"],
)
def test_public_names_read_from_the_source_are_those_of_the_package(name):
    from public_names import public_names

    package = importlib.import_module(name)
    assert sorted(public_names(Path(package.__file__).parent)) == sorted(package.__all__)


def test_an_installed_package_has_its_names_and_no_others_beside_it():
    import installed

    with pytest.raises(AssertionError, match=r"not from the wheel"):
        installed.check("cm3_texttok")  # the sources
    with pytest.raises(AssertionError, match=r"\['cm3_model'\] installed beside"):
        installed.main(["cm3_texttok", "--absent", "cm3_model"])


# ------------------------------------------------------------------ the API beside the last tag


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


def test_this_tree_beside_itself_has_no_change():
    from api_changes import changes

    assert changes(ROOT, ROOT) == []


def test_unreleased_changes_are_those_under_their_heading():
    from before_a_tag import unreleased

    text = "# Changelog\n\n## Unreleased\n\n- One,\n  in two lines.\n- Two.\n\n## 0.1.0\n\n- Old.\n"
    assert unreleased(text) == ["- One,", "- Two."]
    assert unreleased("# Changelog\n\n## 0.1.0\n\n- Old.\n") == []


def test_a_tagged_version_must_rise():
    from before_a_tag import left_to_do
    from distributions import distributions

    given = distributions()
    version = given[-1].project["version"]
    said = f"v{version} is tagged: raise the version"
    assert said in left_to_do(given, [f"v{version}"]) and said not in left_to_do(given, [])
