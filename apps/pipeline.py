"""The stages from captioned pictures to a trained decoder, each made once (see `stages`).

data -> pictures -> texttok -> imagetok -> clip -> retrieval -> shards -> decoder
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from decoder_training import train_decoder
from image_training import left_out, train_image_tokenizer
from memory import write_memory
from openmoji import write_openmoji
from pairs import DataError, decode_pictures, fingerprint_of_folder, read_pairs
from progress import bar
from recipe import Recipe, fingerprint_of_part, instantiate, precision_of
from stages import Stages, write_json
from views import write_views

from cm3_imagetok import VQGAN, load_vqgan, to_pixels, to_tensor
from cm3_imagetok.interface import ImageTokenizer
from cm3_model import load_decoder
from cm3_retrieval import ClipEncoder, MemoryBank, NeighbourTable, train_clip
from cm3_retrieval.interface import Encoder
from cm3_texttok import DocumentLayout, TextTokenizer, Vocabulary
from cm3_texttok.interface import Tokenizer
from cm3_train import CM3Config, SequenceBuilder, TokenShards, group_repeats


class Run:
    """A recipe and its stages; the parts are loaded when they are asked for.

    Args:
        recipe: What to make.
        say: Takes one line for the user.
        frozen: Make nothing, only load what a finished run holds.
    """

    def __init__(
        self, recipe: Recipe, say: Callable[[str], None] = print, frozen: bool = False
    ) -> None:
        self.recipe = recipe
        self.stages = Stages(recipe.folder, say, frozen)
        self.say = say
        self.precision = precision_of(recipe.precision)

    def prepare_pictures(self) -> None:
        """Raw pairs, decoded to one size: stages ``data`` (embedded set only) and ``pictures``."""
        recipe = self.recipe.data
        if recipe.folder is None:
            settings = replace(recipe.openmoji, size=recipe.size)
            with bar("drawing OpenMoji") as progress:
                source = self.stages.run(
                    "data", settings, [], lambda out: write_openmoji(out, settings, progress)
                )
            self.folder, origin = source.folder, source.fingerprint
        else:
            self.folder, origin = recipe.folder, fingerprint_of_folder(recipe.folder)
        pairs = read_pairs(
            self.folder,
            validation_share=recipe.validation_share,
            test_share=recipe.test_share,
            seed=self.recipe.seed,
        )

        def work(out: Path) -> None:
            with bar("decoding pictures") as progress:
                broken, boxes = decode_pictures(
                    self.folder, pairs, recipe.size, out / "pixels.npy", progress
                )
            write_json(out / "pictures.json", {"skipped": broken, "boxes": boxes})

        shares = (recipe.validation_share, recipe.test_share)
        config = [origin, recipe.size, shares, self.recipe.seed]
        stage = self.stages.run("pictures", config, [], work)
        found = json.loads((stage.folder / "pictures.json").read_text("utf-8"))
        skipped, self.boxes = found["skipped"], found["boxes"]
        if skipped:
            first = skipped[0].split(": ", 1)[1]
            self.say(f"pictures: skipped {len(skipped)} of {len(pairs)}, the first: {first}")
        bad = [int(message.split(":", 1)[0]) for message in skipped]
        good = np.setdiff1d(np.arange(len(pairs)), bad)
        self.pixels = np.load(stage.folder / "pixels.npy", mmap_mode="r")
        self.num_skipped = len(bad)
        self.pixel_rows = good  # row of `pixels` of each pair that is left
        self.pairs = pairs.take(good)
        for split in ("train", "validation", "test"):
            if not len(self.pairs.rows(split)):
                raise DataError(f"{self.folder}: no readable picture is left in {split}")

    def pixels_of(self, rows: np.ndarray) -> np.ndarray:
        """Pixels (N, H, W, 3) uint8 of pairs by their row."""
        return np.asarray(self.pixels[self.pixel_rows[rows]])

    def through_tokenizer(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (N, H, W, 3) uint8 encoded and decoded: as the decoder could draw them at best."""
        tokenizer, parts = self.image_tokenizer, []
        for start in range(0, len(pixels), 64):
            images = to_tensor(pixels[start : start + 64])
            parts.append(to_pixels(tokenizer.decode(tokenizer.encode(images))))
        return np.concatenate(parts)

    def train_text_tokenizer(self) -> None:
        """Stage ``texttok``: sentencepiece on the captions of the training split."""
        recipe = self.recipe.texttok
        if recipe.tokenizer is not None:
            self.tokenizer: Tokenizer = instantiate(recipe.tokenizer)
            self.text_origin = fingerprint_of_part(recipe.tokenizer)
            return

        def work(out: Path) -> None:
            captions = [self.pairs.captions[i] for i in self.pairs.rows("train")]
            TextTokenizer.train(
                captions, vocab_size=recipe.vocab_size, num_masks=recipe.num_masks
            ).save(out / "tokenizer")

        stage = self.stages.run("texttok", recipe, ["pictures"], work)
        self.tokenizer = TextTokenizer.load(stage.folder / "tokenizer")
        self.text_origin = stage.fingerprint

    def train_image_tokenizer(self) -> None:
        """Stage ``imagetok``: the VQGAN, on pictures of the training split."""
        recipe = self.recipe.imagetok
        if recipe.tokenizer is not None:
            self.image_tokenizer: ImageTokenizer = instantiate(recipe.tokenizer)
            self.image_origin = fingerprint_of_part(recipe.tokenizer)
            return

        def work(out: Path) -> None:
            for line in left_out(recipe, any(self.boxes)):
                self.say(f"imagetok: {line}")
            rows, pairs = self.pixel_rows, self.pairs
            train_image_tokenizer(
                recipe,
                self.pixels,
                self.boxes,
                rows[pairs.rows("train")],
                rows[pairs.rows("validation")],
                out,
                seed=self.recipe.seed,
                precision=self.precision,
                checkpoint_every=self.recipe.checkpoint_every,
            )

        stage = self.stages.run(
            "imagetok",
            [recipe, self.recipe.seed, self.precision],
            ["pictures"],
            work,
            resumable=True,
        )
        self.image_tokenizer = load_vqgan(stage.folder / "vqgan")
        self.image_origin = stage.fingerprint

    def train_encoder(self) -> None:
        """Stage ``clip``: the small CLIP, on training pairs, plain and through the tokenizer."""
        recipe = self.recipe.retrieval
        if recipe.encoder is not None:
            self.encoder: Encoder = instantiate(recipe.encoder)
            self.encoder_origin = self.encoder.encoder_id
            return

        def work(out: Path) -> None:
            rows = self.pairs.rows("train")
            pixels = self.pixels_of(rows)
            # It also judges drawn pictures, and all of those come out of the image tokenizer.
            seen = np.concatenate([pixels, self.through_tokenizer(pixels)])
            rows = np.tile(rows, 2)
            with bar("CLIP", unit="step") as progress:
                train_clip(
                    [self.pairs.captions[i] for i in rows],
                    seen,
                    recipe.clip,
                    groups=self.group_numbers[rows].tolist(),
                    folder=out / "clip",
                    progress=lambda done, total, loss: progress(done, total),
                )

        stage = self.stages.run(
            "clip", [recipe.clip, self.image_origin], self._made("pictures", "imagetok"), work
        )
        self.encoder = ClipEncoder.from_folder(stage.folder / "clip")
        self.encoder_origin = stage.fingerprint

    def build_memory(self) -> None:
        """Stage ``retrieval``: memory bank of the training split, neighbours of all pairs."""
        recipe = self.recipe.retrieval

        def work(out: Path) -> None:
            write_memory(
                self.encoder,
                self.pairs,
                self.pixels_of,
                recipe.strategy,
                None if recipe.same_group else self.group_numbers,
                self.recipe.seed,
                out,
            )

        stage = self.stages.run(
            "retrieval",
            [recipe.strategy, recipe.same_group, self.recipe.seed, self.encoder_origin],
            self._made("pictures", "clip"),
            work,
        )
        self.bank = MemoryBank.load(stage.folder / "bank", self.encoder.encoder_id)
        self.training_neighbours = NeighbourTable.load(stage.folder / "neighbours-training")
        self.neighbours = NeighbourTable.load(stage.folder / "neighbours-inference")
        self.image_vectors = np.load(stage.folder / "image_vectors.npy")

    def write_tokens(self) -> None:
        """Stage ``shards``: captions as ids, pictures as codes."""
        recipe = self.recipe.decoder
        vocabulary = Vocabulary.from_tokenizer(self.tokenizer, self.image_tokenizer.num_codes)
        self.vocabulary, self.layout = vocabulary, DocumentLayout(vocabulary)

        def work(out: Path) -> None:
            write_views(
                self.tokenizer.encode_batch,
                self.image_tokenizer.encode,
                self.pairs,
                self.pixels_of,
                recipe.views,
                recipe.max_shift,
                out / "tokens",
                codes_per_image=self.grid[0] * self.grid[1],
                vocabulary_sha256=vocabulary.sha256,
                generator=torch.Generator().manual_seed(self.recipe.seed),
            )

        stage = self.stages.run(
            "shards",
            [recipe.views, recipe.max_shift, self.recipe.seed, self.text_origin, self.image_origin],
            self._made("pictures", "texttok", "imagetok"),
            work,
        )
        self.shards = TokenShards(stage.folder / "tokens", vocabulary.sha256)

    def train_decoder(self) -> None:
        """Stage ``decoder``: CM3 pretraining with retrieved documents."""
        recipe = self.recipe.decoder

        def work(out: Path) -> None:
            rows = self.pairs.rows("train")
            if recipe.codebook_std and self.codebook is None:
                self.say("decoder: codes start at random, for the image tokenizer is no VQGAN")
            train_decoder(
                recipe,
                self.vocabulary,
                self.sequences,
                self.training_neighbours,
                self.true_documents,
                self.pairs.keys[rows],
                self.group_numbers[rows],
                self.pairs.keys[self.pairs.rows("validation")],
                self.codebook,
                out,
                seed=self.recipe.seed,
                precision=self.precision,
                checkpoint_every=self.recipe.checkpoint_every,
            )

        stage = self.stages.run(
            "decoder",
            [recipe, self.recipe.seed, self.precision, self.recipe.evaluation.retrieve],
            ["shards", "retrieval"],
            work,
            resumable=True,
        )
        self.model = load_decoder(stage.folder / "model")

    def _made(self, *names: str) -> list[str]:
        """Those stages that this run has: a part that the recipe names has none."""
        return [name for name in names if name in self.stages.done]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a picture's codes."""
        side = self.recipe.data.size // self.image_tokenizer.downsampling
        return side, side

    @property
    def codebook(self) -> torch.Tensor | None:
        """Code vectors (num_codes, dim) of the image tokenizer, if it is a VQGAN."""
        tokenizer = self.image_tokenizer
        return tokenizer.quantize.codebook if isinstance(tokenizer, VQGAN) else None

    @property
    def group_numbers(self) -> np.ndarray:
        """(N,) a number for each pair's group."""
        return np.unique(self.pairs.groups, return_inverse=True)[1]

    def sequences(
        self, retrieve: Callable[[int, int], Sequence[int]] | None, cm3: CM3Config | None
    ) -> SequenceBuilder:
        """Builder of sequences with the given retrieval and objective."""
        words = self.vocabulary
        return SequenceBuilder(
            self.shards,
            self.layout.training,
            retrieve,
            cm3,
            eos_id=words.eos_id,
            break_id=words.break_id,
            infill_id=words.infill_id,
            mask_ids=words.mask_ids,
            max_length=self.recipe.decoder.max_length,
            seed=self.recipe.seed,
            grid=self.grid,
            plain_share=self._plain_share(),
        )

    def _plain_share(self) -> Callable[[int], float]:
        """Epoch -> how often a training picture is shown as it is."""
        recipe = self.recipe.decoder
        _, counts = np.unique(self.group_numbers[self.pairs.rows("train")], return_counts=True)
        epoch_length = int(group_repeats(counts, recipe.group_power).sum())
        start, end = recipe.plain_share, recipe.final_plain_share
        end = start if end is None else end
        last = max(1, math.ceil(recipe.optim.total_steps * recipe.batch_size / epoch_length) - 1)
        return lambda epoch: start + (end - start) * min(1.0, epoch / last)

    def true_documents(self, key: int, epoch: int = 0) -> list[int]:
        """The documents that the strategy finds for a pair's caption, the best last."""
        found = self.neighbours.candidates(key)["text"][: self.recipe.evaluation.retrieve]
        return found[::-1].tolist()

    def through_decoder(self) -> None:
        """Make every stage up to the decoder; frozen, load what drawing needs."""
        if not self.stages.frozen:
            self.prepare_pictures()
        self.train_text_tokenizer()
        self.train_image_tokenizer()
        self.train_encoder()
        self.build_memory()
        self.write_tokens()
        self.train_decoder()
