"""The order of the stages, from captioned pictures to a trained decoder.

data -> pictures -> texttok -> captions -> imagetok -> clip -> retrieval -> shards -> decoder
-> report

Each is made once (see `stages`); a part that the recipe names by its class is used as it is, and
trusted: who makes a run wrote or chose the recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from cm3_model import Decoder, read_manifest
from cm3_retrieval.interface import Encoder
from cm3leon import parts
from cm3leon.data.memory import Neighbours, open_neighbours, write_memory
from cm3leon.data.pixels import Pictures
from cm3leon.data.prepared import open_prepared
from cm3leon.data.tokens import write_tokens
from cm3leon.job import Job
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.parts import Memory, Parts, Retrieval
from cm3leon.recipe import seeded
from cm3leon.recipe_file import RECIPE_FILE, said_recipe
from cm3leon.tokenizer_stages import make_tokenizers


def make_parts(job: Job) -> tuple[Parts, Pictures, Neighbours]:
    """Make every stage up to the decoder, or the decoder alone where pairs are prepared."""
    if job.recipe.data.prepared is not None:
        return use_prepared(job, job.recipe.data.prepared)
    tokenizers, pictures = make_tokenizers(job)
    encoder = make_encoder(job, pictures, tokenizers)
    neighbours = make_memory(job, pictures, encoder)
    memory = make_tokens(job, pictures, tokenizers, encoder)
    pairs = pictures.pairs
    keys = {name: pairs.keys[pairs.rows(name)] for name in ("train", "validation")}
    around = partial(joined, job, tokenizers, encoder, memory)
    shown = (around, pictures, neighbours)
    model = make_decoder(job, keys, tokenizers, memory, neighbours, ["shards", "retrieval"], shown)
    return around(model), pictures, neighbours


def use_prepared(job: Job, folder: Path) -> tuple[Parts, Pictures, Neighbours]:
    """Stage `prepared`, which notes what the folder holds, and the decoder trained on it."""
    prepared, recipe = open_prepared(folder), job.recipe
    job.stages.run("prepared", prepared.fingerprint, [], lambda out: None)
    text = parts.open_text_tokenizer(recipe, trust=job.trust)
    image = parts.open_image_tokenizer(recipe, job.device, trust=job.trust)
    tokenizers = parts.join_tokenizers(text, image, recipe, job.device)
    encoder = parts.open_encoder(recipe, job.device, trust=job.trust)
    memory = parts.open_memory(recipe, encoder, tokenizers.vocabulary)
    keys, neighbours = prepared.keys, prepared.neighbours
    around = partial(joined, job, tokenizers, encoder, memory)
    shown = (around, prepared.pictures, neighbours)
    model = make_decoder(job, keys, tokenizers, memory, neighbours, ["prepared"], shown)
    return around(model), prepared.pictures, neighbours


def joined(
    job: Job, tokenizers: Tokenizers, encoder: Encoder, memory: Memory, model: Decoder
) -> Parts:
    """Join the parts of a run."""
    return Parts(
        tokenizers=tokenizers,
        retrieval=Retrieval(encoder=encoder, memory=memory),
        model=model,
        device=job.device,
        habits=parts.habits_of(job.recipe.evaluation, job.recipe.folder),
    )


def make_report(job: Job, made: Parts, pictures: Pictures, neighbours: Neighbours) -> None:
    """Stage `report`: figures, sheets and curves."""
    recipe = job.recipe

    def work(out: Path) -> None:
        from cm3leon.data.openmoji import CREDIT
        from cm3leon.evaluation.report import write_report
        from cm3leon.evaluation.subject import Subject

        subject = Subject(
            parts=made,
            pictures=pictures,
            neighbours=neighbours,
            recipe=recipe.evaluation,
            seed=recipe.seed,
        )
        embedded = recipe.data.folder is None and recipe.data.prepared is None
        credit = CREDIT if embedded else ""
        write_report(subject, recipe.folder, out, credit, job.stages.say)

    config = [recipe.evaluation, recipe.seed]
    data = ["retrieval", "captions"] if recipe.data.prepared is None else ["prepared"]
    job.stages.run("report", config, ["decoder", *data], work)


def make_encoder(job: Job, pictures: Pictures, tokenizers: Tokenizers) -> Encoder:
    """Stage `clip`: the small CLIP, on training pairs."""
    recipe = job.recipe.retrieval
    clip = seeded(recipe.clip, job.recipe.seed)

    def work(out: Path) -> None:
        from cm3leon.training.encoder import train_encoder

        train_encoder(clip, pictures, tokenizers, out / "clip")

    if recipe.encoder is None:
        job.stages.run("clip", clip, ["captions", "imagetok"], work)
        return parts.open_encoder(job.recipe, job.device, trust=True)
    encoder = parts.open_encoder(job.recipe, job.device, trust=True)
    job.stages.given("clip", encoder.encoder_id)
    return encoder


def make_memory(job: Job, pictures: Pictures, encoder: Encoder) -> Neighbours:
    """Stage `retrieval`: memory bank of the training split, neighbours of all pairs."""
    recipe, seed = job.recipe.retrieval, job.recipe.seed

    def work(out: Path) -> None:
        write_memory(encoder, pictures, recipe.strategy, seed, out)

    config = [recipe.strategy, seed]
    stage = job.stages.run("retrieval", config, ["captions", "clip"], work)
    return open_neighbours(stage.folder)


def make_tokens(job: Job, pictures: Pictures, tokenizers: Tokenizers, encoder: Encoder) -> Memory:
    """Stage `shards`: captions as ids, pictures as codes."""
    recipe, seed = job.recipe.decoder, job.recipe.seed

    def work(out: Path) -> None:
        write_tokens(tokenizers, pictures, recipe.views, seed, out / "tokens")

    config = [recipe.views, seed]
    job.stages.run("shards", config, ["captions", "texttok", "imagetok"], work)
    return parts.open_memory(job.recipe, encoder, tokenizers.vocabulary)


def make_decoder(
    job: Job,
    keys: Mapping[str, np.ndarray],
    tokenizers: Tokenizers,
    memory: Memory,
    neighbours: Neighbours,
    inputs: list[str],
    shown: tuple[Callable[[Decoder], Parts], Pictures, Neighbours],
) -> Decoder:
    """Stage `decoder`: CM3 pretraining with retrieved documents.

    Args:
        job: The run.
        keys: Of the pairs in `train` and `validation`.
        tokenizers: The id space.
        memory: Its documents are trained on.
        neighbours: Of all pairs.
        inputs: Stages that made them.
        shown: What samples are drawn with while it trains: the parts around a decoder, pictures and
            neighbours.
    """
    recipe, seed = job.recipe.decoder, job.recipe.seed
    retrieve = job.recipe.evaluation.retrieve

    def work(out: Path) -> None:
        from cm3leon.training.decoder import train_decoder
        from cm3leon.training.samples import sheets_of

        drawn = (*shown, recipe.sample_count, out / "samples")
        train_decoder(
            recipe,
            tokenizers,
            memory.documents,
            keys["train"],
            keys["validation"],
            neighbours,
            out,
            retrieve=retrieve,
            seed=seed,
            device=job.device,
            precision=job.precision,
            checkpoint_every=job.recipe.checkpoint_every,
            trainer=job.recipe.trainer,
            draw=sheets_of(*drawn) if recipe.sample_every else None,
        )

    config = [recipe, seed, job.precision, retrieve]
    if recipe.init_from is not None:
        config.append(read_manifest(recipe.init_from).get("weights"))  # not the path alone
    job.stages.run(
        "decoder",
        config,
        inputs,
        work,
        resumable=True,
        together=True,
        settings={RECIPE_FILE: said_recipe(job.recipe)},
    )
    return parts.open_decoder(job.recipe, job.device)
