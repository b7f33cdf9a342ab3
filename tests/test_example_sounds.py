"""The example of another modality: its sounds, their codes, documents, and a short run."""

import json
import runpy
import sys
import wave

import numpy as np
import pytest
import torch
import warm

from cm3_decoding import SamplingConfig, generate
from cm3_retrieval import inference_context, training_context
from cm3_texttok import TextTokenizer


@pytest.fixture(autouse=True, scope="module")
def _example_is_importable(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "examples" / "sounds"))
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def band():
    from made_sounds import instruments

    return instruments(common=8, rare=200, new=8, seed=0)


@pytest.fixture
def played(band, rng):
    """All sounds of the band, and their samples."""
    from made_sounds import every_sound, play

    sounds = every_sound(band, rng)
    return sounds, np.stack(
        [play(s.note, s.way, band[s.instrument].amplitudes, rng) for s in sounds]
    )


@pytest.fixture(scope="module")
def codes():
    from made_sounds import some_sounds
    from sound_codes import SoundCodes

    return SoundCodes.learn(torch.from_numpy(some_sounds(400, np.random.default_rng(1))))


@pytest.fixture
def documents(played, codes):
    from made_sounds import SAMPLES
    from sound_codes import FRAME
    from sound_documents import SoundDocuments

    text = TextTokenizer.train([sound.caption for sound in played[0]], vocab_size=400)
    return text, SoundDocuments(text, codes, SAMPLES // FRAME)


def decibels(samples):
    return 10 * np.log10(np.square(samples).mean(-1))


def test_pitch_is_the_fundamental_within_five_cents(rng):
    from made_sounds import HARMONICS, RATE, SAMPLES, WAYS, some_harmonics
    from measured import pitch

    for way in [*WAYS.values()] * 8:
        hertz, parts = rng.uniform(200, 560), np.arange(1, HARMONICS + 1)[:, None]
        turns = parts * hertz * np.arange(SAMPLES) / RATE + rng.random((HARMONICS, 1))
        samples = way * some_harmonics(rng).dot(np.sin(2 * np.pi * turns))
        assert abs(1200 * np.log2(pitch(samples) / hertz)) < 5


def test_what_is_heard_is_what_was_played(band, played, rng):
    from measured import heard

    known = {name: one.amplitudes for name, one in band.items() if one.kind != "rare"}
    asked = [key for key, sound in enumerate(played[0]) if sound.instrument in known]
    for key in rng.choice(asked, 100, replace=False):
        sound = heard(played[1][key], known)
        assert sound.caption == played[0][key].caption


def test_what_is_held_out_is_in_no_training(band, played):
    train = {sound.caption for sound in played[0] if sound.split == "train"}
    for sound in played[0]:
        assert (sound.split == "train") == (sound.caption in train)
        kind = band[sound.instrument].kind
        assert (
            sound.split
            in {
                "common": ("train", "validation", "test"),
                "rare": ("train", "rest"),
                "new": ("shown", "new"),
            }[kind]
        )


def test_sounds_keep_pitch_loudness_and_way_through_the_codes(codes, played):
    from measured import heard, pitch

    sounds, samples = played[0][::12], played[1][::12]
    through = codes.decode(codes.encode(torch.from_numpy(samples))).numpy()
    assert through.shape == samples.shape and np.abs(through).max() <= 1
    cents = [1200 * np.log2(pitch(a) / pitch(b)) for a, b in zip(through, samples, strict=True)]
    assert np.median(np.abs(cents)) < 3 and np.abs(cents).max() < 20
    assert np.abs(decibels(through) - decibels(samples)).max() < 3
    known = {"any": np.ones(7)}
    assert [heard(one, known).way for one in through] == [sound.way for sound in sounds]


def test_each_place_of_a_frame_has_codes_of_its_own(codes, played):
    found = codes.encode(torch.from_numpy(played[1])).view(-1, 8)
    for place, (start, size) in enumerate(zip(codes.starts, codes.sizes, strict=True)):
        assert start <= found[:, place].min() and found[:, place].max() < start + size
        assert len(found[:, place].unique()) > size / 4
    assert codes.starts[-1] + codes.sizes[-1] == codes.num_codes


def test_codes_are_kept_on_disk(codes, played, tmp_path):
    from sound_codes import SoundCodes

    codes.save(tmp_path / "codes.safetensors")
    again, samples = (
        SoundCodes.load(tmp_path / "codes.safetensors"),
        torch.from_numpy(played[1][:4]),
    )
    assert again.sha256 == codes.sha256
    assert torch.equal(again.decode(again.encode(samples)), codes.decode(codes.encode(samples)))


def test_a_prompt_is_laid_out_as_documented(documents, codes, played):
    text, layout = documents
    words, sounds = layout.vocabulary, played[0][:2]
    texts = text.encode_batch([sound.caption for sound in sounds])
    rows = codes.encode(torch.from_numpy(played[1][:2])).numpy()
    ids = [row + layout.block.offset for row in rows]
    eos, change, mask, infill = (
        [words.eos_id],
        [words.break_id],
        words.mask_ids[:1],
        [words.infill_id],
    )
    opening = [*eos, *texts[0], *change, *ids[0], *change]
    context = [(texts[0], rows[0])]
    assert layout.sound_prompt(texts[1], context).tolist() == [*opening, *texts[1], *change]
    asked = layout.caption_prompt(rows[1], context).tolist()
    assert asked == [*opening, *mask, *change, *ids[1], *infill]
    whole = layout.training([*context, (texts[1], rows[1])])
    assert whole.tolist() == [*opening, *texts[1], *change, *ids[1], *eos]
    assert (layout.block.contains(whole).sum(), len(rows[0])) == (64, 32)
    assert not words.is_image(whole).any()


class Wayward:
    """A model that likes all ids outside the block of sounds best."""

    def __init__(self, block, size):
        self.logits = torch.full((size,), 50.0)
        self.logits[block.offset : block.stop] = 0

    def make_cache(self, batch_size, length):
        return None

    def prefill(self, input_ids, lengths, cache):
        return self.logits.expand(len(input_ids), -1)

    def decode_one_token(self, input_ids, cache):
        return self.logits.expand(len(input_ids), -1)


def test_a_drawn_sound_has_the_ids_that_its_places_allow_and_all_of_them(documents, codes):
    _, layout = documents
    drawn = generate(
        Wayward(layout.block, layout.vocabulary.size),
        [layout.sound_prompt(np.array([300]))] * 256,
        constraint=layout.sound,
        config=SamplingConfig(),
        seeds=range(256),
    )
    ids = torch.stack(drawn).view(-1, 8) - layout.block.offset
    for place, (start, size) in enumerate(zip(codes.starts, codes.sizes, strict=True)):
        assert ids[:, place].unique().tolist() == list(range(start, start + size))
    assert codes.decode((torch.stack(drawn) - layout.block.offset)[:2]).isfinite().all()


def test_a_drawn_caption_has_text_alone(documents):
    text, layout = documents
    model = Wayward(layout.block, layout.vocabulary.size)  # likes text, and signs as well
    prompts = [layout.caption_prompt(np.zeros(32, np.int64))] * 64
    drawn = generate(
        model, prompts, constraint=layout.caption, config=SamplingConfig(), seeds=range(64)
    )
    words = np.concatenate(drawn)
    assert (layout.vocabulary.is_text(words) | (words == layout.vocabulary.eos_id)).all()
    assert all(text.decode(row.tolist()) is not None for row in drawn)


def test_documents_play_the_same_instrument(band, played):
    """What retrieval is for: a document has an instrument that only it can tell about."""
    from sound_memory import STRATEGY, SoundEncoder, neighbours, remember

    sounds, samples = played
    captions = [sound.caption for sound in sounds]
    train = [key for key, sound in enumerate(sounds) if sound.split == "train"]
    kept = train + [key for key, sound in enumerate(sounds) if sound.split == "shown"]
    encoder = SoundEncoder([captions[key] for key in train], samples[train])
    bank = remember(encoder, kept, [captions[key] for key in kept], samples[kept])

    for key in (key for key, sound in enumerate(sounds) if sound.split == "new"):
        by_caption = {"text": encoder.encode_texts([captions[key]])[0]}
        (found,) = inference_context(bank, by_caption, STRATEGY)
        assert sounds[found].instrument == sounds[key].instrument
        louder = {"image": encoder.encode_images(samples[[key]] / 2)[0]}
        (found,) = inference_context(bank, louder, STRATEGY)
        assert sounds[found].note == sounds[key].note

    table = neighbours(bank, encoder, train, [captions[k] for k in train], samples[train], seed=0)
    rare = [key for key in train if band[sounds[key].instrument].kind == "rare"]
    pairs = [(key, training_context(table, key, n=1, seed=0, epoch=0)[0]) for key in rare]
    assert all(key != other for key, other in pairs)
    same = [sounds[key].instrument == sounds[other].instrument for key, other in pairs]
    assert np.mean(same) > 0.8  # 0.58 where near copies are left out


def test_words_are_counted_one_by_one():
    from made_sounds import Sound
    from sound_figures import right, told

    wanted = [Sound("sine wave", "c4", "steady"), Sound("diba", "d4", "fading")]
    got = [told("a steady sine wave on c4"), told("a fading dibo on d4")]
    assert right(wanted, got) == {"instrument": 0.5, "note": 1.0, "way": 1.0, "all": 0.5}
    assert right(wanted, [told("noise"), told("")])["all"] == 0


@pytest.mark.slow
def test_a_short_run_leaves_what_it_promises(root, tmp_path):
    out = tmp_path / "sounds"
    little = "--steps 12 --common 5 --rare 20 --new 2 --asked 3".split()
    command = [sys.executable, str(root / "examples/sounds/run.py"), *little, "--out", str(out)]
    done = warm.run(command, cwd=root)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "figures.json").read_text())
    assert found["settings"]["steps"] == 12 and found["chance"]["instrument"] == 1 / 7
    for group in ("test", "new"):
        assert found[group]["sounds"] == 3
        assert found[group]["ceiling"]["way"] == found[group]["ceiling"]["note"] == 1
        assert found[group]["document"]["instrument"] == 1 and found[group]["document"]["all"] == 0
        assert all(0 <= found[group]["drawn"][word] <= 1 for word in found["chance"])
    assert "| caption to sound, one document |" in done.stdout
    assert (out / "spectrograms.png").stat().st_size > 10_000
    files = list((out / "wav").glob("*.wav"))
    assert len(files) == 6 * 4
    for file in files:
        with wave.open(str(file)) as sound:
            assert (sound.getframerate(), sound.getnframes()) == (8000, 4096)
            assert np.frombuffer(sound.readframes(4096), "<i2").any()


def refusal(root, capsys, *arguments):
    """Return the last line of what a command says that is refused."""
    app = runpy.run_path(str(root / "examples/sounds/run.py"))
    with pytest.raises(SystemExit) as end:
        app["main"](list(arguments))
    assert end.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow  # imports all that the example wants
@pytest.mark.parametrize("wrong", ["steps=1", "rare=-3", "seed=x"])
def test_a_wrong_argument_is_named(root, tmp_path, capsys, wrong):
    name, value = wrong.split("=")
    said = refusal(root, capsys, f"--{wrong}", "--out", str(tmp_path / "out"))
    assert f"argument --{name}: wanted a whole number from" in said and repr(value) in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_folder_with_something_in_it_is_left_alone(root, tmp_path, capsys):
    (tmp_path / "figures.json").write_text("{}")
    said = refusal(root, capsys, "--out", str(tmp_path))
    assert said.endswith(f"argument --out: wanted a new or an empty folder, got {tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]
