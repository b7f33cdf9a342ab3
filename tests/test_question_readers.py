"""Readers of published questions, on records in the true form."""

from typing import Any

import pytest
from instruction_files import OTHER_SCRIPTS, pictures, read, seen, write


def ten(*answers: str, **more) -> list[dict]:
    return [{"answer_id": n + 1, "answer": a, "answer_confidence": "yes", **more}
            for n, a in enumerate(answers)]  # fmt: skip


def asked(number: int, question: Any = "What is it?") -> dict:
    return {"image_id": 42, "question": question, "question_id": number}


def test_vqa2(tmp_path):
    pictures(tmp_path / "val2014", "COCO_val2014_000000000042.jpg")
    pictures(tmp_path / "test2015", "COCO_test2015_000000000042.jpg")
    questions = [asked(42000), asked(42001, OTHER_SCRIPTS), asked(42002, "  "), asked(42003),
                 asked(42004, 5), {**asked(42005), "image_id": 43}]  # fmt: skip
    answers = [
        {"question_id": number, "image_id": 42, "question_type": "what is", "answer_type": "other",
         "multiple_choice_answer": "ball", "answers": ten(*["ball"] * 6, *["a ball"] * 4)}
        for number in (42000, 42001, 42002, 42004, 42005)
    ]  # fmt: skip
    write(tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": questions})
    beside = write(tmp_path / "v2_mscoco_val2014_annotations.json", {"annotations": answers})
    for subset in ("test2015", "test-dev2015"):
        write(tmp_path / f"v2_OpenEnded_mscoco_{subset}_questions.json",
              {"questions": [asked(42900 + len(subset))]})  # fmt: skip
    found, bad, _ = read("vqa2", tmp_path)
    assert [(one.name, one.split) for one in found] == [
        ("42912", "test"), ("42000", "validation"), ("42001", "validation"),
    ]  # fmt: skip
    assert found[0].texts == {"question": "What is it?"}
    assert seen(found[0]) == {"image": "picture COCO_test2015_000000000042.jpg"}
    assert found[1].texts["answer"] == "ball" and found[2].texts["question"] == OTHER_SCRIPTS
    assert found[1].facts == {
        "question_id": 42000, "image_id": 42, "answers": ["ball"] * 6 + ["a ball"] * 4,
        "question_type": "what is", "answer_type": "other",
    }  # fmt: skip
    assert [(line.key, line.reason.partition(", got no such")[0]) for line in bad] == [
        ("question 42002", "question: wanted a text, got an empty one"),
        ("question 42003", "wanted its answers in the annotations, got none"),
        ("question 42004", "question: wanted a text, got 5"),
        ("question 42005", "wanted the picture COCO_val2014_000000000043.jpg"),
    ]
    beside.unlink()
    with pytest.raises(ValueError, match="v2_mscoco_val2014_annotations.json beside it, got none"):
        read("vqa2", tmp_path)


def test_okvqa_learns_what_was_said_and_scores_on_stems(tmp_path):
    pictures(tmp_path / "train2014", "COCO_train2014_000000000042.jpg")
    given = ten("surf", "surf", "swim", "", raw_answer="?")
    for answer, raw in zip(given, ("surfing", "surfing", "swimming", " "), strict=True):
        answer["raw_answer"] = raw
    write(tmp_path / "OpenEnded_mscoco_train2014_questions.json", {"questions": [asked(420)]})
    write(tmp_path / "mscoco_train2014_annotations.json", {"annotations": [
        {"question_id": 420, "image_id": 42, "question_type": "four", "answer_type": "other",
         "answers": given}]})  # fmt: skip
    (found,), bad, _ = read("okvqa", tmp_path)
    assert found.texts["answer"] == "surfing" and not bad
    assert found.facts["answers"] == ["surf", "surf", "swim", ""]


def test_vizwiz(tmp_path):
    names = [f"VizWiz_train_{n:08}.jpg" for n in range(4)]
    pictures(tmp_path / "train", *names)
    pictures(tmp_path / "test", "VizWiz_test_00000007.jpg")

    def row(name, *answers, question="What?"):
        return {"image": name, "question": question, "answers": ten(*answers),
                "answer_type": "unanswerable", "answerable": 0}  # fmt: skip

    rows = [
        row(names[0], "unanswerable", "unanswerable", "can", ""),
        row(names[1], "", "", OTHER_SCRIPTS),
        row(names[2], "", " "),
        row(names[3], "a", question=""),
        row("http://a.org/0.jpg", "a"),
    ]
    write(tmp_path / "Annotations/train.json", rows)
    write(tmp_path / "Annotations/test.json",
          [{"image": "VizWiz_test_00000007.jpg", "question": "Who?"}])  # fmt: skip
    found, bad, unneeded = read("vizwiz", tmp_path)
    assert [one.texts.get("answer") for one in found] == ["unanswerable", OTHER_SCRIPTS, None]
    assert found[0].facts["answers"] == ["unanswerable", "unanswerable", "can", ""]
    assert [one.facts["question_id"] for one in found] == [0, 1, 7]
    assert [one.reason for one in unneeded] == ["no answer but empty ones"]
    assert [line.key for line in bad] == [names[3], "http://a.org/0.jpg"]
    assert "wanted a path inside" in bad[1].reason


def problem(**more) -> dict:
    return {"question": "Which is\nlarger?", "choices": ["a cat ", "an  elephant"], "answer": 1,
            "hint": "", "image": "image.png", "lecture": "Long.", "solution": "It weighs more.",
            "split": "train", "grade": "grade2", "subject": "natural science", **more}  # fmt: skip


def test_science_qa(tmp_path):
    pictures(tmp_path / "images/train/1", "image.png")
    pictures(tmp_path / "test/5", "image.png")
    problems = {
        "1": problem(), "2": problem(image=None), "3": problem(), "4": problem(answer=2),
        "5": problem(split="test", hint="See.", solution=""), "6": problem(split="../.."),
    }  # fmt: skip
    write(tmp_path / "problems.json", problems)
    found, bad, unneeded = read("science_qa", tmp_path)
    assert found[0].texts == {
        "question": "Which is larger?", "context": "N/A", "options": "(A) a cat (B) an elephant",
        "answer": "(B)", "explanation": "It weighs more.",
    }  # fmt: skip
    assert found[0].facts == {"question_id": "1", "answer": 1, "choices": ["a cat", "an elephant"],
                              "grade": "grade2", "subject": "natural science"}  # fmt: skip
    assert (found[1].split, found[1].texts["context"], found[1].texts["explanation"]) == (
        "test", "See.", "",
    )  # fmt: skip
    assert [one.reason for one in unneeded] == ["no picture"]
    assert [line.key for line in bad] == ["problem 3", "problem 4", "problem 6"]
    assert "wanted one of 2 choices, got 2" in bad[1].reason
