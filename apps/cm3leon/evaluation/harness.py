"""A tuned run as a model of lmms-eval, so that its task files ask it.

    pip install 'cm3leon[lmms-eval]'
    lmms-eval --model cm3leon --model_args run=runs/tiny-sft --tasks vqav2_val_lite

lmms-eval finds the class by the entry point `lmms_eval.models`. A request is its text and its first
picture: the text is asked as the question of the task of instructions that `task` names, so that
what training showed is asked. Answers are the likeliest tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lmms_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]
from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]
from lmms_eval.models.registry_v2 import ModelManifest  # pyright: ignore[reportMissingImports]

from cm3_imagetok import square
from cm3_train import progress_bar
from cm3leon.drawing.follow import TEXT_LENGTH, answering_records
from cm3leon.parts import open_parts
from cm3leon.tuned import open_tuned


def manifest() -> ModelManifest:
    """Return what lmms-eval registers."""
    return ModelManifest(model_id="cm3leon", simple_class_path=f"{__name__}.Cm3Leon")


class Cm3Leon(lmms):
    """Answers requests of lmms-eval by a tuned run.

    Args:
        run: The run's folder.
        device: As of `cm3leon.device.device_of`.
        task: Task of instructions whose first template asks; it must have a `question` and one
            picture, `image`.
        batch_size: Requests answered at once.
        options: What else the harness hands to every model; unused.

    Raises:
        FileNotFoundError: There is no run, or it is not finished.
        ValueError: It was not tuned on the task.
    """

    def __init__(
        self,
        run: str = "runs/tiny-sft",
        device: str = "auto",
        task: str = "vqa2",
        batch_size: int | str = 32,
        **options: Any,
    ) -> None:
        super().__init__()
        self.parts = open_parts(Path(run), device)
        self.task = open_tuned(Path(run)).task(task)
        self.batch_size = 32 if batch_size == "auto" else int(batch_size)

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Answer requests; each ends before the first of its `until`, if it has some."""
        answers = [""] * len(requests)
        # requests of one limit together: what is answered does not depend on neighbours
        of_limit: dict[int, list[int]] = {}
        for place, one in enumerate(requests):
            limit = int(one.args[1].get("max_new_tokens", TEXT_LENGTH))
            of_limit.setdefault(limit, []).append(place)
        done = 0
        with progress_bar("answering") as progress:
            for limit, places in of_limit.items():
                for start in range(0, len(places), self.batch_size):
                    some = places[start : start + self.batch_size]
                    part = [requests[place].args for place in some]
                    answering = answering_records(
                        self.parts,
                        self.task,
                        [self._record(args[0], self._pictures(*args[2:6])) for args in part],
                        most=limit,
                    )
                    said = answering.carry_out(self.parts, batch_size=self.batch_size)
                    for place, text, args in zip(some, said, part, strict=True):
                        answers[place] = _before(text, args[1].get("until") or [])
                    done += len(some)
                    progress(done, len(requests))
        return answers

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Refuse: answers are written, not chosen by their likelihood."""
        raise NotImplementedError("cm3leon: wanted a task of generate_until, got loglikelihood")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Refuse: instructions have one round."""
        raise NotImplementedError("cm3leon: wanted a task of one round, got several")

    def _pictures(
        self, pictures_of: Callable[[Any], Any], place: Any, task: str, split: str
    ) -> Any:
        return pictures_of(self.task_dict[task][split][place])

    def _record(self, text: str, pictures: Sequence[Any]) -> dict[str, Any]:
        if not pictures:
            raise ValueError("cm3leon: wanted a request with a picture, got none")
        tokenizers = self.parts.tokenizers
        pixels = np.asarray(square(pictures[0].convert("RGB"), tokenizers.size))
        return {"question": text, "image": tokenizers.encode(pixels[None])[0]}


def _before(text: str, until: Sequence[str] | str) -> str:
    """Return a text up to the first of some ends."""
    for end in [until] if isinstance(until, str) else until:
        if end:
            text = text.partition(end)[0]
    return text.strip()
