"""VQA accuracy: the golden values of the official code, and a transcription of its rule."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from cm3leon.evaluation.measures.vqa import normalised_answer, vqa_accuracy


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A red-brown dog", "red brown dog"), ("the two dogs.", "2 dogs"),
        ("1,000 people", "1000 people"), ("1,2,3 go-go", "123 gogo"), ("yes,it is", "yes it is"),
        ("two,three", "2 3"), ("t-shirt", "t shirt"), ("dont know", "don't know"),
        ("St. John", "st john"), ("3.5", "3.5"), ("7:30", "7:30"), ("U.S.A.", "usa"),
        ("a/b", "b"), ("none", "0"), ("a", ""), ("eleven", "eleven"), ("no.1", "no.1"),
        ("oclock", "o'clock"), ("  a\n\tdog ", "dog"), ("5 %", "5 %"), ("Whats up?", "what's up"),
        ("couldnt've", "couldn't've"), ("couldn'tve", "couldn't've"), ("its", "its"),
        ("Im", "im"), ("ten-four", "10 4"), ("Çığ!", "çığ"), ("", ""), ("犬 , 猫", "犬 猫"),
    ],
)  # fmt: skip
def test_normalised_as_the_official_code_does(text, wanted):
    assert normalised_answer(text) == wanted


@pytest.mark.parametrize(("alike", "wanted"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1)])
def test_agreement_with_ten(alike, wanted):
    found = vqa_accuracy(["cat"], [["cat"] * alike + [f"dog{i}" for i in range(10 - alike)]])
    assert found.official == pytest.approx(wanted)
    assert found.always_normalised == pytest.approx(wanted)


def test_the_official_rule_normalises_only_where_the_answers_differ():
    answers = [["cat"] * 10, ["cat"] * 9 + ["dog"], ["cat"] * 9 + [" cat\n"], ["Cat."] * 10]
    found = vqa_accuracy(["Cat", "Cat", "Cat", "cat"], answers)
    assert found.official.tolist() == [0, 1, 0, 0]
    assert found.always_normalised.tolist() == [1, 1, 1, 1]


ANSWER = st.sampled_from(["yes", "Yes", "yes.", "the yes", "no", "2", "two", "it's", "its", ""])


@given(st.lists(st.tuples(ANSWER, st.lists(ANSWER, min_size=10, max_size=10)), min_size=1))
def test_both_figures_are_the_rule_written_out(examples):
    def leave_one_out(one, ten):
        others = [ten[:i] + ten[i + 1 :] for i in range(10)]
        return sum(min(1, rest.count(one) / 3) for rest in others) / 10

    official, always = [], []
    for one, ten in examples:
        normal = normalised_answer(one), [normalised_answer(text) for text in ten]
        always.append(leave_one_out(*normal))
        official.append(leave_one_out(*(normal if len(set(ten)) > 1 else (one, ten))))
    found = vqa_accuracy(*zip(*examples, strict=True))
    np.testing.assert_allclose(found.official, official, atol=1e-12)
    np.testing.assert_allclose(found.always_normalised, always, atol=1e-12)


@given(st.text())
def test_any_text_is_normalised_to_lower_case_words(text):
    found = normalised_answer(text)
    assert found == " ".join(found.split())
    assert not set(found) & set(';/[]"{}()=+\\_-><@`,?!')


@pytest.mark.parametrize(
    ("said", "answers", "message"),
    [
        (["a"], [["a"] * 9], r"answers\[0\]: wanted 10 answers, got 9"),
        (["a"], ["a" * 10], r"answers\[0\]: wanted a list of texts, got a text"),
        (["a"], [["a"] * 9 + [None]], r"answers\[0\]\[9\]: wanted text, got None"),
        ([None], [["a"] * 10], r"said\[0\]: wanted text, got None"),
        (["a"], [["a"] * 10] * 2, "answers: wanted 1, one for each, got 2"),
        ([], [], "said: wanted at least one text, got none"),
    ],
)
def test_odd_inputs_are_named(said, answers, message):
    with pytest.raises(ValueError, match=message):
        vqa_accuracy(said, answers)
