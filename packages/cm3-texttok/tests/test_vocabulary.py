import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from cm3_texttok import IdBlock, TextTokenizer, Vocabulary

IDS = {"pad_id": 0, "eos_id": 1, "break_id": 2, "infill_id": 4, "mask_ids": (3, 5)}
PAPER = Vocabulary(text_size=56320, num_codes=8192, **IDS)


def test_the_papers_sizes():
    assert PAPER.size == 64512 == 126 * 512
    assert PAPER.image_offset == 56320
    assert PAPER.codes_to_ids([0, 8191]).tolist() == [56320, 64511]


def test_a_block_inside_the_text_ids():
    """Chameleon: 65536 ids, image code c at 4 + c."""
    vocabulary = Vocabulary(
        text_size=65536, num_codes=8192, image_offset=4,
        pad_id=1, eos_id=2, break_id=8197, infill_id=8196, mask_ids=(8710,),
    )  # fmt: skip
    assert vocabulary.size == 65536
    assert vocabulary.is_image([3, 4, 8195, 8196]).tolist() == [False, True, True, False]
    assert vocabulary.is_text([3, 4, 8195, 8196, 16384]).tolist() == [
        True,
        False,
        False,
        False,
        True,
    ]


def test_a_block_behind_a_gap():
    vocabulary = Vocabulary(text_size=10, num_codes=4, image_offset=16, **IDS)
    assert vocabulary.size == 20
    ids = np.arange(-2, 25)
    assert not (vocabulary.is_text(ids) & vocabulary.is_image(ids)).any()
    assert ids[vocabulary.is_text(ids)].tolist() == [6, 7, 8, 9]
    assert ids[vocabulary.is_image(ids)].tolist() == [16, 17, 18, 19]


@given(
    codes=hnp.arrays(
        st.sampled_from([np.uint16, np.int32, np.int64]),
        hnp.array_shapes(max_dims=3, min_side=0),
        elements=st.integers(0, 8191),
    )  # fmt: skip
)
def test_codes_and_ids_are_inverse(codes):
    ids = PAPER.codes_to_ids(codes)
    assert ids.dtype == np.int64  # 56320 + 8191 fits uint16, twice that would not
    assert ids.shape == codes.shape
    assert np.array_equal(ids, np.asarray(codes, np.int64) + 56320)
    assert PAPER.is_image(ids).all()
    assert np.array_equal(PAPER.ids_to_codes(ids), codes)


def test_uint16_codes_do_not_wrap():
    wide = Vocabulary(text_size=65000, num_codes=60000, **IDS)
    assert wide.codes_to_ids(np.array([59999], np.uint16)).tolist() == [124999]


def test_sequences_work_like_arrays():
    assert PAPER.codes_to_ids([5, 6]).tolist() == [56325, 56326]
    assert PAPER.ids_to_codes((56325,)).tolist() == [5]
    assert PAPER.is_image([]).shape == (0,)
    assert PAPER.codes_to_ids([]).dtype == np.int64


def test_errors_name_the_position():
    with pytest.raises(ValueError, match=r"ids: at position 2 wanted an image id .*, got 7$"):
        PAPER.ids_to_codes([56320, 56321, 7, 8])
    with pytest.raises(ValueError, match=r"codes: at position 1 wanted an image code .*got 8192$"):
        PAPER.codes_to_ids([0, 8192])
    with pytest.raises(ValueError, match=r"position \(1, 0\) .*got -1$"):
        PAPER.codes_to_ids([[0], [-1]])
    with pytest.raises(TypeError, match="codes: wanted integers, got an array of float64"):
        PAPER.codes_to_ids([0.5])


def test_structure_is_not_text():
    assert PAPER.is_text(np.arange(8)).tolist() == [False] * 6 + [True] * 2
    assert not PAPER.is_text([-1, 56320, 10**9]).any()


def test_from_tokenizer(tokenizer, vocabulary):
    assert vocabulary.size == tokenizer.vocab_size + 32
    assert vocabulary.eos_id == tokenizer.eos_id
    assert vocabulary.mask_ids == tokenizer.mask_ids
    assert vocabulary.is_text(tokenizer.encode("red <eos> apple")).all()


@pytest.mark.parametrize("image_offset", [None, 56320, 60000])
def test_json_round_trip(image_offset):
    vocabulary = Vocabulary(text_size=56320, num_codes=8192, image_offset=image_offset, **IDS)
    again = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert again == vocabulary
    assert again.sha256 == vocabulary.sha256


def test_hash_sees_every_field():
    changes = [{name: 7} for name in IDS if name != "mask_ids"]
    changes += [{"mask_ids": (3,)}, {"mask_ids": (5, 3)}, {"text_size": 9}, {"num_codes": 9}]
    changes += [{"image_offset": 12}, {"silent_ranges": [(6, 7)]}, {"silent_ranges": [(6, 8)]}]
    changes += [{"text_sha256": "a"}, {"text_sha256": "b"}, {"codes_sha256": "a"}]
    base = {"text_size": 10, "num_codes": 4, **IDS}
    hashes = {Vocabulary(**{**base, **change}).sha256 for change in [{}, *changes]}
    assert len(hashes) == len(changes) + 1


def test_two_tokenizers_of_one_size_have_two_hashes(tokenizer, corpus):
    other = TextTokenizer.train([text.upper() for text in corpus], vocab_size=400, num_masks=4)
    assert other.vocab_size == tokenizer.vocab_size
    made = [Vocabulary.from_tokenizer(of, num_codes=32) for of in (tokenizer, other)]
    made += [Vocabulary.from_tokenizer(tokenizer, 32, codes_sha256=code) for code in "ab"]
    assert len({vocabulary.sha256 for vocabulary in made}) == 4
    for vocabulary in made:
        again = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
        assert again == vocabulary and again.sha256 == vocabulary.sha256


def test_ids_that_no_text_has_are_not_text(tokenizer, vocabulary):
    ids = np.arange(vocabulary.size)
    found = ids[vocabulary.is_text(ids)].tolist()
    assert found == list(range(tokenizer.byte_ids.start, tokenizer.vocab_size))
    for ranges in ([(-1, 2)], [(3, 3)], [(5, 4)], [(0, 11)]):
        with pytest.raises(ValueError, match=r"silent_ranges: wanted ranges inside \[0, 10\)"):
            Vocabulary(text_size=10, num_codes=4, silent_ranges=ranges, **IDS)


def test_a_tokenizer_may_say_less(tokenizer):
    """The protocol asks for neither hash nor ranges."""
    names = ("vocab_size", "pad_id", "eos_id", "break_id", "infill_id", "mask_ids")
    plain = SimpleNamespace(**{name: getattr(tokenizer, name) for name in names})
    vocabulary = Vocabulary.from_tokenizer(plain, num_codes=32)
    assert (vocabulary.silent_ranges, vocabulary.text_sha256) == ((), None)
    assert not {"silent_ranges", "text_sha256", "codes_sha256"} & set(vocabulary.to_json())


def test_hash_is_the_same_in_another_process():
    code = (
        "from cm3_texttok import Vocabulary; print(Vocabulary(text_size=56320, num_codes=8192,"
        "pad_id=0, eos_id=1, break_id=2, infill_id=4, mask_ids=(3, 5)).sha256)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert output.stdout.strip() == PAPER.sha256
    assert len(PAPER.sha256) == 64


def test_an_omitted_offset_is_the_written_out_one():
    assert Vocabulary(text_size=56320, num_codes=8192, image_offset=56320, **IDS) == PAPER


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text_size": 0}, "text_size: wanted at least 1, got 0"),
        ({"num_codes": 0}, "num_codes: wanted at least 1, got 0"),
        ({"image_offset": -1}, "image_offset: wanted at least 0, got -1"),
        ({"mask_ids": ()}, "mask_ids: wanted at least one"),
        ({"eos_id": 0}, "wanted distinct ids"),
        ({"break_id": 10}, r"break_id: wanted a text id in \[0, 10\) .*got 10"),
        ({"image_offset": 2}, "break_id: wanted a text id .*outside the blocks of codes, got 2"),
        ({"mask_ids": (3, 99)}, r"mask_ids\[1\]: wanted a text id .*got 99"),
    ],
)
def test_bad_fields_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        Vocabulary(**{"text_size": 10, "num_codes": 4, **IDS, **change})


def test_other_json_is_refused():
    saved = PAPER.to_json()
    with pytest.raises(ValueError, match="vocabulary: wanted interface version 1.x"):
        Vocabulary.from_json({**saved, "interface_version": "2.0"})
    with pytest.raises(ValueError, match="wanted component 'cm3-texttok/vocabulary'"):
        Vocabulary.from_json({**saved, "component": "cm3-texttok/tokenizer"})
    with pytest.raises(ValueError, match="vocabulary: wanted the entries"):
        Vocabulary.from_json({**saved, "extra": 1})
    del saved["eos_id"]
    with pytest.raises(ValueError, match="vocabulary: wanted the entries"):
        Vocabulary.from_json(saved)


def test_a_block_of_another_codebook():
    audio = IdBlock(name="audio", offset=100, size=10)
    assert audio.codes_to_ids([0, 9]).tolist() == [100, 109]
    with pytest.raises(ValueError, match=r"wanted an audio id in \[100, 110\), got 110"):
        audio.ids_to_codes([110])


SEVERAL = PAPER.with_block("coarse", 64).with_block("audio", 1024, offset=70000)


def test_blocks_behind_everything_or_anywhere():
    coarse, audio = SEVERAL.block("coarse"), SEVERAL.block("audio")
    assert (coarse.offset, coarse.size) == (64512, 64)
    assert (audio.offset, audio.size) == (70000, 1024)
    assert SEVERAL.size == 71024
    assert SEVERAL.block("image") == SEVERAL.image == PAPER.image
    assert [block.name for block in SEVERAL.blocks] == ["image", "coarse", "audio"]
    assert audio.ids_to_codes(audio.codes_to_ids([0, 1023])).tolist() == [0, 1023]
    with pytest.raises(ValueError, match=r"wanted one of \['image', 'coarse', 'audio'\], got 'x'"):
        SEVERAL.block("x")


def test_every_id_has_one_meaning():
    """Blocks inside the text ids, behind them, and behind a gap."""
    vocabulary = Vocabulary(text_size=20, num_codes=3, image_offset=8, **IDS)
    vocabulary = vocabulary.with_block("fine", 4, offset=12).with_block("audio", 5, offset=22)
    ids = np.arange(-2, 30)
    meanings = [vocabulary.is_text(ids), *(block.contains(ids) for block in vocabulary.blocks)]
    assert (np.sum(meanings, axis=0) <= 1).all()
    assert ids[meanings[0]].tolist() == [6, 7, 11, 16, 17, 18, 19]
    assert ids[meanings[2]].tolist() == [12, 13, 14, 15]
    assert vocabulary.size == 27


def test_json_and_hash_of_several_blocks():
    again = Vocabulary.from_json(json.loads(json.dumps(SEVERAL.to_json())))
    assert again == SEVERAL
    assert again.sha256 == SEVERAL.sha256 != PAPER.sha256
    assert "other_blocks" not in PAPER.to_json()  # so one block keeps the hash that it had


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (("image", 5), r"wanted names of their own, got \['image'\]"),
        (("text", 5), "wanted names of their own"),
        (("audio", 0), "wanted an offset and a size"),
        (("audio", 5, -1), "wanted an offset and a size"),
        (("audio", 5, 0), r"pad_id: wanted a text id .*outside the blocks of codes, got 0"),
        (("audio", 2, 64511), "wanted no overlap"),
    ],
)
def test_bad_blocks_are_named(block, words):
    with pytest.raises(ValueError, match=words):
        PAPER.with_block(*block)


def test_from_tokenizer_with_an_offset(tokenizer):
    assert Vocabulary.from_tokenizer(tokenizer, 8, image_offset=1000).size == 1008
