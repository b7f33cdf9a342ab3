from dataclasses import dataclass

import numpy as np
import pytest

from cm3_train import CM3Config, InstructionBuilder, InstructionConfig, undo_cm3

EOS, BREAK, INFILL, MASKS = 1, 2, 3, (4, 5, 6)
NOTHING = {"drop_text": 0.0, "drop_pictures": 0.0, "drop_both": 0.0}
PLAIN = CM3Config(mask_probability=0.0)


@dataclass(frozen=True)
class Laid:
    ids: np.ndarray
    output: tuple[int, int]
    text_inputs: tuple = ()
    picture_inputs: tuple = ()
    start: int = 1


#                0    1   2   3      4   5   6      7   8   9      10  11  12
EDIT = Laid(
    np.array([EOS, 10, 11, BREAK, 20, 21, BREAK, 12, 13, BREAK, 22, 23, EOS]),
    (10, 12),
    ((7, 9),),
    ((4, 6),),
)
ASK = Laid(np.array([EOS, 10, 11, 12, 13, BREAK, 20, 21, EOS]), (3, 4), ((2, 3),), ((6, 8),))


def builder(one, config, max_length=40, seed=0):
    return InstructionBuilder(
        lambda key, epoch, rng: one,
        config,
        eos_id=EOS,
        break_id=BREAK,
        infill_id=INFILL,
        mask_ids=MASKS,
        max_length=max_length,
        seed=seed,
    )


def test_an_answer_is_cut_out_and_learnt_behind_infill():
    sample = builder(ASK, InstructionConfig(cut_output=1.0))(0, 0)
    assert sample.ids.tolist() == [EOS, 10, 11, 4, 13, BREAK, 20, 21, INFILL, 12, EOS]
    assert sample.weights is None  # every token counts, as in pretraining


@pytest.mark.parametrize(
    ("drop", "wanted"),
    [
        ("drop_text", [EOS, 10, 11, BREAK, 20, 21, BREAK, 4, BREAK, 22, 23, INFILL, 12, 13, EOS]),
        ("drop_pictures",
         [EOS, 10, 11, BREAK, 4, BREAK, 12, 13, BREAK, 22, 23, INFILL, 20, 21, EOS]),
        ("drop_both",
         [EOS, 10, 11, BREAK, 4, BREAK, 5, BREAK, 22, 23, INFILL, 20, 21, 5, 12, 13, EOS]),
    ],
)  # fmt: skip
def test_the_streams_of_guidance_are_trained(drop, wanted):
    config = InstructionConfig(**{**NOTHING, drop: 1.0})
    assert builder(EDIT, config)(0, 0).ids.tolist() == wanted


def test_the_shares_are_those_of_the_config():
    config = InstructionConfig(drop_text=0.2, drop_pictures=0.1, drop_both=0.3, cm3=PLAIN)
    build = builder(EDIT, config)
    bodies = [build(key, 0).ids for key in range(3000)]

    def share(text, picture):
        return np.mean([
            (4 in ids or 5 in ids) and (12 not in ids[: ids.tolist().index(22)]) == text
            and (20 not in ids[: ids.tolist().index(22)]) == picture
            for ids in bodies
        ])  # fmt: skip

    assert share(True, False) == pytest.approx(0.2, abs=0.03)
    assert share(False, True) == pytest.approx(0.1, abs=0.03)
    assert share(True, True) == pytest.approx(0.3, abs=0.03)
    cut = builder(ASK, InstructionConfig(cut_output=0.7, cm3=PLAIN))
    share = np.mean([INFILL in cut(key, 0).ids for key in range(3000)])
    assert share == pytest.approx(0.7, abs=0.03)


def test_retrieved_documents_stay_whole():
    document = [EOS, 30, BREAK, 24, 25, BREAK]
    moved = len(document) - 1
    one = Laid(
        np.array([*document, *EDIT.ids[1:]]),
        (10 + moved, 12 + moved),
        ((7 + moved, 9 + moved),),
        ((4 + moved, 6 + moved),),
        start=len(document),
    )
    cm3 = CM3Config(mask_probability=1.0, whole_text_probability=0.0)
    build = builder(one, InstructionConfig(drop_both=0.5, cm3=cm3))
    for key in range(100):
        assert build(key, 0).ids[: len(document)].tolist() == document


def test_texts_that_touch_share_a_mask():
    one = Laid(np.array([EOS, 10, 11, BREAK, 20, EOS]), (4, 5), ((1, 2), (2, 3)))
    ids = builder(one, InstructionConfig(**{**NOTHING, "drop_text": 1.0}))(0, 0).ids
    assert ids.tolist() == [EOS, 4, BREAK, 20, INFILL, 10, 11, EOS]


@pytest.mark.parametrize("one", [EDIT, ASK])
def test_else_spans_are_drawn_and_come_back(one):
    cm3 = CM3Config(mask_probability=1.0, whole_text_probability=0.0)
    build = builder(one, InstructionConfig(**NOTHING, cut_output=0.0, cm3=cm3))
    found = [build(key, 0).ids for key in range(50)]
    assert len({tuple(ids) for ids in found}) > 10
    for ids in found:
        assert undo_cm3(ids, infill_id=INFILL, mask_ids=MASKS).tolist() == one.ids.tolist()


@pytest.mark.parametrize(
    ("one", "changes", "wanted"),
    [
        (EDIT, NOTHING, [22, 23, EOS]),
        (EDIT, {**NOTHING, "drop_text": 1.0}, [22, 23]),
        (EDIT, {**NOTHING, "drop_both": 1.0}, [22, 23]),
        (ASK, {"cut_output": 1.0}, [12, EOS]),
        (ASK, {"cut_output": 0.0}, [12]),
    ],
)
def test_the_output_alone_counts_if_so_wanted(one, changes, wanted):
    sample = builder(one, InstructionConfig(score="output", **changes))(0, 0)
    assert sample.weights is not None
    assert sample.ids[sample.weights > 0].tolist() == wanted


@pytest.mark.parametrize(("score", "rest"), [("all", 1.0), ("output", 0.0)])
def test_a_token_of_an_answer_may_count_more(score, rest):
    config = InstructionConfig(score=score, text_weight=4.0, cut_output=1.0, **NOTHING)
    asked = builder(ASK, config)(0, 0)
    assert asked.weights is not None
    assert asked.weights.tolist() == [rest] * 9 + [4.0, 4.0]  # the answer and its <eos>
    drawn = builder(EDIT, config)(0, 0)
    assert drawn.weights is None or set(drawn.weights.tolist()) == {0.0, 1.0}


def test_validation_asks_for_the_output_alone_every_time():
    asked = builder(ASK, None)(0, 0)
    assert asked.ids.tolist() == [EOS, 10, 11, 4, 13, BREAK, 20, 21, INFILL, 12, EOS]
    assert asked.ids[asked.weights > 0].tolist() == [12, EOS]
    drawn = builder(EDIT, None)(0, 0)
    assert drawn.ids.tolist() == EDIT.ids.tolist()
    assert drawn.ids[drawn.weights > 0].tolist() == [22, 23, EOS]


def test_a_sequence_is_a_function_of_seed_epoch_and_key():
    def lay_out(key, epoch, rng):
        return Laid(np.array([EOS, *rng.integers(10, 99, 8), BREAK, 20, EOS]), (10, 11))

    def build(seed):
        return InstructionBuilder(
            lay_out, InstructionConfig(), eos_id=EOS, break_id=BREAK, infill_id=INFILL,
            mask_ids=MASKS, max_length=40, seed=seed,
        )  # fmt: skip

    assert build(0)(7, 1).ids.tolist() == build(0)(7, 1).ids.tolist()
    others = [build(0)(8, 1), build(0)(7, 2), build(1)(7, 1)]
    assert all(other.ids.tolist() != build(0)(7, 1).ids.tolist() for other in others)


def test_masks_never_make_a_sequence_too_long():
    config = InstructionConfig(**{**NOTHING, "drop_both": 1.0}, cm3=PLAIN)
    assert len(builder(EDIT, config, max_length=16)(0, 0).ids) == 13
    with pytest.raises(ValueError, match="key 3: wanted at most max_length = 12 ids, got 13"):
        builder(EDIT, config, max_length=12)(3, 0)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"cut_output": 1.1}, "cut_output: wanted 0..1"),
        ({"drop_text": 0.5, "drop_both": 0.6}, "wanted at most 1"),
        ({"score": "half"}, "score: wanted all or output"),
        ({"text_weight": 0.0}, "text_weight: wanted above 0"),
        ({"cm3": CM3Config(region_probability=0.1)}, "cm3.region_probability: wanted 0"),
        ({"cm3": CM3Config(score_masks=False)}, "cm3.score_masks: wanted True"),
        ({"cm3": CM3Config(retrieved_weight=0.1)}, "cm3.retrieved_weight: wanted 1"),
    ],
)
def test_configs_that_make_no_sense_are_refused(changes, wanted):
    with pytest.raises(ValueError, match=wanted):
        InstructionConfig(**changes)
