import json
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given, strategies as st

from cm3_texttok import (
    DocumentLayout,
    HFTokenizer,
    Vocabulary,
    chameleon_codes,
    chameleon_names,
    chameleon_tokenizer,
    chameleon_vocabulary,
    check_tokenizer,
)
from cm3_texttok.chameleon import BEGIN_OF_IMAGE_ID, END_OF_IMAGE_ID, END_OF_TURN_ID

tokenizers = pytest.importorskip("tokenizers")


def image_name(code: int) -> str:
    return "IMGIMG" + "".join("ABCDEFGHIJ"[int(digit)] for digit in str(code)) + "Z"


def chameleon_settings() -> dict:
    """A tokenizer.json of Chameleon's layout whose merges build special names on purpose."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"IMGIMG[A-J]+Z|<[^ >]+>| ?\w+"), "isolated"), byte_level]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    names = ["<s>", "</s>", "<reserved08706>", "<racm3:break>", image_name(0), image_name(8191)]
    tokenizer.train_from_iterator(["a red apple and a fox"] * 9 + names * 50, trainer)
    settings = json.loads(tokenizer.to_str())

    special = ["<s>", "<pad>", "</s>", "<unk>", *map(image_name, range(8192))]
    special += ["<eoss>", "<racm3:break>"]
    special += [f"<reserved{id - 4:05d}>" for id in range(len(special), 16384)]
    assert special[8710] == "<reserved08706>"
    pieces = [piece for piece in settings["model"]["vocab"] if piece not in special]
    vocab = {piece: id for id, piece in enumerate(special)}
    vocab |= {piece: 16384 + n for n, piece in enumerate(pieces)}
    vocab["the last piece"] = 65535
    settings["model"]["vocab"] = vocab
    settings["added_tokens"] = [
        dict(id=id, content=special[id], special=True, single_word=False, lstrip=False,
             rstrip=False, normalized=False)
        for id in [*range(4), *range(8196, 8220), 8710]
    ]  # fmt: skip
    return settings


@pytest.fixture(scope="module")
def settings() -> dict:
    return chameleon_settings()


@pytest.fixture(scope="module")
def path(settings, tmp_path_factory):
    path = tmp_path_factory.mktemp("chameleon") / "tokenizer.json"
    path.write_text(json.dumps(settings))
    return path


@pytest.fixture(scope="module")
def tokenizer(path) -> HFTokenizer:
    return chameleon_tokenizer(path)


FRAGMENTS = st.sampled_from(
    ["<s>", "<pad>", "</s>", "<unk>", "<eoss>", "<racm3:break>", "<reserved08706>", "<image>"]
    + [image_name(0), image_name(8191), "IMGIMG", "Z", " ", "\u2581", "\u0120", "the last piece"]
)
UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
TEXTS = st.one_of(UNICODE, st.lists(st.one_of(FRAGMENTS, UNICODE)).map("".join))


def test_the_library_alone_makes_special_ids_of_text(path):
    """So the tests below are about something: added tokens, and merges that build a name."""
    peer = tokenizers.Tokenizer.from_file(str(path))
    assert peer.encode("<s>", add_special_tokens=False).ids == [0]
    assert peer.encode("<reserved08706>", add_special_tokens=False).ids == [END_OF_TURN_ID]
    assert peer.encode(image_name(0), add_special_tokens=False).ids == [4]


@given(text=TEXTS)
def test_round_trip_is_exact_and_never_structural(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(16384 <= i < 65536 for i in ids)


@pytest.mark.parametrize("id", [0, 1, 2, 3, 4, 5, 8195, 8196, 8197, 8198, 8710, 16383])
def test_no_reserved_name_becomes_its_id(tokenizer, settings, id):
    name = next(name for name, value in settings["model"]["vocab"].items() if value == id)
    for text in (name, f"a {name} b", name * 3, f"{name} {name}"):
        ids = tokenizer.encode(text)
        assert min(ids) >= 16384
        assert tokenizer.decode(ids) == text


def test_it_keeps_the_contract(tokenizer):
    check_tokenizer(tokenizer)


def test_ids_stand_where_chameleon_has_them(tokenizer):
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.break_id) == (1, 2, 8197)
    assert tokenizer.vocab_size == 65536
    vocabulary = chameleon_vocabulary(tokenizer)
    assert vocabulary.size == 65536
    assert vocabulary.codes_to_ids([0, 8191]).tolist() == [4, 8195]
    assert (END_OF_IMAGE_ID, BEGIN_OF_IMAGE_ID, END_OF_TURN_ID) == (8196, 8197, 8710)


def test_names_say_which_code_an_image_id_means(settings, path, tmp_path):
    assert np.array_equal(chameleon_codes(path), np.arange(8192))
    vocab = dict(settings["model"]["vocab"])
    vocab[image_name(0)], vocab[image_name(9)] = vocab[image_name(9)], vocab[image_name(0)]
    other = tmp_path / "tokenizer.json"
    other.write_text(json.dumps({**settings, "model": {**settings["model"], "vocab": vocab}}))
    assert chameleon_codes(other)[[0, 1, 9]].tolist() == [9, 1, 0]
    del vocab[image_name(3)]
    other.write_text(json.dumps({**settings, "model": {**settings["model"], "vocab": vocab}}))
    with pytest.raises(ValueError, match="wanted a name IMGIMG...Z of each code 0 to 8191"):
        chameleon_codes(other)
    bare = {name: place for name, place in vocab.items() if not name.startswith("IMGIMG")}
    other.write_text(json.dumps({**settings, "model": {**settings["model"], "vocab": bare}}))
    assert np.array_equal(chameleon_codes(other), np.arange(8192))


def test_names_have_added_tokens_among_them(path):
    names = chameleon_names(path)
    assert (names["<s>"], names["<racm3:break>"], names["the last piece"]) == (0, 8197, 65535)
    path.with_name("other.json").write_text("{}")
    with pytest.raises(ValueError, match="wanted a tokenizer.json"):
        chameleon_names(path.with_name("other.json"))


def test_the_tokenizer_says_where_image_ids_begin(tokenizer):
    assert tokenizer.image_offset == 4
    assert Vocabulary.from_tokenizer(tokenizer, 8192) == chameleon_vocabulary(tokenizer)
    assert Vocabulary.from_tokenizer(tokenizer, 10, image_offset=9000).image.offset == 9000


def test_only_text_is_text_in_chameleons_vocabulary(tokenizer):
    """Neither `<s>`, the ends of images and turns, nor any other id below 16384."""
    vocabulary = chameleon_vocabulary(tokenizer)
    assert not vocabulary.is_text([0, 8196, 8197, 8710, 8214, 16383]).any()
    ids = np.arange(-2, 65540)
    text = ids[vocabulary.is_text(ids)]
    assert text.min() == 16384 and text.max() < 65536
    assert vocabulary.is_text(tokenizer.encode("a red apple <s> \u00e4")).all()
    assert vocabulary.silent_ranges[0] == (0, 16384)
    with pytest.raises(ValueError, match="got 8710"):
        DocumentLayout(vocabulary).training([([8710], [1])])


def test_the_hash_sees_pieces_and_merges(settings, tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(settings))
    assert chameleon_tokenizer(path).sha256 == tokenizer.sha256
    merges = settings["model"]["merges"]
    path.write_text(json.dumps({**settings, "model": {**settings["model"], "merges": merges[:-1]}}))
    assert chameleon_tokenizer(path).sha256 != tokenizer.sha256


def test_ordinary_text_gets_the_librarys_ids(path, tokenizer):
    peer = tokenizers.Tokenizer.from_file(str(path))
    for text in ("a red apple", " and  a fox\n", "caf\u00e9 \U0001f98a", "<", "IMG Z"):
        assert tokenizer.encode(text) == peer.encode(text, add_special_tokens=False).ids


@given(texts=st.lists(TEXTS, max_size=5))
def test_batch_equals_one_by_one(tokenizer, texts):
    batch = tokenizer.encode_batch(texts)
    assert batch.tolist() == [tokenizer.encode(text) for text in texts]
    assert batch.values.dtype == np.uint16


def test_words_that_skip_the_merges_are_no_way_in(settings, tmp_path):
    """`ignore_merges` takes a whole word from the vocabulary, merges or not."""
    model = {**settings["model"], "ignore_merges": True}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**settings, "added_tokens": [], "model": model}))
    peer = tokenizers.Tokenizer.from_file(str(path))
    assert peer.encode(image_name(77)).ids == [81]
    tokenizer = chameleon_tokenizer(path)
    assert min(tokenizer.encode(image_name(77))) >= 16384
    assert tokenizer.decode(tokenizer.encode(image_name(77))) == image_name(77)


def test_templates_and_cuts_of_the_file_are_left_out(settings, tmp_path):
    peer = tokenizers.Tokenizer.from_str(json.dumps(settings))
    peer.enable_truncation(3)
    peer.enable_padding(length=9)
    peer.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", None, [("<s>", 0)])
    peer.save(str(tmp_path / "tokenizer.json"))
    tokenizer = chameleon_tokenizer(tmp_path / "tokenizer.json")
    assert tokenizer.decode(tokenizer.encode("a red apple and a fox")) == "a red apple and a fox"
    assert tokenizer.encode("") == []


def test_pickle(tokenizer):
    assert pickle.loads(pickle.dumps(tokenizer)).encode("a fox") == tokenizer.encode("a fox")


def test_other_structural_ids(settings, tmp_path):
    """A file without Chameleon's layout: its own ids, and a wide vocabulary."""
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(settings))
    tokenizer = HFTokenizer(
        path, pad_id=70000, eos_id=70001, break_id=70002, infill_id=70003, mask_ids=[70004],
    )  # fmt: skip
    check_tokenizer(tokenizer)
    assert tokenizer.vocab_size == 70005
    assert tokenizer.encode_batch(["a"]).values.dtype == np.uint32
    assert tokenizer.encode("<s>") != [0]  # added tokens are reserved in any case
    assert Vocabulary.from_tokenizer(tokenizer, 8).size == 70013


def test_bad_texts_and_ids_are_named(tokenizer):
    with pytest.raises(ValueError, match=r"text: .*U\+D800 at character 1"):
        tokenizer.encode("a\ud800")
    with pytest.raises(ValueError, match=r"texts\[1\]: .*U\+DFFF"):
        tokenizer.encode_batch(["a", "\udfff"])
    with pytest.raises(TypeError, match="texts: wanted a sequence of str, got one str"):
        tokenizer.encode_batch("ab")
    with pytest.raises(TypeError, match="text: wanted a str, got bytes"):
        tokenizer.encode(b"ab")
    with pytest.raises(ValueError, match=r"ids: at position 1 wanted .*\[0, 65536\), got 65536"):
        tokenizer.decode([20000, 65536])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {**s, "normalizer": {"type": "NFC"}}, "wanted a lossless BPE, got "),
        (lambda s: {**s, "normalizer": {"type": "Lowercase"}}, "wanted a lossless BPE, got "),
        (lambda s: {**s, "decoder": None}, "wanted a lossless BPE, got "),
        (
            lambda s: {**s, "model": {**s["model"], "vocab": {
                k: v for k, v in s["model"]["vocab"].items() if k != "\u0100"}}},
            "wanted a lossless BPE, got ",
        ),
        (lambda s: {**s, "model": {**s["model"], "dropout": 0.1}}, "model.dropout: wanted none"),
        (lambda s: {**s, "model": {"type": "WordLevel", "vocab": {}}}, "type BPE, got WordLevel"),
        (lambda s: {**s, "model": None}, "wanted a tokenizer.json with a model and its vocab"),
        (lambda s: [], "wanted an object, got list"),
        (lambda s: {**s, "pre_tokenizer": {"type": "Nonsense"}}, "wanted a tokenizer.json, got: "),
        (
            lambda s: {**s, "model": {**s["model"], "vocab": {
                k: v for k, v in s["model"]["vocab"].items() if v < 65535}}},
            "wanted Chameleon's 65536 ids, got ",
        ),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused(settings, tmp_path, change, words):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(change(settings)))
    with pytest.raises(ValueError, match=words):
        chameleon_tokenizer(path)


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.json"):
        chameleon_tokenizer(tmp_path / "none.json")
    (tmp_path / "a.json").write_bytes(b"{")
    with pytest.raises(ValueError, match=r"a\.json: wanted JSON"):
        chameleon_tokenizer(tmp_path / "a.json")


def test_a_missing_library_says_what_to_install(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pip install 'cm3-texttok\[hf\]'"):
        chameleon_tokenizer(path)
