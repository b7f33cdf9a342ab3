"""Do the paper's findings hold at the size that two cores can afford?

    uv run python apps/pretrain.py
    for seed in 0 1 2; do uv run python apps/sft.py --name sft-$seed --seed $seed; done
    uv run python benchmarks/reproduce.py --out benchmarks/results/reproduction-2-cores.json \\
      --page docs/reproduction.md

Decoders that differ from the run's own in one thing are trained for each seed, and kept: a study
that was stopped goes on. `--finding 3` makes one finding alone. Findings 5 and 6 need tuned runs,
one a seed; without them they are left out, and said so.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

import torch
from study import drawing_findings, training_findings
from study.findings import Curves, Finding, verdict_of
from study.page import write_page
from study.subjects import Study
from timing import machine_facts

from cm3_train.artifact import write_json
from cm3leon.base_run import base_fingerprint

FINDINGS = [*drawing_findings.FINDINGS, *training_findings.FINDINGS]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    numbers = [finding.number for finding in FINDINGS]
    parser.add_argument("--run", type=Path, default=Path("runs/tiny"), help="a finished run")
    parser.add_argument("--tuned", type=Path, default=Path("runs"), help="has sft-0, sft-1, ...")
    parser.add_argument("--work", type=Path, help="keeps decoders; default: RUN/study")
    parser.add_argument("--finding", type=int, action="append", choices=numbers)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=800, help="of each decoder's training")
    parser.add_argument("--prompts", type=int, default=240, help="that each figure draws for")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument("--page", type=Path, help="page to write, with pictures beside it")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    work = given.work or given.run / "study"
    study = Study(
        run=given.run, work=work, steps=given.steps, prompts=given.prompts, tuned=given.tuned
    )
    chosen = [one for one in FINDINGS if not given.finding or one.number in given.finding]
    measured: dict[int, list[Curves]] = {}
    for finding in chosen:
        try:
            measured[finding.number] = [measure(study, finding, seed) for seed in given.seeds]
        except FileNotFoundError as error:
            print(f"finding {finding.number} left out: {error}", file=sys.stderr)
            continue
        claims = finding.claims(measured[finding.number])
        print(f"{finding.number}. {finding.title}: {verdict_of(claims)}")
        for claim in claims:
            mean, low, high = claim.interval
            print(f"   {claim.text}: {mean:.3g} ({low:.3g} to {high:.3g}): {claim.verdict}")
    facts = machine_facts(given.threads)
    settings = {"seeds": given.seeds, "steps": given.steps, "prompts": given.prompts}
    if given.out:
        findings = {
            str(one.number): {
                "title": one.title,
                "verdict": verdict_of(one.claims(measured[one.number])),
                "curves": measured[one.number],
            }
            for one in chosen
            if one.number in measured
        }
        write_json(given.out, {"findings": findings, **settings, **facts})
    if given.page and measured:
        command = shlex.join(["python", "benchmarks/reproduce.py", *(arguments or sys.argv[1:])])
        done = [one for one in chosen if one.number in measured]
        results = str(given.out or "--out")
        write_page(given.page, done, measured, facts, command=command, results=results)


def measure(study: Study, finding: Finding, seed: int) -> Curves:
    """Measure a finding, or take what was measured with these settings before."""
    name = f"finding-{finding.number}-{study.steps}-{study.prompts}-{seed}"
    if finding.tuned:
        name += "-" + base_fingerprint(training_findings.tuned_run(study, seed))[:12]
    path = study.kept(f"{name}.json")
    if path.is_file():
        return json.loads(path.read_bytes())
    print(f"finding {finding.number}, seed {seed}", file=sys.stderr)
    found = finding.measure(study, seed)
    write_json(path, found)
    return json.loads(path.read_bytes())


if __name__ == "__main__":
    main()
