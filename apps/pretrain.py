"""Train the whole system on captioned pictures, and report how good it is.

``python apps/pretrain.py`` makes ``runs/tiny`` from the embedded OpenMoji set. Your own pictures:
``--data.folder FOLDER`` (metadata.jsonl with file_name and text). A stopped or killed run goes on
with the same command; what is finished is kept.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

START = time.time()
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic on a GPU

import figures  # noqa: E402
import jsonargparse  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from openmoji import CREDIT  # noqa: E402
from pairs import DataError  # noqa: E402
from pipeline import Run  # noqa: E402
from recipe import Recipe  # noqa: E402
from report import loss_curves, sample_sheet, table  # noqa: E402
from stages import write_json  # noqa: E402

DEFAULT = Path(__file__).parent / "configs" / "tiny.yaml"


def parser(description: str | None = __doc__, base: Path | None = DEFAULT):
    """Command line of a recipe: ``--config``, dotted overrides, ``--print_config``.

    Args:
        description: Stands in ``--help``.
        base: The recipe that others say their changes against.
    """
    parser = jsonargparse.ArgumentParser(
        description=description, default_config_files=[str(base)] if base else None
    )
    parser.add_argument("--config", action="config", help="a recipe in YAML; later ones override")
    parser.add_class_arguments(Recipe, nested_key=None, as_positional=False)
    return parser


def recipe_of(namespace: jsonargparse.Namespace, parser: jsonargparse.ArgumentParser) -> Recipe:
    """The recipe of a parsed command line."""
    values = parser.instantiate(namespace).as_dict()
    values.pop("config", None)
    return Recipe(**values)


def saved_recipe(path: Path) -> Recipe:
    """The recipe that a run was made with, from its ``recipe.yaml``."""
    command = parser(base=None)
    return recipe_of(command.parse_args(["--config", str(path)]), command)


def open_run(folder: Path, frozen: bool = False) -> Run:
    """The parts of a finished run, up to its decoder; frozen, what drawing needs alone.

    Raises:
        FileNotFoundError: There is no run.
    """
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no run; wanted one that apps/pretrain.py has made")
    recipe = replace(saved_recipe(path), runs=folder.parent, name=folder.name)
    run = Run(recipe, say=lambda _: None, frozen=frozen)
    run.through_decoder()
    return run


def save_recipe(
    namespace: jsonargparse.Namespace, command: jsonargparse.ArgumentParser, path: Path
) -> None:
    """Write ``recipe.yaml``, whole or not at all."""
    values = namespace.clone()
    values.pop("config", None)
    text = command.dump(values, skip_unset=False, skip_validation=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def evaluate(run: Run, out: Path) -> None:
    """Compute every figure and draw every picture of the report."""
    say = run.say
    say("evaluate: image tokenizer")
    report: dict[str, Any] = {"imagetok": figures.image_tokenizer_figures(run)}
    say("evaluate: bits per code")
    report["decoder"] = figures.decoder_figures(run)
    scale, sweep = figures.guidance_sweep(run)
    report["samples"], drawn = figures.sample_figures(run, scale)
    report["sweep"] = sweep
    report["split"] = {
        f"{name}_pictures": len(run.pairs.rows(name))
        for name in ("train", "validation", "test", "variants")
    } | {"skipped_pictures": run.num_skipped}
    report["how"] = figures.how(report)
    report["credit"] = CREDIT if run.recipe.data.folder is None else ""
    write_json(out / "figures.json", report)
    shown = run.recipe.evaluation.retrieve
    sample_sheet(run, drawn["test"], drawn["test_pixels"], out / "samples.png", shown)
    sample_sheet(run, drawn["train"], drawn["train_pixels"], out / "samples_train.png", shown)
    loss_curves(run, out / "curves.png")


def main(arguments: list[str] | None = None) -> int:
    """Run; gives the exit status."""
    command = parser()
    namespace = command.parse_args(arguments)
    recipe = recipe_of(namespace, command)
    torch.use_deterministic_algorithms(True)
    # filling fresh memory costs 5 % and only helps to find faults
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore
    run = Run(recipe)
    save_recipe(namespace, command, recipe.folder / "recipe.yaml")
    run.through_decoder()
    run.stages.run(
        "report",
        [recipe.evaluation, recipe.seed],
        [name for name in ("decoder", "retrieval", "pictures") if name in run.stages.done],
        lambda out: evaluate(run, out),
    )
    finish(run)
    return 0


def finish(run: Run) -> None:
    """Put the report where people look, with the time that everything took."""
    folder, done = run.recipe.folder, run.stages.done
    report = json.loads((done["report"].folder / "figures.json").read_text("utf-8"))
    kept = sum(stage.seconds for stage in done.values() if stage.kept)
    report = {
        "wall_seconds": time.time() - START + kept,
        "stages": {name: stage.seconds for name, stage in done.items()},
        "resumed_stages": [name for name, stage in done.items() if stage.resumed],
        **report,
        "machine": {
            "torch": torch.__version__,
            "numpy": np.__version__,
            "threads": torch.get_num_threads(),
            "precision": run.precision,
        },
    }
    write_json(folder / "report.json", report)
    for name in ("samples.png", "samples_train.png", "curves.png"):
        shutil.copyfile(done["report"].folder / name, folder / name)
    print(table(report))
    print(
        f"Look at {folder / 'samples.png'}; then draw: "
        f'python apps/generate.py --run {folder} --prompt "red apple"'
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (DataError, OSError, ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")
