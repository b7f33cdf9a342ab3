"""Files of the project that programs of others read: forms, CI, container, citation."""

import json
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _release_is_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "release"))


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


def test_the_hosts_ci_runs_what_the_readme_says_and_may_only_read():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    steps = workflow["jobs"]["test"]["steps"]
    assert "sh .ci/run" in [step.get("run") for step in steps]
    assert "pip install uv && uv run nox" in (ROOT / ".ci/run").read_text()


def test_issue_forms_ask_for_something():
    for name in ("bug", "feature"):
        form = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text())
        asked = {field["id"]: field for field in form["body"] if field["type"] != "markdown"}
        assert any(field.get("validations", {}).get("required") for field in asked.values())
        packages = {path.name for path in (ROOT / "packages").iterdir() if path.is_dir()}
        if name == "bug":
            assert packages <= set(asked["part"]["attributes"]["options"])


def test_the_container_copies_what_is_there_and_what_may_enter_the_build():
    lines = (ROOT / "Containerfile").read_text().splitlines()
    copied = [
        line.split()[1:-1] for line in lines if line.startswith("COPY") and "--from" not in line
    ]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    for source in (name for names in copied for name in names):
        assert list(ROOT.glob(source)), source
        assert f"!{source.split('/')[0]}" in ignored
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001"]


def test_the_container_starts_the_service_and_with_a_token_alone(tmp_path, capsys):
    from cm3leon.serve_options import parse

    lines = (ROOT / "Containerfile").read_text().splitlines()
    said = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if " [" in line}
    python, app, *options = json.loads(said["ENTRYPOINT"])
    assert python == "python" and (ROOT / app).is_file()
    file = tmp_path / "token"
    options = [str(file) if name == "/run/secrets/cm3-token" else name for name in options]
    with pytest.raises(SystemExit):
        parse(None, [*options, *json.loads(said["CMD"])])
    assert "--token-file" in capsys.readouterr().err
    file.write_text("a token of some length".replace(" ", "-"))
    given = parse(None, [*options, *json.loads(said["CMD"])])
    assert given.host == "0.0.0.0" and given.token and given.run == Path("runs/tiny")
