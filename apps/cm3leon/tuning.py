"""The order of the stages of instruction tuning (paper 4), on top of a pretrained run.

base -> instructions -> decoder -> report

The tuned run's folder opens as any run: its recipe is the base's with `base` in it, so all parts
but the decoder are the base's, which must stay where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cm3_texttok import PAPER_TASKS, InstructionLayout, Task
from cm3_train import Mixture, progress_bar
from cm3_train.shard_files import MANIFEST
from cm3leon import parts
from cm3leon.base_run import BASE_STAGE, base_fingerprint
from cm3leon.data.memory import Neighbours, open_neighbours
from cm3leon.data.pairs import Pairs, read_pairs
from cm3leon.data.prepared import open_prepared
from cm3leon.instructions.sets import TASK_FILE, InstructionSet, Split, read_task
from cm3leon.job import Job, start
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.parts import Retrieval
from cm3leon.recipe import Recipe, seeded
from cm3leon.recipe_file import RECIPE_FILE, TUNING_FILE, said_recipe
from cm3leon.tuned import write_tasks
from cm3leon.tuning_recipe import TuningRecipe


@dataclass(frozen=True, kw_only=True)
class TuningJob:
    """A tuning that is being made."""

    job: Job
    """Its recipe is the tuned run's: the base's, with the tuning's training in it."""
    tuning: TuningRecipe


def begin(tuning: TuningRecipe) -> TuningJob:
    """Take hold of the tuned run's folder; errors as of `job.start`, and `parts.recipe_of`.

    Raises:
        ValueError: The report would be drawn by guidance that the objective does not teach, or the
            base has no memory bank and its pairs are wanted.
    """
    if not tuning.sets:
        for name, number in tuning.embedded.numbers.items():
            if number and PAPER_TASKS[name].outputs == ("image",):
                tuning.check_streams(tuning.guidance.sampling(name))
    base = parts.recipe_of(tuning.base)
    if not base.retrieval.bank:
        check_without_bank(tuning)
    return TuningJob(job=start(tuned_recipe(tuning, base)), tuning=tuning)


def check_without_bank(tuning: TuningRecipe) -> None:
    """Refuse what needs the pairs or the memory bank of a base that has none.

    Raises:
        ValueError: Names the setting.
    """
    why = f"as {tuning.base} is of published weights and has neither pairs nor a memory bank"
    if not tuning.sets:
        raise ValueError(f"sets: wanted sets of apps/prepare.py --task, {why}, got none")
    if tuning.replay:
        raise ValueError(f"replay: wanted 0, {why}, got {tuning.replay}")


def tuned_recipe(tuning: TuningRecipe, base: Recipe) -> Recipe:
    """Return the recipe that the tuned run's folder opens by.

    Raises:
        ValueError: The tuning's folder is the base's, or the base is a tuned run.
    """
    if base.base is not None:
        raise ValueError(
            f"base: wanted a run that apps/pretrain.py has made, got {tuning.base}, "
            f"which was tuned from {base.base}"
        )
    if tuning.folder.resolve() == tuning.base.resolve():
        raise ValueError(f"name: wanted another folder than the base {tuning.base}")
    decoder = replace(
        base.decoder,
        init_from=(tuning.base / "decoder" / "model").resolve(),
        optim=tuning.optim,
        batch_size=tuning.batch_size,
        tokens_per_step=tuning.tokens_per_step,
        val_batch_size=tuning.val_batch_size,
        compile=tuning.compile,
        activation_checkpointing=tuning.activation_checkpointing,
        packed_length=tuning.packed_length,
        val_every=tuning.val_every,
        sample_every=0,
    )
    return replace(
        base,
        name=tuning.name,
        runs=tuning.runs,
        base=tuning.base.resolve(),
        seed=tuning.seed,
        device=tuning.device,
        precision=tuning.precision,
        checkpoint_every=tuning.checkpoint_every,
        trainer=tuning.trainer,
        decoder=decoder,
    )


def make_tuned(made: TuningJob) -> list[Path]:
    """Make every stage up to the decoder; gives the folders of the sets."""
    job, tuning = made.job, made.tuning
    job.stages.run(BASE_STAGE, base_fingerprint(tuning.base), [], lambda out: None)
    base = open_base(job)
    sets = make_sets(made, *base)
    tune(made, *base, sets)
    return sets


def open_base(job: Job) -> tuple[Tokenizers, Retrieval | None]:
    """Open the base's tokenizers, encoder and memory; None where it has no memory."""
    text = parts.open_text_tokenizer(job.recipe, trust=job.trust)
    image = parts.open_image_tokenizer(job.recipe, job.device, trust=job.trust)
    tokenizers = parts.join_tokenizers(text, image, job.recipe, job.device)
    retrieval = parts.open_retrieval(job.recipe, tokenizers, job.device, trust=job.trust)
    return tokenizers, retrieval


def make_sets(made: TuningJob, tokenizers: Tokenizers, retrieval: Retrieval | None) -> list[Path]:
    """Stage `instructions`: the embedded sets, where the recipe names none."""
    job, tuning = made.job, made.tuning
    if tuning.sets:
        job.stages.run("instructions", said_by(tuning.sets), [BASE_STAGE], lambda out: None)
        return list(tuning.sets)
    assert retrieval is not None, "check_without_bank has looked"
    compositions = seeded(job.recipe.data.compositions, parts.recipe_of(tuning.base).seed)

    def work(out: Path) -> None:
        from cm3leon.instructions.embedded.writing import write_embedded
        from cm3leon.instructions.retrieving import Retriever

        with progress_bar("drawing and encoding instructions", "picture") as progress:
            write_embedded(
                out,
                tokenizers,
                Retriever(
                    encoder=retrieval.encoder,
                    memory=retrieval.memory,
                    groups=groups_of(job.recipe),
                    seed=tuning.seed,
                ),
                compositions,
                tuning.embedded,
                tuning.seed,
                progress,
            )

    config = [compositions, tuning.embedded, tuning.seed]
    stage = job.stages.run("instructions", config, [BASE_STAGE], work)
    return [stage.folder / name for name, number in tuning.embedded.numbers.items() if number]


def said_by(sets: Sequence[Path]) -> list[str]:
    """Return what the sets' tasks and the manifests of what is trained and chosen by say.

    Raises:
        FileNotFoundError: One is no finished set with training records, or none has records of
            validation.
        ValueError: Two have tasks of one name that differ.
    """
    found, tasks = list[str](), dict[str, Task]()
    for path in sets:
        task = read_task(path)
        if tasks.setdefault(task.name, task) != task:
            raise ValueError(f"{path}: wanted the same task {task.name} as in the sets before it")
        files = [path / TASK_FILE, *(path / split / MANIFEST for split in ("train", "validation"))]
        if not files[1].is_file():
            raise FileNotFoundError(f"{path}: wanted a set with records of training, got none")
        found += [file.read_text() if file.is_file() else "" for file in files]
    if not any(found[2::3]):
        raise FileNotFoundError(
            f"{', '.join(map(str, sets))}: wanted records of validation in one of them, got none"
        )
    return found


def tune(
    made: TuningJob, tokenizers: Tokenizers, retrieval: Retrieval | None, sets: list[Path]
) -> None:
    """Stage `decoder`: the base's decoder, tuned."""
    job, tuning = made.job, made.tuning
    recipe = job.recipe.decoder

    def work(out: Path) -> None:
        from cm3leon.training.sequences import training_sequences
        from cm3leon.training.tuning import Instructions, tune_decoder

        layout = InstructionLayout(tokenizers.text, tokenizers.vocabulary)

        def opened(split: Split) -> list[InstructionSet]:
            sha256 = tokenizers.vocabulary.sha256
            having = [folder for folder in sets if (folder / split).is_dir()]
            return [InstructionSet(folder, split, sha256) for folder in having]

        train = opened("train")
        if job.stages.first:
            near = [one for one in train if one.has_documents()]
            if near and retrieval is None:
                raise ValueError(
                    f"{near[0].folder}: wanted records without documents, as {tuning.base} has no "
                    "memory bank, got some that name them"
                )
            shown = [one.task.name for one in near] if tuning.retrieve > 0 else []
            write_tasks(out, [one.task for one in train], shown)
        mixture = Mixture([len(one) for one in train], up=tuning.up, down=tuning.down)
        keys, documents, replayed = np.empty(0, np.int64), None, None
        if retrieval is not None:
            keys, neighbours = pretraining_pairs(job.recipe)
            documents = retrieval.memory.documents
            replayed = training_sequences(recipe, tokenizers, documents, neighbours, tuning.seed)
        tune_decoder(
            recipe,
            tuning.objective,
            tokenizers,
            Instructions(train, layout, mixture, documents, tuning.retrieve, recipe.max_length),
            Instructions(opened("validation"), layout, None, documents, 1.0, recipe.max_length),
            replayed,
            keys,
            out,
            replay=tuning.replay,
            val_records=tuning.val_records,
            seed=tuning.seed,
            device=job.device,
            precision=job.precision,
            checkpoint_every=tuning.checkpoint_every,
            trainer=tuning.trainer,
            lora=tuning.lora,
        )

    config = [
        replace(recipe, init_from=None), tuning.objective, tuning.up, tuning.down, tuning.retrieve,
        tuning.replay, tuning.val_records, tuning.lora, tuning.seed, job.precision,
    ]  # fmt: skip
    inputs = [BASE_STAGE, "instructions"]
    settings = {RECIPE_FILE: said_recipe(job.recipe), TUNING_FILE: said_recipe(tuning)}
    job.stages.run(
        "decoder", config, inputs, work, resumable=True, together=True, settings=settings
    )


def pretraining_pairs(recipe: Recipe) -> tuple[np.ndarray, Neighbours]:
    """Return the keys of the base's training pairs, and their neighbours."""
    if recipe.data.prepared is not None:
        prepared = open_prepared(recipe.data.prepared)
        return prepared.keys["train"], prepared.neighbours
    pairs = pairs_of_base(recipe)
    return pairs.keys[pairs.rows("train")], open_neighbours(recipe.parts_folder / "retrieval")


def groups_of(recipe: Recipe) -> dict[int, str]:
    """Return the group of each of the base's pairs by key, where they are in a folder."""
    if recipe.data.prepared is not None:
        return {}
    pairs = pairs_of_base(recipe)
    return dict(zip(pairs.keys.tolist(), pairs.groups, strict=True))


def pairs_of_base(recipe: Recipe) -> Pairs:
    """Read the base's pairs again."""
    folder = recipe.parts_folder
    source = recipe.data.folder or folder / "data"
    return read_pairs(source, **recipe.data.shares, seed=parts.recipe_of(folder).seed)


def make_report(made: TuningJob, sets: list[Path]) -> None:
    """Stage `report`: figures and the sheet, where the instructions are the embedded ones."""
    job, tuning = made.job, made.tuning

    def work(out: Path) -> None:
        from cm3leon.evaluation.instructions.report import write_report
        from cm3leon.evaluation.subject import open_subject

        base = open_subject(tuning.base, tuning.device, trust=job.trust)
        model = parts.open_decoder(job.recipe, job.device)
        tuned = replace(base.parts, model=model)
        opened = [InstructionSet(path, "test", base.parts.tokenizers.vocabulary.sha256)
                  for path in sets]  # fmt: skip
        write_report(base, tuned, opened, tuning, out, job.stages.say)

    config = [tuning.guidance, tuning.evaluation, tuning.seed]
    job.stages.run("report", config, ["decoder"], work)
