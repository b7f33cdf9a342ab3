"""What the decoder of a recipe needs: memory of a GPU, tokens a second, days, cost, bandwidth.

`python apps/plan.py` prints a row for each recipe and number of H100s; other GPUs by `--tflops`,
`--mfu`, `--dollars` and `--memory`. Memory is counted, not measured (`cm3_train/plan.py` says how,
and tests hold it against real steps); time and cost follow from the assumptions above the table.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from cm3_imagetok.exit_status import exit_status

CONFIGS = Path(__file__).parent / "configs"
HEADS = ("recipe", "GPUs", "strategy", "batches a step", "memory GiB", "states", "activations",
         "working", "tokens/s", "days", "dollars", "disk MB/s", "loader MB/s")  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Print the table; gives the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--recipes", nargs="+", default=["350m", "760m", "7b"], help="of apps/configs, or files")
    add("--gpus", nargs="+", type=int, default=[8, 16, 32, 64, 128, 256, 512])
    add("--checkpointing", choices=("none", "selective", "full"), help="instead of the recipe's")
    add("--strategy", choices=("ddp", "fsdp2"), help="instead of the recipe's")
    add("--model", help="name of cm3_model.PRESETS instead of the recipe's, such as chameleon-7b")
    add("--optimizer", choices=("adamw", "adamw8bit"), help="instead of the recipe's")
    add("--lora", type=int, metavar="RANK", help="train adapters alone, beside a bfloat16 base")
    add("--tflops", type=float, help="peak of a GPU, 10^12 a second; default: an H100's 989")
    add("--mfu", type=float, help="share of it on one GPU; default: 0.53, measured on an H100")
    add("--scaling", type=float, help="what many GPUs leave of it; default: 0.85, assumed")
    add("--dollars", type=float, help="price of a GPU for an hour; default: 3")
    add("--memory", type=float, default=80.0, help="of a GPU in GB; what does not fit is marked !")
    add("--out", type=Path, help="JSON to write")
    given = parser.parse_args(arguments)

    from cm3_train import LoraConfig
    from cm3_train.artifact import write_json
    from cm3_train.plan import Assumptions
    from cm3leon.plan import GIB, row_of, with_choices
    from cm3leon.recipe_file import read_command

    values = {"mfu": given.mfu, "scaling": given.scaling, "dollars_an_hour": given.dollars}
    values["peak"] = None if given.tflops is None else given.tflops * 1e12
    assumed = replace(Assumptions(), **{n: v for n, v in values.items() if v is not None})
    lora = None if given.lora is None else LoraConfig(rank=given.lora, bfloat16_base=True)
    print(", ".join(f"{name} {value:g}" for name, value in vars(assumed).items()))
    print(" | ".join(HEADS))
    rows = []
    for name in given.recipes:
        path = CONFIGS / f"{name}.yaml" if (CONFIGS / f"{name}.yaml").is_file() else Path(name)
        recipe = with_choices(
            read_command(None, CONFIGS / "tiny.yaml", ["--config", str(path)]),
            model=given.model,
            optimizer=given.optimizer,
            activation_checkpointing=given.checkpointing,
            strategy=given.strategy or (None if lora is None else "ddp"),
        )
        for gpus in given.gpus:
            try:
                row = row_of(recipe, gpus, assumed, lora)
            except ValueError as error:
                print(f"{recipe.name} | {gpus} | the step does not divide: {error}")
                continue
            rows.append(row)
            full = "!" if row["memory_gib"] * GIB > given.memory * 1e9 else ""
            cells = [
                f"{value:,.1f}" if type(value) is float else str(value) for value in row.values()
            ]
            print(" | ".join([*cells[:4], cells[4] + full, *cells[5:]]))
    if given.out is not None:
        write_json(given.out, {"assumptions": vars(assumed), "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main, "error", failures=(OSError, ValueError)))
