"""The study as a page: a verdict, a picture and a table of each finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from study.findings import Claim, Curves, Finding, verdict_of

HEAD = """# The paper's findings, again

Each finding of the paper, measured at the size that two CPU cores can afford: 64 x 64 pictures of
embedded compositions, decoders of 0.4 to 3 million weights. So a verdict says whether the finding
holds *here*; it says nothing against the paper's figures at its own size. The command that makes
this page:

```bash
{command}
```

Every point is the mean over {seeds} seeds of training and drawing; bars, and intervals of claims,
are 95 % intervals of Student's t over the seeds. A claim holds here if its interval is above 0, and
does not hold if it is below 0; otherwise this study is too small to tell. All numbers:
`{results}`. {machine}

| finding | verdict |
|---|---|
{verdicts}
"""


def write_page(
    path: Path,
    findings: Sequence[Finding],
    measured: Mapping[int, Sequence[Curves]],
    facts: Mapping[str, Any],
    *,
    command: str,
    results: str,
) -> None:
    """Write the page and, beside it, a picture of each finding in `images`.

    Args:
        path: `docs/reproduction.md`.
        findings: Those that were measured.
        measured: Curves of each seed, by the finding's number.
        facts: About the machine.
        command: What made the page.
        results: The file of all numbers, as the page names it.
    """
    verdicts, parts = [], []
    for finding in findings:
        seeds = measured[finding.number]
        claims = finding.claims(seeds)
        verdict = verdict_of(claims)
        verdicts.append(f"| {finding.number}. {finding.title} | **{verdict}** |")
        image = Path("images") / f"finding-{finding.number}.png"
        plot(finding, seeds, path.parent / image)
        parts.append(
            f"## {finding.number}. {finding.title}: {verdict}\n\n"
            f"The paper: {finding.paper}\n\nHere: {finding.here}\n\n"
            f"![{finding.title}]({image.as_posix()})\n\n{table(claims)}"
        )
    seeds = max(len(curves) for curves in measured.values())
    head = HEAD.format(
        command=command,
        seeds=seeds,
        results=results,
        machine=f"Machine: {facts['processor']}, {facts['machine']}.",
        verdicts="\n".join(verdicts),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, *parts]), encoding="utf-8")


def table(claims: Sequence[Claim]) -> str:
    """Return claims as a table."""
    lines = ["| claim: above 0 | mean | 95 % | |", "|---|---|---|---|"]
    for claim in claims:
        mean, low, high = claim.interval
        lines.append(f"| {claim.text} | {mean:.3g} | {low:.3g} to {high:.3g} | {claim.verdict} |")
    return "\n".join(lines) + "\n"


def plot(finding: Finding, seeds: Sequence[Curves], path: Path) -> None:
    """Draw the curves of a finding: lines over numbers, bars over names."""
    from matplotlib.figure import Figure

    count = len(finding.axes)
    figure = Figure(figsize=(5.5 * count, 4), layout="constrained")
    for axis, (name, words) in zip(
        np.atleast_1d(figure.subplots(1, count)), finding.axes.items(), strict=True
    ):
        series = seeds[0][name]
        x_label, y_label = words.split("|")
        for place, (label, points) in enumerate(series.items()):
            claims = [
                Claim(text="", values=[curves[name][label][x] for curves in seeds]) for x in points
            ]
            mean = np.array([claim.interval[0] for claim in claims])
            half = np.array([claim.interval[2] - claim.interval[0] for claim in claims])
            error = half if np.isfinite(half).all() else None
            if x_label.strip():
                x = [float(one) for one in points]
                axis.errorbar(x, mean, yerr=error, fmt="o-", capsize=3, label=label)
            else:
                at = np.arange(len(points)) + (place - (len(series) - 1) / 2) * 0.8 / len(series)
                axis.barh(at, mean, 0.8 / len(series), xerr=error, label=label)
                axis.set_yticks(range(len(points)), list(points))
        if x_label.strip():
            axis.set(xlabel=x_label.strip(), ylabel=y_label.strip())
        else:
            axis.set(xlabel=y_label.strip())
            axis.invert_yaxis()
        bars = not x_label.strip()  # which reach as far as a legend would lie
        axis.legend(
            **{"loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": 3} if bars else {}
        )
        axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
