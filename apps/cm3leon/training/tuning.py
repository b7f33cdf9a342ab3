"""Instruction tuning of a decoder: a mixture of sets, and pretraining sequences among them.

place in an epoch -> set and record -> template -> ids -> what is cut out -> a batch (paper 4)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cm3_texttok import Instruction, InstructionLayout
from cm3_train import (
    BatchLoader,
    InstructionBuilder,
    InstructionConfig,
    LoraConfig,
    Mixture,
    PackedLoader,
    Sample,
    SampleOrder,
    ValidationLoader,
)
from cm3_train.artifact import write_json
from cm3_train.loader import build_batch
from cm3leon.decoder_recipe import DecoderRecipe
from cm3leon.instructions.sets import InstructionSet
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.parts import Documents
from cm3leon.processes import is_first
from cm3leon.trainer_recipe import TrainerRecipe
from cm3leon.training.decoder import fit_decoder
from cm3leon.training.sequences import COUNTED, OBJECTIVE_FILE, TrainingSequences


class Instructions:
    """Records of several sets by place, each in one of its task's templates.

    Args:
        sets: Of one split.
        layout: Of the words.
        mixture: Which record a place of an epoch has; None takes the sets one after another.
        documents: What may be retrieved; None retrieves nothing.
        retrieve: How often a record that has found documents is shown behind the best of them.
        max_length: Most ids of a sequence; documents that do not fit, cut-out output and all, are
            left out.
    """

    def __init__(
        self,
        sets: Sequence[InstructionSet],
        layout: InstructionLayout,
        mixture: Mixture | None,
        documents: Documents | None,
        retrieve: float,
        max_length: int,
    ) -> None:
        self.sets = sets
        self.max_length = max_length
        self.layout = layout
        self.documents = documents
        self.retrieve = retrieve
        self.mixture = mixture
        self._keys = [one.keys for one in sets]
        self._ends = np.cumsum([len(one) for one in sets])

    def __len__(self) -> int:
        """Return the places of an epoch."""
        return int(self._ends[-1]) if self.mixture is None else len(self.mixture)

    def lay_out(self, place: int, epoch: int, rng: np.random.Generator) -> Instruction:
        """Return the record of a place in one of the templates that it fills.

        Raises:
            ValueError: It fills none of them, or is damaged.
        """
        number, row = self._at(place, epoch)
        one = self.sets[number]
        record, task = one.record(int(self._keys[number][row])), one.task
        fitting = task.fitting(record.fields)
        if not fitting:
            raise ValueError(
                f"{one.folder}: wanted the fields of one of the templates of {task.name}, got "
                f"{sorted(record.fields)} in the record {self._keys[number][row]}"
            )
        template = fitting[int(rng.integers(len(fitting)))]
        shown = record.near[-1:] if rng.random() < self.retrieve else ()
        some = self.documents
        pairs = [(some.text_ids(key), some.codes(key)) for key in shown if some is not None]
        whole = self.layout.whole(template, record.fields, task.outputs, pairs)
        if pairs and len(whole.ids) + 2 > self.max_length:
            return self.layout.whole(template, record.fields, task.outputs)
        return whole

    def _at(self, place: int, epoch: int) -> tuple[int, int]:
        if self.mixture is not None:
            return self.mixture.at(place, epoch)
        number = int(self._ends.searchsorted(place, side="right"))
        return number, place - (int(self._ends[number - 1]) if number else 0)


class TuningSequences:
    """Callable `(place, epoch) -> Sample`: an instruction, or a pretraining sequence.

    That is for packed rows. A padded batch, `batch`, is of one or the other, the pretraining's of
    one number of documents, so that no row is padded to the length of another kind.

    Args:
        instructions: What builds an instruction.
        replayed: What builds a pretraining sequence; None builds none.
        keys: (N,) of the pretraining pairs.
        replay: How often one comes.
        seed: Of the run.
    """

    def __init__(
        self,
        instructions: InstructionBuilder,
        replayed: TrainingSequences | None,
        keys: np.ndarray,
        replay: float,
        seed: int,
    ) -> None:
        self.instructions = instructions
        self.replayed = replayed
        self.keys = keys
        self.replay = replay if replayed is not None and len(keys) else 0.0
        self.seed = seed

    def __call__(self, place: int, epoch: int) -> Sample:
        """Return the sequence of a place in an epoch."""
        if self.replayed is None or not self.replays(epoch, place):
            return self.instructions(place, epoch)
        return self.replayed(*self._pair(place, epoch))

    def batch(
        self, places: np.ndarray, epochs: np.ndarray, position: int, pad_id: int
    ) -> dict[str, torch.Tensor]:
        """Return the padded batch of places (B,) in epochs (B,), as `build_batch` makes it.

        Args:
            places: Of the mixture.
            epochs: Of each place.
            position: Place in the run of the global batch's first sample: draws what kind it is.
            pad_id: Fills the rows up.
        """
        if self.replayed is None or not self.replays(position):
            return build_batch(self.instructions, places, epochs, pad_id)
        pairs = map(self._pair, places.tolist(), epochs.tolist())
        keys, drawn = (np.array(side) for side in zip(*pairs, strict=True))
        return build_batch(self.replayed.drawn(position), keys, drawn, pad_id)

    def replays(self, *of: int) -> bool:
        """Tell whether pretraining's turn is at a place of an epoch, or at a batch's position."""
        return bool(np.random.default_rng((self.seed, 13, *of)).random() < self.replay)

    def _pair(self, place: int, epoch: int) -> tuple[int, int]:
        """Return key and epoch of the pretraining sequence that may stand at a place."""
        rng = np.random.default_rng((self.seed, 17, epoch, place))
        return int(self.keys[int(rng.integers(len(self.keys)))]), int(rng.integers(2**31))


def tune_decoder(
    recipe: DecoderRecipe,
    objective: InstructionConfig,
    tokenizers: Tokenizers,
    train: Instructions,
    validation: Instructions,
    replayed: TrainingSequences | None,
    pretraining_keys: np.ndarray,
    folder: Path,
    *,
    replay: float,
    val_records: int,
    seed: int,
    device: torch.device,
    precision: str,
    checkpoint_every: int,
    trainer: TrainerRecipe,
    lora: LoraConfig | None = None,
) -> None:
    """Tune, and save the best model by its loss on held-out outputs as `folder / "model"`.

    Args:
        recipe: Shape, `init_from`, optimizer, sizes.
        objective: What is cut out of an instruction, and what is learnt.
        tokenizers: The id space.
        train: The sets, mixed.
        validation: What chooses.
        replayed: As of `TuningSequences`.
        pretraining_keys: (N,) of the pretraining pairs.
        folder: Keeps checkpoints and logs; a training that was stopped there goes on.
        replay: Share of the sequences that are the pretraining's.
        val_records: Most records of validation.
        seed: Of all that is drawn.
        device: Where to train.
        precision: Lightning's name of it.
        checkpoint_every: Steps between two checkpoints.
        trainer: Processes, bad steps, checkpoints, logs.
        lora: As of `fit_decoder`.
    """
    pad_id = tokenizers.vocabulary.pad_id
    building = instruction_builder(train, objective, tokenizers, recipe.max_length, seed)
    sequences = TuningSequences(building, replayed, pretraining_keys, replay, seed)
    if is_first():
        write_json(folder / OBJECTIVE_FILE, objective_figures(sequences, len(train)))
    asking = instruction_builder(validation, None, tokenizers, recipe.max_length, seed)
    held_out = np.arange(len(validation))
    held_out = held_out[:: max(1, -(-len(held_out) // val_records))]

    def batches(rank: int, ranks: int) -> BatchLoader | PackedLoader:
        shared = recipe.batch_size if recipe.tokens_per_step else recipe.batch_size // ranks
        order = SampleOrder(np.arange(len(train)), seed, shared, ranks, rank)
        if recipe.packed_length is None:
            return BatchLoader(
                lambda places, epochs, position: sequences.batch(places, epochs, position, pad_id),
                order,
                workers=trainer.workers,
            )
        return PackedLoader(
            sequences,
            order,
            recipe.packed_length,
            pad_id=pad_id,
            accumulate=recipe.accumulate(ranks),
            workers=trainer.workers,
        )

    fit_decoder(
        recipe,
        tokenizers,
        batches,
        lambda rank, ranks: ValidationLoader(
            asking, held_out, recipe.val_batch_size, pad_id=pad_id, rank=rank, world_size=ranks
        ),
        folder,
        seed=seed,
        device=device,
        precision=precision,
        checkpoint_every=checkpoint_every,
        trainer=trainer,
        monitor="val/loss",
        lora=lora,
    )


def objective_figures(sequences: TuningSequences, places: int) -> dict[str, float]:
    """Count what training shows in up to `COUNTED` places of the first epoch.

    The streams of guidance are prompts without text, and without text and picture: the shares say
    how often training shows one, of the instructions that end in a picture.
    """
    some = range(0, places, max(1, places // COUNTED))
    found = {"replayed": 0, "documents": 0, "outputs_cut": 0, "no_text": 0, "no_input": 0}
    last = length = 0
    for place in some:
        length += len(sequences(place, 0).ids)
        if sequences.replays(0, place):
            found["replayed"] += 1
            continue
        one, spans = sequences.instructions.cut(place, 0)
        found["documents"] += one.start > 1
        found["outputs_cut"] += spans == [one.output]
        last += one.output[1] == len(one.ids) - 1
        covered = {at for start, stop in spans for at in range(start, stop)}
        texts, pictures = (
            all(at in covered for start, stop in of_kind for at in range(start, stop))
            for of_kind in (one.text_inputs, one.picture_inputs)
        )
        found["no_text"] += bool(spans) and texts and spans != [one.output]
        found["no_input"] += bool(spans) and texts and pictures and spans != [one.output]
    count = len(some)
    shares = {f"{name}_share": number / count for name, number in found.items()}
    for name in ("no_text_share", "no_input_share"):
        shares[name] *= count / max(1, last)
    return {**shares, "ids": length / count, "sequences": float(count)}


def instruction_builder(
    instructions: Instructions,
    objective: InstructionConfig | None,
    tokenizers: Tokenizers,
    max_length: int,
    seed: int,
) -> InstructionBuilder:
    """Return what builds sequences of instructions; see `cm3_train.InstructionBuilder`."""
    words = tokenizers.vocabulary
    return InstructionBuilder(
        instructions.lay_out,
        objective,
        eos_id=words.eos_id,
        break_id=words.break_id,
        infill_id=words.infill_id,
        mask_ids=words.mask_ids,
        max_length=max_length,
        seed=seed,
    )
