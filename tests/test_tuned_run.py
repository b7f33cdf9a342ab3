"""What surrounds a tuning, without a run: what it starts from, takes, and may be asked for."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cm3_decoding import SamplingConfig
from cm3_texttok import PAPER_TASKS, Task
from cm3_train import InstructionConfig, LoraConfig, OptimConfig, write_shards
from cm3_train.artifact import write_json
from cm3leon import VERSION, generate_instructions, tuning
from cm3leon.base_run import BASE_STAGE
from cm3leon.drawing import continuation, follow
from cm3leon.fingerprint import fingerprint_of
from cm3leon.instructions.sets import InstructionSet, Record, row_of, write_task
from cm3leon.parts import recipe_of
from cm3leon.preparation.job import TaskPreparation
from cm3leon.preparation.task_driver import recipe_of_parts
from cm3leon.prepared_folder import PREPARED_FILE
from cm3leon.recipe import DataRecipe, Recipe
from cm3leon.recipe_file import TUNING_FILE, save_recipe
from cm3leon.trainer_recipe import TrainerRecipe
from cm3leon.training.tuning import Instructions
from cm3leon.tuned import Tuned, open_tuned, write_tasks
from cm3leon.tuning_recipe import EmbeddedRecipe, GuidanceRecipe, TuningEvaluation


def finished(root, name, config, inputs=()):
    fingerprint = fingerprint_of(name, config, [])
    facts = {"version": VERSION, "fingerprint": fingerprint, "inputs": dict(inputs)}
    (root / name).mkdir(parents=True)
    write_json(root / name / "stage.json", facts)
    return fingerprint


def test_a_tuned_run_whose_prepared_pairs_were_made_anew_says_so(tmp_path):
    base, run, prepared = (tmp_path / name for name in ("base", "run", "prepared"))

    prepared.mkdir()
    write_json(prepared / PREPARED_FILE, {"version": VERSION, "fingerprint": "first"})
    finished(base, "prepared", "first")
    noted = finished(run, BASE_STAGE, finished(base, "decoder", 0))
    finished(run, "decoder", 1, {BASE_STAGE: noted})
    save_recipe(Recipe(base=base, data=DataRecipe(prepared=prepared)), run)
    assert recipe_of(run).base == base
    write_json(prepared / PREPARED_FILE, {"version": VERSION, "fingerprint": "second"})
    with pytest.raises(ValueError, match="trained on another .*prepared"):
        recipe_of(run)


def test_the_parts_of_a_tuned_run_are_its_bases(tmp_path):
    base, run = tmp_path / "base", tmp_path / "run"
    options = TaskPreparation(source=tmp_path, folder=tmp_path, parts=run, task=PAPER_TASKS["edit"])
    with pytest.raises(FileNotFoundError, match="base/texttok: no finished stage"):
        recipe_of_parts(Recipe(base=base), options)
    for group in ("texttok", "imagetok"):
        finished(base, group, 0)
    assert recipe_of_parts(Recipe(base=base), options).folder == run


def test_sets_are_told_apart_by_what_trains_and_what_chooses(tmp_path):
    def write(name, split, key):
        row = row_of(key, PAPER_TASKS["write"], {"text": "K"}, {"image": np.zeros(4, np.uint16)})
        shutil.rmtree(tmp_path / name / split, ignore_errors=True)
        write_shards([row], tmp_path / name / split, codes_per_image=4, vocabulary_sha256="0")
        return tmp_path / name

    a, b = write("a", "train", 1), write("b", "train", 2)
    with pytest.raises(FileNotFoundError, match="wanted a set of instructions"):
        tuning.said_by([a])
    for folder in (a, b):
        write_task(folder, PAPER_TASKS["write"])
    with pytest.raises(FileNotFoundError, match="wanted records of validation in one of them"):
        tuning.said_by([a, b])
    write("b", "validation", 3)  # one set may have none
    before = tuning.said_by([a, b])
    assert before == tuning.said_by([a, b])
    write("b", "validation", 4)
    assert before != tuning.said_by([a, b])
    other = Task(name="write", templates=("write {text} <break> [image]",))
    write_task(b, other)
    with pytest.raises(ValueError, match="b: wanted the same task write as in the sets before it"):
        tuning.said_by([a, b])
    shutil.rmtree(a / "train")
    with pytest.raises(FileNotFoundError, match="a: wanted a set with records of training"):
        tuning.said_by([a, b])


def test_a_tuned_run_is_no_base():
    recipe = tuning.TuningRecipe(base=Path("runs/a-sft"))
    with pytest.raises(ValueError, match="base: wanted a run .* runs/a-sft, which .* runs/a"):
        tuning.tuned_recipe(recipe, Recipe(base=Path("runs/a")))


class OneRecord(list):
    """A set of one record that has found a document."""

    task, keys, folder = PAPER_TASKS["vqa2"], np.array([5]), Path("sets/a")

    def record(self, key):
        texts = {"question": "what?", "answer": "fox"}
        return Record(texts=texts, codes={"image": np.zeros(4)}, near=(8, 9))


class Lengths:
    """A layout in which an instruction has 10 ids, and a document 5."""

    def whole(self, template, record, outputs, context=()):
        length = 10 + 5 * len(context)
        return SimpleNamespace(ids=np.zeros(length), start=1 + 5 * len(context))


@pytest.mark.parametrize(("max_length", "start"), [(17, 6), (16, 1), (10, 1)])
def test_a_document_that_does_not_fit_before_an_instruction_is_left_out(max_length, start):
    documents = SimpleNamespace(text_ids=lambda key: [key], codes=lambda key: [key])
    sets = [OneRecord([0])]
    made = Instructions(sets, Lengths(), None, documents, 1.0, max_length)
    assert made.lay_out(0, 0, np.random.default_rng(0)).start == start


def test_without_a_memory_bank_nothing_stands_before_a_record():
    train = Instructions([OneRecord([0])], Lengths(), None, None, 1.0, 320)
    assert train.lay_out(0, 0, np.random.default_rng(0)).start == 1


def test_a_tuning_notes_the_tasks_that_were_shown_with_documents(tmp_path):
    task = PAPER_TASKS["vqa2"]
    for name, near in (("with", (3,)), ("without", ())):
        texts, codes = {"question": "what?", "answer": "fox"}, {"image": np.zeros(4, np.int64)}
        rows = [row_of(key, task, texts, codes, near=near if key == 7 else ()) for key in range(9)]
        write_shards(rows, tmp_path / name / "train", codes_per_image=4, vocabulary_sha256="a")
        write_task(tmp_path / name, task)
    sets = [InstructionSet(tmp_path / name, "train") for name in ("with", "without")]
    assert [one.has_documents() for one in sets] == [True, False]
    (tmp_path / "decoder").mkdir()
    save_recipe(tuning.TuningRecipe(), tmp_path, TUNING_FILE)
    write_tasks(tmp_path / "decoder", [task], ["vqa2"])
    assert open_tuned(tmp_path).with_documents == {"vqa2"}


@pytest.mark.parametrize(
    ("shown", "asked", "wanted"),
    [
        ({"vqa2"}, None, None),
        ({"vqa2"}, 0, 0),
        ({"okvqa"}, None, 0),
        (set(), None, 0),
        (set(), 2, 2),
    ],
)
def test_questions_stand_behind_documents_where_training_had_them(
    monkeypatch, capsys, shown, asked, wanted
):
    counts = []
    monkeypatch.setattr(generate_instructions, "opened", lambda parts, path: np.zeros((2, 2, 3)))
    monkeypatch.setattr(generate_instructions, "codes_of", lambda parts, pixels: [0])
    said = SimpleNamespace(carry_out=lambda parts: ["a\x1bfox"])
    monkeypatch.setattr(generate_instructions, "answering_records", lambda *a, **b: said)
    monkeypatch.setattr(generate_instructions, "say_context", lambda parts, keys: None)
    monkeypatch.setattr(
        generate_instructions,
        "retrieve_for_picture",
        lambda parts, pixels, count: counts.append(count) or [],
    )
    tuned = Tuned(
        folder=Path("runs/a"),
        tasks={"vqa2": PAPER_TASKS["vqa2"]},
        recipe=tuning.TuningRecipe(sets=(Path("sets/mine"),)),
        with_documents=frozenset(shown),
    )
    generate_instructions.answer(
        SimpleNamespace(), tuned, "ask", {"ask": ("a.png", "what?"), "retrieve": asked}
    )
    assert counts == [wanted]
    assert capsys.readouterr().out == "a fox\n"


def recipe_with(**objective):
    return tuning.TuningRecipe(name="a", objective=InstructionConfig(**objective))


def test_a_document_stays_before_a_question_that_leaves_room_for_a_short_answer(monkeypatch):
    """As in training, which leaves room for the answer that there is."""
    asked = []

    def generate_rows(model, rows, **options):
        for row in rows:
            (segment,) = row.segments
            asked.append((len(row.prompts["conditional"]), segment.max_new_tokens))
        return [torch.tensor([1])] * len(rows)

    class Layout:
        def __init__(self, tokenizer, vocabulary):
            pass

        def prompt(self, template, record, outputs, context=()):
            return np.zeros(150 + 70 * len(context), np.int64)

    monkeypatch.setattr(continuation, "generate_rows", generate_rows)
    monkeypatch.setattr(follow, "InstructionLayout", Layout)
    documents = SimpleNamespace(text_ids=lambda key: [0] * 4, codes=lambda key: [0] * 64)
    vocabulary = SimpleNamespace(
        pad_id=0, eos_id=2, break_id=3, infill_id=4, mask_ids=(5,), text_size=50
    )
    text = SimpleNamespace(decode=lambda ids: "fox")
    parts = SimpleNamespace(
        tokenizers=SimpleNamespace(text=text, vocabulary=vocabulary),
        memory=SimpleNamespace(documents=documents),
        model=SimpleNamespace(config=SimpleNamespace(max_length=320)),
        device="cpu",
    )
    task = PAPER_TASKS["science_qa"]
    answering = follow.answering_records(parts, task, [{}], contexts=[[7]])
    assert answering.carry_out(parts) == ["fox"]
    parts.model.config.max_length = 280
    follow.answering_records(parts, task, [{}], contexts=[[7]]).carry_out(parts)
    assert asked == [(220, 100), (150, 120)]


def test_guidance_by_a_stream_that_is_never_trained_is_refused():
    config = SamplingConfig(guidance_scale=3.0)
    apart = SamplingConfig(guidance_scale=7.5, image_guidance_scale=1.5)
    for scale in (config, apart):
        recipe_with().check_streams(scale)
    without = recipe_with(drop_text=0.0)
    for scale in (config, apart):
        with pytest.raises(ValueError, match="guidance_scale: wanted 1, as runs/a is tuned"):
            without.check_streams(scale)
    without.check_streams(SamplingConfig())
    with pytest.raises(ValueError, match="image_guidance_scale: wanted 1"):
        recipe_with(drop_both=0.0).check_streams(apart)


def test_a_report_by_guidance_that_is_never_trained_is_refused_before_any_work():
    with pytest.raises(ValueError, match="image_guidance_scale: wanted 1, as runs/a is tuned"):
        tuning.begin(recipe_with(drop_both=0.0))
    with pytest.raises(FileNotFoundError):  # sets have no report
        tuning.begin(replace(recipe_with(drop_both=0.0), sets=(Path("a"),), base=Path("no/base")))


def test_a_task_that_was_not_tuned_on_is_named():
    tuned = Tuned(folder=Path("runs/a"), tasks={"edit": PAPER_TASKS["edit"]}, recipe=recipe_with())
    with pytest.raises(ValueError, match="wanted a run that was tuned on write, got one of edit"):
        tuned.task("write")


def with_adapters(**changes):
    return tuning.TuningRecipe(lora=LoraConfig(), **changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GuidanceRecipe(top_p=0.0), "guidance of edit: top_p: wanted a number above 0"),
        (lambda: GuidanceRecipe(structure=-1.0), "guidance of boxes: guidance_scale"),
        (lambda: TuningEvaluation(samples=0), "evaluation.samples: wanted at least 1, got 0"),
        (lambda: TuningEvaluation(pictures=0), "evaluation.pictures: wanted at least 1, got 0"),
        (lambda: with_adapters(optim=OptimConfig(name="muon")), "optim.name: wanted adamw or"),
        (
            lambda: with_adapters(trainer=TrainerRecipe(strategy="fsdp2")),
            "trainer.strategy: wanted",
        ),
        (lambda: EmbeddedRecipe(held_out=0), "embedded.held_out: wanted at least 1, got 0"),
        (lambda: EmbeddedRecipe(edit=-1), "embedded.edit: wanted at least 0, got -1"),
    ],
)
def test_settings_are_checked_before_any_work(make, message):
    with pytest.raises(ValueError, match=message):
        make()
