import hashlib
import json
import os
import pickle
import resource
import sys

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, strategies as st

from cm3_texttok import TextTokenizer

# Hypothesis alone rarely finds the strings that matter here.
FRAGMENTS = st.sampled_from(
    ["<pad>", "<eos>", "<break>", "<mask>", "<infill>", "<mask:1>", "<unk>", "<0x41>", "\u2581"]
    + [" ", "  ", "\n", "\t", "\0", "\u2047", "\ufffd", "red apple", "\u2585"]
)
UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
TEXTS = st.one_of(UNICODE, st.lists(st.one_of(FRAGMENTS, UNICODE)).map("".join))


def structural_ids(tokenizer):
    names = ("pad_id", "eos_id", "break_id", "infill_id")
    return {*(getattr(tokenizer, name) for name in names), *tokenizer.mask_ids}


def test_ids_stand_where_the_documentation_says(tokenizer):
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.break_id) == (0, 1, 2)
    assert tokenizer.infill_id == 4
    assert tokenizer.mask_ids == (3, 5, 6, 7)
    assert tokenizer.vocab_size == 400


@given(text=TEXTS)
def test_round_trip_is_exact_and_never_structural(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not structural_ids(tokenizer) & set(ids)


def test_every_character_comes_back(tokenizer):
    everything = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    text = "".join(everything)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(texts=st.lists(TEXTS, max_size=5))
def test_batch_equals_one_by_one(tokenizer, texts):
    assert tokenizer.encode_batch(texts).tolist() == [tokenizer.encode(text) for text in texts]


def test_encode_is_sentencepiece_where_that_is_lossless(tokenizer, corpus):
    reference = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model_bytes)
    wanted = [reference.Encode(text) for text in corpus[:50]]
    assert tokenizer.encode_batch(corpus[:50]).tolist() == wanted
    assert [tokenizer.encode(text) for text in corpus[:50]] == wanted


@pytest.mark.parametrize("num_threads", [None, 1, 2, 7])
def test_batch_does_not_depend_on_threads(tokenizer, corpus, num_threads):
    texts = [*corpus, "", "\u2581 \u2581", "a\u2581b"] * 3
    batch = tokenizer.encode_batch(texts, num_threads=num_threads)
    assert batch.tolist() == [tokenizer.encode(text) for text in texts]
    assert batch.values.dtype == np.uint16


@pytest.mark.parametrize("end", ["\n", "\n\n  ", " ", "", "\0", "\u2581"])
def test_batch_of_long_texts(tokenizer, corpus, end):
    """They are cut into bites, at line ends where there are any."""
    long = end.join(corpus)
    texts = [long, "", "red apple\n", long[::-1], "", "\0", long, "\n", long.replace(" ", "  "), ""]
    for part in (texts, texts[1:], texts[2:3], texts[4:6]):
        assert tokenizer.encode_batch(part).tolist() == [tokenizer.encode(text) for text in part]


def test_batch_takes_any_sequence(tokenizer):
    wanted = tokenizer.encode_batch(["a", "b"])
    assert tokenizer.encode_batch(("a", "b")) == wanted
    assert tokenizer.encode_batch(np.array(["a", "b"])) == wanted


def test_a_wide_vocabulary_gets_uint32(tokenizer, monkeypatch):
    monkeypatch.setattr(TextTokenizer, "vocab_size", 65537)
    assert tokenizer.encode_batch(["red apple"]).values.dtype == np.uint32


def test_pieces_are_learnt(tokenizer):
    assert len(tokenizer.encode("red apple")) < len("red apple") / 2


def test_empty(tokenizer):
    assert tokenizer.encode("") == []
    assert tokenizer.encode_batch([]).tolist() == []
    assert tokenizer.encode_batch(["", "a"])[0].tolist() == []
    assert tokenizer.decode([]) == ""


def test_decode_skips_structure_anywhere(tokenizer):
    text = "a \U0001f98a"
    ids = tokenizer.encode(text)
    structure = sorted(structural_ids(tokenizer))
    mixed = [i for token in ids for i in (*structure, token)] + structure
    assert tokenizer.decode(mixed) == text  # also between the bytes of one character
    assert tokenizer.decode(np.array(mixed, np.uint16)) == text


def test_decode_of_any_ids_is_a_text(tokenizer):
    for seed in range(20):
        ids = np.random.default_rng(seed).integers(tokenizer.vocab_size, size=50)
        tokenizer.decode(ids).encode()


@pytest.mark.parametrize("bad", [-1, 400])
def test_decode_names_an_id_outside(tokenizer, bad):
    with pytest.raises(ValueError, match=rf"ids: at position 1 wanted .*\[0, 400\), got {bad}"):
        tokenizer.decode([9, bad])


def test_lone_surrogate_is_named(tokenizer):
    with pytest.raises(ValueError, match=r"text: .*lone surrogate U\+D800 at character 2"):
        tokenizer.encode("ab\ud800")
    with pytest.raises(ValueError, match=r"texts\[1\]: .*U\+DFFF at character 0"):
        tokenizer.encode_batch(["ok", "\udfff"])
    with pytest.raises(ValueError, match=r"texts\[0\]: .*U\+D83D"):
        tokenizer.encode_batch(["\ud83d", "\ude00"])  # no pair: they stand in two texts
    with pytest.raises(ValueError, match=r"texts\[1\]: .*U\+DC00"):
        TextTokenizer.train(["ok", "\udc00"], vocab_size=300)


def test_other_types_are_named(tokenizer):
    with pytest.raises(TypeError, match="text: wanted a str, got bytes"):
        tokenizer.encode(b"ab")
    with pytest.raises(TypeError, match="texts: wanted a sequence of str, got one str"):
        tokenizer.encode_batch("ab")
    with pytest.raises(TypeError, match=r"texts\[1\]: wanted a str, got bytes"):
        tokenizer.encode_batch(["ab", b"ab"])
    with pytest.raises(ValueError, match="num_threads: wanted at least 1, got 0"):
        tokenizer.encode_batch(["ab"], num_threads=0)
    with pytest.raises(TypeError, match=r"texts\[0\]: wanted a str, got int"):
        TextTokenizer.train([5], vocab_size=300)


def test_save_and_load(tokenizer, corpus, tmp_path):
    tokenizer.save(tmp_path / "a" / "b")
    loaded = TextTokenizer.load(tmp_path / "a" / "b")
    assert loaded.model_bytes == tokenizer.model_bytes
    assert loaded.mask_ids == tokenizer.mask_ids
    assert loaded.encode_batch(corpus) == tokenizer.encode_batch(corpus)


def test_config_says_what_it_is(tokenizer, tmp_path):
    tokenizer.save(str(tmp_path))
    digest = hashlib.sha256(tokenizer.model_bytes).hexdigest()
    assert sorted(os.listdir(tmp_path)) == ["config.json", f"tokenizer-{digest[:16]}.model"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config == {
        "component": "cm3-texttok/tokenizer",
        "interface_version": "1.0",
        "model": f"tokenizer-{digest[:16]}.model",
        "sha256": digest,
        "vocab_size": 400,
        "pad_id": 0,
        "eos_id": 1,
        "break_id": 2,
        "infill_id": 4,
        "mask_ids": [3, 5, 6, 7],
    }


@pytest.mark.parametrize("where", [0, 0.5, 1])
def test_one_flipped_bit_is_refused(tokenizer, tmp_path, where):
    tokenizer.save(tmp_path)
    (path,) = tmp_path.glob("tokenizer-*.model")
    data = bytearray(path.read_bytes())
    data[int(where * (len(data) - 1))] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"tokenizer-\w{16}\.model: wanted SHA-256"):
        TextTokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"interface_version": "2.0"},
            "wanted interface version 1.x of cm3-texttok/tokenizer, got 2.0",
        ),
        ({"component": "cm3-texttok"}, "wanted component 'cm3-texttok/tokenizer'"),
        ({"eos_id": 7}, "eos_id: wanted 1, got 7"),
        ({"vocab_size": None}, "vocab_size: wanted 400, got None"),
    ],
)
def test_other_configs_are_refused(tokenizer, tmp_path, change, words):
    tokenizer.save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=rf"config\.json: .*{words}"):
        TextTokenizer.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]"])
def test_broken_config_is_named(tokenizer, tmp_path, content):
    tokenizer.save(tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json: wanted"):
        TextTokenizer.load(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer-*.model"])
def test_missing_file_is_named(tokenizer, tmp_path, name):
    tokenizer.save(tmp_path)
    (path,) = tmp_path.glob(name)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        TextTokenizer.load(tmp_path)


def test_a_save_that_is_killed_leaves_a_whole_tokenizer(tokenizer, corpus, tmp_path, monkeypatch):
    """After each step of the save, the old tokenizer or the new one loads."""
    other = TextTokenizer.train(corpus, vocab_size=400, num_masks=5)
    tokenizer.save(tmp_path)
    state, replace = [], os.replace

    def record(*paths):
        for done in (False, True):
            if done:
                replace(*paths)
            state.append(TextTokenizer.load(tmp_path).sha256)

    monkeypatch.setattr(os, "replace", record)
    other.save(tmp_path)
    old, new = tokenizer.sha256, other.sha256
    assert state == [old, old, old, new] and old != new
    assert len(os.listdir(tmp_path)) == 2  # nothing of the old one is left
    other.save(tmp_path)
    assert TextTokenizer.load(tmp_path).sha256 == new


def test_a_folder_of_version_0_1_loads(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / config.pop("model")).rename(tmp_path / "tokenizer.model")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert TextTokenizer.load(tmp_path).model_bytes == tokenizer.model_bytes
    tokenizer.save(tmp_path)
    assert len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize("content", ['{"model_type": "llama"}', "{", "[" * 100_000])
def test_another_programs_folder_is_not_written_to(tokenizer, tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json: wanted"):
        tokenizer.save(tmp_path)
    assert os.listdir(tmp_path) == ["config.json"]
    assert (tmp_path / "config.json").read_text() == content


@pytest.mark.parametrize("name", ["../tokenizer.model", "/tokenizer.model", "a\0b", "", "..", 3])
def test_the_model_lies_in_the_folder(tokenizer, tmp_path, name):
    tokenizer.save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model": name}))
    with pytest.raises(ValueError, match="model: wanted the name of a file"):
        TextTokenizer.load(tmp_path)


def test_the_hash_is_of_the_pieces(tokenizer, corpus):
    same = TextTokenizer.train(corpus, vocab_size=400, num_masks=4, num_threads=1)
    assert same.model_bytes != tokenizer.model_bytes  # which name the threads
    assert same.sha256 == tokenizer.sha256
    others = [corpus[::-1][:200], [text.upper() for text in corpus]]
    hashes = {TextTokenizer.train(o, vocab_size=300, num_masks=4).sha256 for o in others}
    assert len(hashes | {tokenizer.sha256}) == 3


def test_silent_ranges_are_the_ids_without_text(tokenizer):
    (bounds,) = tokenizer.silent_ranges
    assert bounds == (0, tokenizer.byte_ids.start)
    assert all(tokenizer.decode([i]) == "" for i in range(*bounds))


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_full_disk_leaves_nothing(tokenizer, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match=r"could not write.*tokenizer\.model"):
            tokenizer.save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def test_pickle(tokenizer):
    assert pickle.loads(pickle.dumps(tokenizer)).encode("red fox") == tokenizer.encode("red fox")


def test_foreign_models_are_refused(corpus):
    for content in (b"", b"no model"):
        with pytest.raises(ValueError, match="model_bytes: wanted a sentencepiece model"):
            TextTokenizer(content)

    import io

    def foreign(**settings):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus),
            model_writer=model,
            model_type="bpe",
            vocab_size=350,
            byte_fallback=True,
            minloglevel=2,
            **settings,
        )
        return model.getvalue()

    with pytest.raises(ValueError, match="wanted the control symbol <pad>"):
        TextTokenizer(foreign())
    with pytest.raises(ValueError, match="wanted a lossless model"):
        TextTokenizer(foreign(control_symbols=["<pad>", "<eos>", "<break>", "<infill>", "<mask>"]))
