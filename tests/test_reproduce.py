"""The study of the paper's findings in its shortened form, on the smoke runs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import reproduce

    return reproduce


def test_a_claim_holds_where_its_interval_is_above_nothing(study):
    from study.findings import Claim, verdict_of

    def claim(*values):
        return Claim(text="", values=values)

    assert claim(1.0, 1.1, 0.9).verdict == "holds here"
    assert claim(-1.0, -1.1, -0.9).verdict == "does not hold here"
    assert claim(1.0, -1.1, 0.2).verdict == claim(5.0).verdict == "too small to tell"
    mean, low, high = claim(1.0, 2.0, 3.0).interval  # Student's t of two degrees: 4.303
    assert mean == 2 and high - mean == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    assert mean - low == pytest.approx(high - mean)
    holds, fails, small = claim(1.0, 1.1), claim(-1.0, -1.1), claim(1.0, -1.0)
    assert verdict_of([holds, holds]) == "holds here"
    assert verdict_of([holds, small]) == "too small to tell"
    assert verdict_of([holds, small, fails]) == "does not hold here"


@pytest.mark.slow
@pytest.mark.apps
def test_the_study_makes_every_finding_and_its_page(
    study, smoke_run, smoke_tuned, tmp_path, monkeypatch, capsys
):
    (tmp_path / "sft-0").symlink_to(smoke_tuned)
    line = ["--run", str(smoke_run), "--tuned", str(tmp_path), "--work", str(tmp_path / "work")]
    line += ["--steps", "2", "--prompts", "6", "--seeds", "0"]
    whole = [*line, "--out", str(tmp_path / "all.json"), "--page", str(tmp_path / "docs/page.md")]
    study.main(whole)
    found = json.loads((tmp_path / "all.json").read_text())["findings"]
    assert sorted(found) == ["1", "2", "3", "4", "5", "6", "7"]
    page = (tmp_path / "docs/page.md").read_text()
    for number in found:
        assert (tmp_path / f"docs/images/finding-{number}.png").stat().st_size > 5000
        assert f"images/finding-{number}.png" in page
        assert found[number]["verdict"] == "too small to tell"  # one seed
        for series in found[number]["curves"][0].values():
            for points in series.values():
                assert points and np.isfinite(list(points.values())).all()
    assert {"0", "1", "2"} == found["3"]["curves"][0]["distance"]["trained with"].keys()

    # measured once: what is there is taken, one finding alone, too
    findings = [replace(one, measure=None) for one in study.FINDINGS]
    monkeypatch.setattr(study, "FINDINGS", findings)
    study.main([*line, "--finding", "3", "--out", str(tmp_path / "one.json")])
    alone = json.loads((tmp_path / "one.json").read_text())["findings"]
    assert alone == {"3": found["3"]}

    study.main([*line[:2], *line[4:], "--tuned", str(tmp_path / "none"), "--finding", "6",
                "--work", str(tmp_path / "other")])  # fmt: skip
    assert "finding 6 left out" in capsys.readouterr().err
