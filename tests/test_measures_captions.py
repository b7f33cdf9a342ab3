"""CIDEr-D, BLEU and ROUGE-L against pycocoevalcap's own scorers; the words of captions."""

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from pycocoevalcap.bleu.bleu import Bleu as TheirBleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from cm3leon.evaluation.measures.caption_words import caption_words
from cm3leon.evaluation.measures.cider import CiderD, cider_d
from cm3leon.evaluation.measures.overlap import Bleu, bleu, rouge_l

GOLDEN = [
    ["a red ball on the grass", "the ball is red"],
    ["two dogs run in the park", "dogs playing in a park"],
    ["a man rides a horse"],
]
TEXT = st.lists(st.sampled_from(["a", "b", "c", "ä", "犬", "नमस्ते", "1,0"]), max_size=9).map(
    " ".join
)
SETS = st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=4)), min_size=1, max_size=6)


def theirs(captions, references):
    said = {i: [text] for i, text in enumerate(captions)}
    return [
        scorer.compute_score(dict(enumerate(references)), said, **more)
        for scorer, more in ((Cider(), {}), (TheirBleu(4), {"verbose": 0}), (Rouge(), {}))
    ]


def test_golden_values_of_cider():
    said = ["a red ball on the grass", "a dog in the park", "a man rides a horse"]
    found = cider_d(said, GOLDEN)
    np.testing.assert_allclose(found, [5.701330716, 2.2691578183, 10], rtol=1e-9)
    assert found.mean() == pytest.approx(5.990162844768707, rel=1e-12)
    references = [["a red ball"], ["two dogs run in the park"]]
    found = cider_d(["a red ball a red ball a red ball", "x"], references)
    assert found[0] == pytest.approx(1.3303951349, rel=1e-9)
    assert cider_d(["a b"], [["a b"]]) == 0


@settings(deadline=None)  # the first call imports
@given(SETS)
def test_all_three_are_pycocoevalcaps(examples):
    captions, references = map(list, zip(*examples, strict=True))
    # pycocoevalcap's CIDEr asserts on a set without any word
    assume(any(text for texts in references for text in texts))
    (_, cider), (four, _), (_, rouge) = theirs(captions, references)
    ours = cider_d(captions, references, words=str.split)
    np.testing.assert_allclose(ours, cider, rtol=1e-9, atol=1e-12)
    ours = bleu(captions, references, words=str.split)
    np.testing.assert_allclose(ours, four, rtol=1e-9, atol=1e-12)
    ours = rouge_l(captions, references, words=str.split)
    np.testing.assert_allclose(ours, rouge, rtol=1e-12, atol=1e-12)


def test_all_three_are_pycocoevalcaps_on_many():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(60)]

    def text():
        return " ".join(rng.choice(words, rng.integers(1, 16)) if rng.random() > 0.02 else [])

    captions = [text() for _ in range(300)]
    references = [[text() for _ in range(rng.integers(1, 7))] for _ in captions]
    (_, cider), (four, _), (_, rouge) = theirs(captions, references)
    np.testing.assert_allclose(cider_d(captions, references, words=str.split), cider, rtol=1e-9)
    np.testing.assert_allclose(bleu(captions, references, words=str.split), four, rtol=1e-9)
    np.testing.assert_allclose(rouge_l(captions, references, words=str.split), rouge, rtol=1e-12)


def test_rows_are_scored_as_if_they_were_all():
    rng = np.random.default_rng(1)
    captions = [" ".join(rng.choice(list("abcdefg"), 6)) for _ in range(12)]
    references = [[" ".join(rng.choice(list("abcdefg"), 5)) for _ in range(3)] for _ in captions]
    rows = rng.integers(0, 12, 12)
    said, wanted = [captions[i] for i in rows], [references[i] for i in rows]
    found = CiderD(captions, references).scores(rows)
    np.testing.assert_allclose(found, cider_d(said, wanted), rtol=1e-12)
    found = Bleu(captions, references).scores(rows)
    np.testing.assert_allclose(found, bleu(said, wanted), rtol=1e-12)


@given(st.permutations(range(3)), st.permutations(range(2)))
def test_neither_the_order_of_pictures_nor_of_references_matters(pictures, order):
    said = ["the red ball", "two dogs in a park", "a horse"]
    wanted = [texts if len(texts) == 1 else [texts[i] for i in order] for texts in GOLDEN]
    there, here = [said[i] for i in pictures], [wanted[i] for i in pictures]
    for score in (cider_d, rouge_l):
        np.testing.assert_allclose(score(there, here), score(said, GOLDEN)[pictures], rtol=1e-12)
    np.testing.assert_allclose(bleu(there, here), bleu(said, GOLDEN), rtol=1e-12)


@pytest.mark.parametrize(("length", "most"), [(1, 2.5), (2, 5), (3, 7.5), (4, 10), (7, 10)])
def test_a_perfect_caption_has_the_most_that_its_length_allows(length, most):
    said = [" ".join(f"{name}{i}" for i in range(length)) for name in "äб犬"]
    references = [[text] for text in said]
    np.testing.assert_allclose(cider_d(said, references), most)
    np.testing.assert_allclose(rouge_l(said, references), 1)
    np.testing.assert_allclose(bleu(said, references)[: min(length, 4)], 1, atol=1e-8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("man's", "man 's"), ("isn't", "is n't"), ("can't", "ca n't"), ("cannot", "can not"),
        ("gonna", "gon na"), ("shouldn't've", "should n't 've"), ("don’t", "do n't"),
        ("red-brown t-shirt AT&T 1,000 3/4 o'clock foo_bar",
         "red-brown t-shirt at&t 1,000 3/4 o'clock foo_bar"),
        ("U.S. p.m. Mr.", "u.s. p.m. mr."), ("in the park.", "in the park"), ("$5.00", "$ 5.00"),
        ("50%", "50 %"), ("5:30pm", "5:30 pm"), ("wait...what", "wait what"), ("so?!", "so ?!"),
        ("(a) [b]", "-lrb- a -rrb- -lsb- b -rsb-"), ("a -- b – c — d", "a b c d"),
        ("“a” ‘b’ ``c'' 'dd' \"e\"", "a b c dd e"), ("Yes, it: is; so! no?", "yes it is so no"),
        ("Ein Café\n\tÄrger", "ein café ärger"), ("cafe\u0301", "café"),
        ("नमस्ते दुनिया", "नमस्ते दुनिया"),
        ("dog🐶", "dog 🐶"), ("", ""), (" . ", ""),
    ],
)  # fmt: skip
def test_words_are_those_of_the_java_tokeniser(text, words):
    assert caption_words(text) == words.split()


@settings(deadline=None)
@given(st.text())
def test_words_hold_no_space_and_stay_when_split_again(text):
    words = caption_words(text)
    assert all(words) and " ".join(words).split() == words
    assert caption_words(" ".join(words)) == words


@pytest.mark.parametrize("score", [cider_d, bleu, rouge_l])
@pytest.mark.parametrize(
    ("captions", "references", "message"),
    [
        (["a", None], [["a"], ["a"]], r"captions\[1\]: wanted text, got None"),
        ([], [], "captions: wanted at least one text, got none"),
        ("ab", [["a"], ["b"]], "captions: wanted a list of texts, got a text"),
        (["a", "b"], ["a", "b"], r"references\[0\]: wanted a list of texts, got a text"),
        (["a", "b"], [["a"], []], r"references\[1\]: wanted at least one text, got none"),
        (["a", "b"], [["a"], [3]], r"references\[1\]\[0\]: wanted text, got int"),
        (["a", "b"], [["a"]], "references: wanted 2, one for each, got 1"),
    ],
)
def test_odd_inputs_are_named(score, captions, references, message):
    with pytest.raises(ValueError, match=message):
        score(captions, references)
