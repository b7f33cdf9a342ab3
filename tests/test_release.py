"""What `nox -s release` does, piece by piece; the session itself installs for minutes."""

import importlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


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
