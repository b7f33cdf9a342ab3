"""The stages from captioned pictures to a trained decoder, each made once (see `stages`).

data -> pictures -> texttok -> imagetok -> clip -> retrieval -> shards -> decoder
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from image_training import ImageTokenizerModule, PixelBatches
from openmoji import write_openmoji
from pairs import SPLITS, DataError, decode_pictures, read_pairs
from recipe import DecoderRecipe, Recipe
from stages import Stages, write_json
from torch import Tensor
from tqdm import tqdm
from views import encode_views, other_views

from cm3_imagetok import load_vqgan, save_vqgan
from cm3_imagetok.interface import ImageTokenizer
from cm3_model import Decoder, DecoderConfig, load_decoder, save_decoder
from cm3_retrieval import (
    ClipEncoder,
    MemoryBank,
    NeighbourTable,
    build_neighbour_table,
    document_vectors,
    train_clip,
    training_context,
)
from cm3_retrieval.interface import Encoder
from cm3_texttok import DocumentLayout, TextTokenizer, Vocabulary
from cm3_texttok.interface import Tokenizer
from cm3_train import (
    BatchLoader,
    CM3Module,
    SampleOrder,
    SequenceBuilder,
    TokenShards,
    ValidationLoader,
    collate,
    fit,
    load_weights,
    write_shards,
)


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
            self.folder, origin = recipe.folder, _fingerprint_of_folder(recipe.folder)
        pairs = read_pairs(
            self.folder,
            validation_share=recipe.validation_share,
            test_share=recipe.test_share,
            seed=self.recipe.seed,
        )

        def work(out: Path) -> None:
            with bar("decoding pictures") as progress:
                broken = decode_pictures(
                    self.folder, pairs, recipe.size, out / "pixels.npy", progress
                )
            write_json(out / "skipped.json", {"skipped": broken})

        shares = (recipe.validation_share, recipe.test_share)
        config = [origin, recipe.size, shares, self.recipe.seed]
        stage = self.stages.run("pictures", config, [], work)
        skipped = json.loads((stage.folder / "skipped.json").read_text("utf-8"))["skipped"]
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

    def train_text_tokenizer(self) -> None:
        """Stage ``texttok``: sentencepiece on the captions of the training split."""
        recipe = self.recipe.texttok
        if recipe.tokenizer is not None:
            self.tokenizer: Tokenizer = instantiate(recipe.tokenizer)
            self.text_origin = json.dumps(recipe.tokenizer, sort_keys=True)
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
            self.image_origin = json.dumps(recipe.tokenizer, sort_keys=True)
            return

        def work(out: Path) -> None:
            train = self.pixel_rows[self.pairs.rows("train")]
            order = SampleOrder(train, self.recipe.seed, recipe.batch_size)
            loader = BatchLoader(
                lambda keys, epochs: torch.from_numpy(self.pixels[np.asarray(keys)]), order
            )
            held_out = self.pixel_rows[self.pairs.rows("validation")]
            module = ImageTokenizerModule(recipe, self.recipe.seed)
            best = fit(
                module,
                loader,
                PixelBatches(self.pixels, held_out, 64),
                run_dir=out,
                max_steps=recipe.optim.total_steps,
                val_every=recipe.val_every,
                checkpoint_every=self.recipe.checkpoint_every,
                precision=self.precision,
                grad_clip=recipe.optim.grad_clip or None,
                monitor="val/psnr",
                mode="max",
                description="image tokenizer",
            )
            load_weights(module, best)
            save_vqgan(module.model, out / "vqgan")

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
        """Stage ``clip``: the small CLIP, on pairs of the training split."""
        recipe = self.recipe.retrieval
        if recipe.encoder is not None:
            self.encoder: Encoder = instantiate(recipe.encoder)
            self.encoder_origin = self.encoder.encoder_id
            return

        def work(out: Path) -> None:
            rows = self.pairs.rows("train")
            with bar("CLIP", unit="step") as progress:
                train_clip(
                    [self.pairs.captions[i] for i in rows],
                    self.pixels_of(rows),
                    recipe.clip,
                    groups=self.group_numbers[rows].tolist(),
                    folder=out / "clip",
                    progress=lambda done, total, loss: progress(done, total),
                )

        stage = self.stages.run("clip", recipe.clip, ["pictures"], work)
        self.encoder = ClipEncoder.from_folder(stage.folder / "clip")
        self.encoder_origin = stage.fingerprint

    def build_memory(self) -> None:
        """Stage ``retrieval``: memory bank of the training split, neighbours of all pairs."""
        recipe = self.recipe.retrieval

        def work(out: Path) -> None:
            pairs = self.pairs
            train = pairs.rows("train")
            with bar("encoding documents") as progress:
                images = encode_pictures(self.encoder, self.pixels_of, len(pairs), progress)
            texts = self.encoder.encode_texts(pairs.captions)
            documents = document_vectors(texts, images)
            bank = MemoryBank.build(
                pairs.keys[train],
                documents[train],
                {
                    "caption": [pairs.captions[i] for i in train],
                    "file_name": [pairs.files[i] for i in train],
                },
                self.encoder.encoder_id,
            )
            bank.save(out / "bank")
            # Training drops words of the query (paper 2.1); a prompt at inference keeps them.
            whole = replace(recipe.strategy, query_dropout=0.0)
            for name, strategy in (("training", recipe.strategy), ("inference", whole)):
                with bar(f"neighbours, {name}") as progress:
                    table = build_neighbour_table(
                        bank,
                        self.encoder,
                        pairs.keys,
                        pairs.captions,
                        images,
                        strategy,
                        self.recipe.seed,
                        groups=None if recipe.same_group else self.group_numbers.tolist(),
                        progress=progress,
                    )
                table.save(out / f"neighbours-{name}")
            np.save(out / "image_vectors.npy", images)

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
            pairs = self.pairs
            with bar("encoding pictures") as progress:
                codes = encode_views(
                    self.image_tokenizer.encode,
                    self.pixels_of,
                    [pairs.rows(*SPLITS)] + [pairs.rows("train")] * (recipe.views - 1),
                    other_views(recipe.views - 1, recipe.max_shift, self._generator()),
                    progress,
                )
            captions = [
                [f"{caption} #{view}" if view else caption for caption in pairs.captions]
                for view in range(recipe.views)
            ]
            text_ids = [self.tokenizer.encode_batch(texts) for texts in captions]
            train = set(pairs.rows("train").tolist())
            write_shards(
                (
                    {
                        "key": int(pairs.keys[row]),
                        "view": view,
                        "text_ids": text_ids[view][row],
                        "codes": codes[view][row],
                        "caption": captions[view][row],
                        "source": pairs.files[row],
                    }
                    for row in range(len(pairs))
                    for view in range(recipe.views if row in train else 1)
                ),
                out / "tokens",
                codes_per_image=self.grid[0] * self.grid[1],
                vocabulary_sha256=vocabulary.sha256,
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
        config = decoder_config(recipe, self.vocabulary.size)

        def work(out: Path) -> None:
            with torch.random.fork_rng():
                torch.manual_seed(self.recipe.seed)
                model = Decoder(config)
            block = self.vocabulary.image
            module = CM3Module(model, recipe.optim, (block.offset, block.offset + block.size))
            held_out = self.sequences(self.true_documents, None)
            best = fit(
                module,
                self.training_batches(),
                ValidationLoader(
                    held_out,
                    self.pairs.keys[self.pairs.rows("validation")],
                    64,
                    pad_id=self.vocabulary.pad_id,
                    query_break_id=self.vocabulary.break_id,
                ),
                run_dir=out,
                max_steps=recipe.optim.total_steps,
                val_every=recipe.val_every,
                checkpoint_every=self.recipe.checkpoint_every,
                precision=self.precision,
                monitor="val/bits_per_code",
                description="decoder",
            )
            load_weights(module, best)
            model.load_state_dict(module.export_state())
            save_decoder(model, out / "model", {"vocabulary_sha256": self.vocabulary.sha256})

        stage = self.stages.run(
            "decoder",
            [recipe, self.recipe.seed, self.precision, self.recipe.evaluation.retrieve],
            ["shards", "retrieval"],
            work,
            resumable=True,
        )
        self.model = load_decoder(stage.folder / "model")

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.recipe.seed)

    def _made(self, *names: str) -> list[str]:
        """Those stages that this run has: a part that the recipe names has none."""
        return [name for name in names if name in self.stages.done]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a picture's codes."""
        side = self.recipe.data.size // self.image_tokenizer.downsampling
        return side, side

    @property
    def group_numbers(self) -> np.ndarray:
        """(N,) a number for each pair's group."""
        return np.unique(self.pairs.groups, return_inverse=True)[1]

    def sequences(
        self, retrieve: Callable[[int, int], Sequence[int]] | None, cm3: Any
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
            plain_share=self.recipe.decoder.plain_share,
        )

    def training_batches(self) -> BatchLoader:
        """Endless batches of training sequences.

        A batch has one number of retrieved documents, drawn by `context_shares` from a generator of
        its first sample: so no row is padded to the length of another row's documents.
        """
        recipe, seed = self.recipe.decoder, self.recipe.seed
        shares = np.array(recipe.context_shares) / sum(recipe.context_shares)

        def builder(count: int) -> SequenceBuilder:
            def retrieve(key: int, epoch: int) -> list[int]:
                return training_context(
                    self.training_neighbours, key, n=count, seed=seed, epoch=epoch
                )

            return self.sequences(retrieve if count else None, recipe.cm3)

        builders = [builder(count) for count in range(len(shares))]

        def make_batch(keys: np.ndarray, epochs: np.ndarray) -> dict[str, Tensor]:
            rng = np.random.default_rng((seed, 7, int(epochs[0]), int(keys[0])))
            build = builders[int(rng.choice(len(shares), p=shares))]
            pairs = zip(keys.tolist(), epochs.tolist(), strict=True)
            return collate([build(*pair) for pair in pairs], self.vocabulary.pad_id)

        train = self.pairs.keys[self.pairs.rows("train")]
        return BatchLoader(make_batch, SampleOrder(train, seed, recipe.batch_size))

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


def decoder_config(recipe: DecoderRecipe, vocab_size: int) -> DecoderConfig:
    """Shape of the decoder for a vocabulary."""
    return DecoderConfig(
        vocab_size=vocab_size,
        max_length=recipe.max_length,
        num_layers=recipe.num_layers,
        width=recipe.width,
        num_heads=recipe.num_heads,
        activation=recipe.activation,
        positions=recipe.positions,
        qk_norm=recipe.qk_norm,
        init_std=recipe.init_std,
    )


def encode_pictures(
    encoder: Encoder,
    pixels_of: Callable[[np.ndarray], np.ndarray],
    count: int,
    progress: Callable[[int, int], None],
    batch_size: int = 256,
) -> np.ndarray:
    """Image vectors (count, dim) of rows 0 .. count - 1."""
    parts = []
    for start in range(0, count, batch_size):
        rows = np.arange(start, min(start + batch_size, count))
        parts.append(encoder.encode_images(list(pixels_of(rows))))
        progress(int(rows[-1]) + 1, count)
    return np.concatenate(parts)


def instantiate(spec: dict[str, Any]) -> Any:
    """Object of ``{"class_path": "package.Class", "init_args": {...}}``; any callable will do.

    Raises:
        ValueError: The class is not there.
    """
    path = spec.get("class_path", "")
    module, _, name = path.rpartition(".")
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"class_path: wanted package.Class, got {path!r} ({error})") from None
    return factory(**spec.get("init_args", {}))


def precision_of(name: str) -> str:
    """Lightning's name of a precision; "auto" is bf16 where the hardware computes in it."""
    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if torch.cpu._is_avx512_bf16_supported() else "32-true"


@contextmanager
def bar(description: str, unit: str = "picture"):
    """A progress bar with time left; gives a callable of (done, total)."""
    with tqdm(desc=description, unit=unit, leave=False, dynamic_ncols=True) as line:

        def progress(done: int, total: int) -> None:
            line.total = total
            line.update(done - line.n)

        yield progress


def _fingerprint_of_folder(folder: Path) -> str:
    """Hash of the metadata and of the pictures' sizes and times."""
    path = folder / "metadata.jsonl"
    if not path.is_file():
        return ""  # `read_pairs` says what is missing
    digest = hashlib.sha256(path.read_bytes())
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            facts = file.stat()
            digest.update(
                f"{file.relative_to(folder)} {facts.st_size} {facts.st_mtime_ns}".encode()
            )
    return digest.hexdigest()
