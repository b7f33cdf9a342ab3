"""Multiple choice: what a text chooses, and accuracy by groups."""

import string

import numpy as np
import pytest
from hypothesis import given, strategies as st

from cm3leon.evaluation.measures.choices import Accuracy, accuracy_by, chosen_option, right_choices

OPTIONS = ["a river", "a lake", "Salt water", "water"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("B", 1), ("b", 1), ("(B)", 1), ("(b)", 1), ("B.", 1), (" b) ", 1), ("B. a lake", 1),
        ("(B) a lake", 1), ("The answer is B.", 1), ("the answer is (b)", 1), ("Answer: B", 1),
        ("The answer is: B, because A is a river.", 1), ("Option B", 1),
        ("(A) flows, so it is (B).", 1), ("Because (A) flows. The answer is (B).", 1),
        ("The answer is (B), not (A).", 1), ("a lake", 1), ("A LAKE!", 1), ("lake", None),
        ("It is a lake, I think.", 1), ("salt water", 2), ("It is salt water.", 2), ("water", 3),
        ("a river or a lake", None), ("(Z)", None), ("E", None), ("", None), ("?", None),
        ("A river", 0), ("A good question", None), ("The answer is a lake.", 1),
    ],
)  # fmt: skip
def test_what_a_text_chooses(text, wanted):
    assert chosen_option(text, OPTIONS) == wanted


def test_accents_scripts_and_signs_count():
    options = ["-3", "3", "Café", "犬"]
    found = [chosen_option(text, options) for text in ("-3.", "3", "cafe\u0301", "犬", "cafe")]
    assert found == [0, 1, 2, 3, None]


@given(st.integers(1, 26), st.data())
def test_letters_choose_what_they_stand_for(count, data):
    options = [f"thing {number}" for number in range(count)]
    place = data.draw(st.integers(0, count - 1))
    letter = data.draw(st.sampled_from([string.ascii_uppercase, string.ascii_lowercase]))[place]
    form = data.draw(st.sampled_from(["{}", "({})", "{}.", "The answer is {}.", "({}) " + "x"]))
    assert chosen_option(form.format(letter), options) == place
    assert chosen_option(options[place], options) == place


@given(st.text(), st.lists(st.text(), min_size=1, max_size=26))
def test_any_text_chooses_an_option_or_none(text, options):
    assert chosen_option(text, options) in {None, *range(len(options))}


def test_accuracy_by_groups():
    right = right_choices(["A", "b", "x", "(B)"], [["p", "q"]] * 4, [0, 0, 1, 1])
    assert right.tolist() == [True, False, False, True]
    facts = [
        {"subject": "biology", "grade": "grade3", "modality": "text"},
        {"subject": "biology", "grade": "grade12"},
        {"subject": "history", "grade": "grade6"},
        {"grade": None},
    ]
    found = accuracy_by(right, facts)
    assert found["subject"] == {"biology": Accuracy(0.5, 2), "history": Accuracy(0.0, 1)}
    assert found["grade"] == {"1-6": Accuracy(0.5, 2), "7-12": Accuracy(0.0, 1)}
    assert found["modality"] == {"text": Accuracy(1.0, 1)}
    assert accuracy_by(right, [{}] * 4) == {}


@pytest.mark.parametrize(
    ("said", "options", "answers", "message"),
    [
        (["a", None], [["x"]] * 2, [0, 0], r"said\[1\]: wanted text, got None"),
        (["a"], [["x"]], [1], r"answers\[0\]: wanted the place of one of 1 options, got 1"),
        (["a"], [["x"]] * 2, [0], "options: wanted 1, one for each, got 2"),
        (["a"], [["x"]], [], "answers: wanted 1, one for each, got 0"),
        (["a"], [["x", None]], [0], r"options\[1\]: wanted text, got None"),
        (["a"], [["x"] * 27], [0], "options: wanted at most 26, got 27"),
    ],
)
def test_odd_inputs_are_named(said, options, answers, message):
    with pytest.raises(ValueError, match=message):
        right_choices(said, options, answers)
    with pytest.raises(ValueError, match="facts: wanted 2, one for each, got 1"):
        accuracy_by(np.array([True, False]), [{}])
