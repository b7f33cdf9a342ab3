"""The order of the stages, from captioned pictures to a trained decoder.

data -> pictures -> texttok -> captions -> imagetok -> clip -> retrieval -> shards -> decoder
-> report

Each is made once (see `stages`); a part that the recipe names by its class is used as it is, and
trusted: who makes a run wrote or chose the recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from cm3_imagetok.interface import ImageTokenizer
from cm3_model import Decoder
from cm3_retrieval.interface import Encoder
from cm3_texttok import TextTokenizer
from cm3_texttok.interface import Tokenizer
from cm3_train import progress_bar
from cm3leon import parts
from cm3leon.data.captions import without_long_captions, write_long_captions
from cm3leon.data.memory import Neighbours, open_neighbours, write_memory
from cm3leon.data.pairs import fingerprint_of_folder, read_pairs
from cm3leon.data.pixels import Pictures, open_pictures, write_pictures
from cm3leon.data.tokens import write_tokens
from cm3leon.device import device_of, precision_on
from cm3leon.named_parts import fingerprint_of_part
from cm3leon.parts import Memory, Parts, Tokenizers
from cm3leon.processes import is_first, own_device
from cm3leon.recipe import CompositionsRecipe, Recipe, seeded
from cm3leon.stages import Stages


@dataclass(frozen=True, kw_only=True)
class Job:
    """A recipe, the stages that it makes, and where."""

    recipe: Recipe
    stages: Stages
    device: torch.device
    precision: str


def start(recipe: Recipe) -> Job:
    """Take hold of the run's folder; of several processes with the same command the first does.

    Raises:
        BlockingIOError: Another run works there.
        ValueError: This machine has no such device.
    """
    device = own_device(device_of(recipe.device), recipe.trainer)
    return Job(
        recipe=recipe,
        stages=Stages(recipe.folder, first=is_first()),
        device=device,
        precision=precision_on(device, recipe.precision),
    )


def make_parts(job: Job) -> tuple[Parts, Pictures, Neighbours]:
    """Make every stage up to the decoder."""
    tokenizers, pictures = make_tokenizers(job)
    encoder = make_encoder(job, pictures, tokenizers)
    neighbours = make_memory(job, pictures, encoder)
    memory = make_tokens(job, pictures, tokenizers, encoder)
    model = make_decoder(job, pictures, tokenizers, memory, neighbours)
    made = Parts(
        tokenizers=tokenizers,
        encoder=encoder,
        memory=memory,
        model=model,
        device=job.device,
        habits=parts.habits_of(job.recipe.evaluation, job.recipe.folder),
    )
    return made, pictures, neighbours


def make_tokenizers(job: Job) -> tuple[Tokenizers, Pictures]:
    """Make the stages up to both tokenizers."""
    pictures = make_pictures(job)
    text = make_text_tokenizer(job, pictures)
    fitting = leave_out_long_captions(job, pictures, text)
    image = make_image_tokenizer(job, pictures)
    return parts.join_tokenizers(text, image, job.recipe, job.device), fitting


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
        credit = CREDIT if recipe.data.folder is None else ""
        write_report(subject, recipe.folder, out, credit, job.stages.say)

    config = [recipe.evaluation, recipe.seed]
    job.stages.run("report", config, ["decoder", "retrieval", "captions"], work)


def make_pictures(job: Job) -> Pictures:
    """Stages `data` (an embedded set alone) and `pictures`: raw pairs, decoded to one size."""
    recipe, seed = job.recipe.data, job.recipe.seed
    if recipe.folder is None:
        source, origin = make_embedded(job)
    else:
        source, origin = recipe.folder, fingerprint_of_folder(recipe.folder)
    pairs = read_pairs(source, **recipe.shares, seed=seed)

    def work(out: Path) -> None:
        with progress_bar("decoding pictures", "picture") as progress:
            write_pictures(source, pairs, recipe.size, out, progress)

    stage = job.stages.run("pictures", [origin, recipe.size, recipe.shares, seed], [], work)
    pictures = open_pictures(source, pairs, stage.folder)
    if pictures.skipped:
        count = f"{len(pictures.skipped)} of {len(pairs)}"
        job.stages.say(f"pictures: skipped {count}, the first: {pictures.skipped[0]}")
    return pictures


def make_embedded(job: Job) -> tuple[Path, str]:
    """Stage `data`: the embedded set that the recipe names, and its fingerprint."""
    recipe, seed = job.recipe.data, job.recipe.seed
    if recipe.embedded == "compositions":
        config = seeded(recipe.compositions, seed)
    else:
        config = seeded(recipe.openmoji, seed)

    def work(out: Path) -> None:
        with progress_bar("drawing pictures", "picture") as progress:
            if isinstance(config, CompositionsRecipe):
                from cm3leon.data.compositions import write_compositions

                write_compositions(out, config, recipe.size, progress)
            else:
                from cm3leon.data.openmoji import write_openmoji

                write_openmoji(out, config, recipe.size, progress)

    stage = job.stages.run("data", [recipe.embedded, config, recipe.size], [], work)
    return stage.folder, stage.fingerprint


def make_text_tokenizer(job: Job, pictures: Pictures) -> Tokenizer:
    """Stage `texttok`: sentencepiece on the captions of the training split."""
    recipe = job.recipe.texttok

    def work(out: Path) -> None:
        captions = [pictures.pairs.captions[i] for i in pictures.pairs.rows("train")]
        TextTokenizer.train(
            captions, vocab_size=recipe.vocab_size, num_masks=recipe.num_masks
        ).save(out / "tokenizer")

    if recipe.tokenizer is not None:
        job.stages.given("texttok", fingerprint_of_part(recipe.tokenizer))
    else:
        job.stages.run("texttok", recipe, ["pictures"], work)
    return parts.open_text_tokenizer(job.recipe, trust=True)


def leave_out_long_captions(job: Job, pictures: Pictures, text: Tokenizer) -> Pictures:
    """Stage `captions`: the pairs whose caption fits into a sequence beside its picture's codes."""
    recipe = job.recipe
    if recipe.imagetok.tokenizer is None:
        image = recipe.imagetok.model
    else:
        image = parts.open_image_tokenizer(recipe, job.device, trust=True)
    codes = (recipe.data.size // image.downsampling) ** 2
    most, views = recipe.decoder.max_length - codes - 3, recipe.decoder.views  # <eos> <break> <eos>

    def work(out: Path) -> None:
        write_long_captions(pictures, text, most, views, out)

    stage = job.stages.run("captions", [most, views], ["pictures", "texttok"], work)
    left, long = without_long_captions(pictures, stage.folder)
    if long:
        count = f"{len(long)} of {len(pictures.pairs)}"
        job.stages.say(f"captions: left out {count}, the first: {long[0]}")
    return left


def make_image_tokenizer(job: Job, pictures: Pictures) -> ImageTokenizer:
    """Stage `imagetok`: the VQGAN, on pictures of the training split."""
    recipe, seed = job.recipe.imagetok, job.recipe.seed

    def work(out: Path) -> None:
        from cm3leon.training.image_tokenizer import left_out, train_image_tokenizer

        for line in left_out(recipe, any(pictures.boxes)):
            job.stages.say(f"imagetok: {line}")
        train_image_tokenizer(
            recipe,
            pictures,
            out,
            seed=seed,
            device=job.device,
            precision=job.precision,
            checkpoint_every=job.recipe.checkpoint_every,
            trainer=job.recipe.trainer,
        )

    if recipe.tokenizer is not None:
        job.stages.given("imagetok", fingerprint_of_part(recipe.tokenizer))
    else:
        config = [recipe, seed, job.precision]
        job.stages.run("imagetok", config, ["pictures"], work, resumable=True)
    return parts.open_image_tokenizer(job.recipe, job.device, trust=True)


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
    pictures: Pictures,
    tokenizers: Tokenizers,
    memory: Memory,
    neighbours: Neighbours,
) -> Decoder:
    """Stage `decoder`: CM3 pretraining with retrieved documents."""
    recipe, seed = job.recipe.decoder, job.recipe.seed
    retrieve = job.recipe.evaluation.retrieve

    def work(out: Path) -> None:
        from cm3leon.training.decoder import train_decoder

        train_decoder(
            recipe,
            tokenizers,
            memory.documents,
            pictures.pairs,
            neighbours,
            out,
            retrieve=retrieve,
            seed=seed,
            device=job.device,
            precision=job.precision,
            checkpoint_every=job.recipe.checkpoint_every,
            trainer=job.recipe.trainer,
        )

    config = [recipe, seed, job.precision, retrieve]
    inputs = ["shards", "retrieval"]
    job.stages.run("decoder", config, inputs, work, resumable=True, together=True)
    return parts.open_decoder(job.recipe, job.device)
