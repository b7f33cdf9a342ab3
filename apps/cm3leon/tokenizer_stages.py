"""The stages up to both tokenizers: data -> pictures -> texttok -> captions -> imagetok."""

from __future__ import annotations

from pathlib import Path

from cm3_imagetok.interface import ImageTokenizer
from cm3_texttok import TextTokenizer
from cm3_texttok.interface import Tokenizer
from cm3_train import progress_bar
from cm3leon import parts
from cm3leon.data.captions import without_long_captions, write_long_captions
from cm3leon.data.pairs import fingerprint_of_folder, read_pairs
from cm3leon.data.pixels import Pictures, open_pictures, write_pictures
from cm3leon.data_recipe import CompositionsRecipe
from cm3leon.job import Job
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.named_parts import fingerprint_of_part
from cm3leon.recipe import seeded


def make_tokenizers(job: Job) -> tuple[Tokenizers, Pictures]:
    """Make the stages up to both tokenizers.

    Raises:
        ValueError: The recipe names a prepared folder, which has them.
    """
    if job.recipe.data.prepared is not None:
        raise ValueError("data.prepared: wanted null, its folder has tokenizers; train the decoder")
    pictures = make_pictures(job)
    text = make_text_tokenizer(job, pictures)
    fitting = leave_out_long_captions(job, pictures, text)
    image = make_image_tokenizer(job, pictures)
    return parts.join_tokenizers(text, image, job.recipe, job.device), fitting


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
