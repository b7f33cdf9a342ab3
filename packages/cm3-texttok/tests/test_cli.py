import io
import json
import re
import subprocess
import sys

import pytest

from cm3_texttok import TextTokenizer
from cm3_texttok.cli import main


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return str(folder)


@pytest.fixture
def stdin(monkeypatch):
    def give(data: bytes):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))

    return give


def test_train_gives_what_the_class_gives(corpus, tmp_path, capsys):
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(json.dumps({"caption": text}) + "\n" for text in corpus))
    arguments = ["train", str(path), "--field", "caption", "--vocab-size", "400"]
    assert main([*arguments, "--num-masks", "4", "--out", str(tmp_path / "out")]) == 0
    wanted = TextTokenizer.train(corpus, vocab_size=400, num_masks=4)
    assert TextTokenizer.load(tmp_path / "out").model_bytes == wanted.model_bytes
    out, err = capsys.readouterr()
    assert out == ""
    assert f"read {len(corpus)} texts, " in err and "400 ids in " in err


def test_encode_and_decode_are_inverse(saved, tokenizer, stdin, capsys):
    texts = ["red apple", "", "caf\u00e9 \U0001f98a <break>", "  x\ty "]
    assert main(["encode", saved, *texts]) == 0
    lines = capsys.readouterr().out
    wanted = [" ".join(map(str, tokenizer.encode(text))) for text in texts]
    assert lines.split("\n") == [*wanted, ""]

    stdin("\n".join(texts).encode())
    assert main(["encode", saved]) == 0
    assert capsys.readouterr().out == lines

    for encoding in ("utf-8-sig", "utf-16"):
        stdin("\n".join(texts).encode(encoding))
        assert main(["encode", saved]) == 0
        assert capsys.readouterr().out == lines

    stdin(lines.encode())
    assert main(["decode", saved]) == 0
    assert capsys.readouterr().out == "".join(text + "\n" for text in texts)
    assert main(["decode", saved, *wanted[0].split()]) == 0
    assert capsys.readouterr().out == "red apple\n"


def test_inspect_counts_what_there_is(saved, tokenizer, tmp_path, capsys):
    texts = ["red apple", "blue fox \U0001f98a"]
    (tmp_path / "a.txt").write_text("\n".join(texts), encoding="utf-8")
    assert main(["inspect", saved, str(tmp_path / "a.txt")]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = {line[:34].strip(): line[34:].strip() for line in lines}
    ids = [i for text in texts for i in tokenizer.encode(text)]
    size = len("".join(texts).encode())
    learnt = {i for i in ids if i >= tokenizer.byte_ids.stop}
    assert table["ids"] == "400"
    assert table["structural ids"] == "8" and table["byte pieces"] == "256"
    assert table["learnt pieces"] == str(400 - 8 - 1 - 256)  # one id is never used
    assert (table["texts"], table["tokens"]) == ("2", str(len(ids)))
    assert (table["bytes"], table["characters"]) == (str(size), str(len("".join(texts))))
    assert table["bytes per token"] == f"{size / len(ids):.3f}"
    assert table["coverage: bytes in learnt pieces"] == f"{1 - 4 / size:.3%}"  # the fox alone
    assert table["learnt pieces used"].startswith(f"{len(learnt)} (")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["encode", "missing", "x"], "missing"),
        (["decode", "SAVED", "400"], "ids: at position 0 wanted an id in [0, 400), got 400"),
        (["decode", "SAVED", "x"], "ids:1: wanted integers"),
        (["inspect", "SAVED", "none.txt"], "none.txt: wanted a file, got none"),
        (["inspect", "SAVED", "none.csv"], "none.csv: wanted a file that ends in one of"),
        (["inspect", "SAVED", "empty.txt"], "wanted at least one text with characters, got 0"),
        (["train", "a.txt", "--out", "x"], "vocab_size: wanted at most "),
        (["train", "bad.jsonl", "--out", "x"], "bad.jsonl:2: wanted JSON"),
        (["encode", "SAVED"], "stdin:2: wanted UTF-8, got the byte 0xFF"),
    ],
)
def test_mistakes_are_one_line(saved, tmp_path, monkeypatch, stdin, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("red apple\n" * 20)
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "bad.jsonl").write_text('{"text": "x"}\n{')
    stdin(b"ok\n\xff\n")
    assert main([saved if word == "SAVED" else word for word in arguments]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "read " not in line[:5]]
    assert line.startswith("cm3-texttok: ") and words in line


def test_train_refuses_the_folder_of_something_else_before_it_reads_a_text(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    assert main(["train", str(tmp_path / "none.txt"), "--out", str(tmp_path)]) == 1
    line = capsys.readouterr().err
    assert f"{tmp_path}/config.json: wanted component 'cm3-texttok/tokenizer', got None" in line
    assert (tmp_path / "config.json").read_text() == "{}"


def test_help_names_every_command():
    run = [sys.executable, "-m", "cm3_texttok.cli", "--help"]
    output = subprocess.run(run, capture_output=True, check=True, text=True).stdout
    assert all(name in output for name in ("train", "encode", "decode", "inspect"))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["train"],
        ["train", "a.txt"],
        ["train", "a.txt", "--out", "x", "--vocab-size", "0"],
        ["train", "a.txt", "--out", "x", "--vocab-size", "300", "--num-masks", "100"],
        ["train", "a.txt", "--out", "x", "--num-masks", "-1"],
        ["train", "a.txt", "--out", "x", "--num-threads", "0"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert "usage: cm3-texttok" in err
    if len(arguments) > 2:
        assert re.search(r"error: train: (vocab_size|num_masks|num_threads): wanted \d+ to ", err)


def test_starting_imports_no_optional_or_heavy_library():
    code = (
        "import sys\nimport cm3_texttok\nfrom cm3_texttok.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'tokenizers', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_takes_one_line_is_no_error(saved, tmp_path):
    (tmp_path / "a.txt").write_text("red apple\n" * 100_000)
    command = f"{sys.executable} -m cm3_texttok.cli encode {saved} < {tmp_path / 'a.txt'}"
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -1; echo ${{PIPESTATUS[0]}}"], capture_output=True
    )
    ids, status = done.stdout.splitlines()
    assert (status, done.stderr) == (b"141", b"") and len(ids.split()) > 1


def test_inspect_names_the_line_of_a_half_surrogate_pair(saved, tmp_path, capsys):
    rows = ['{"text": "red"}'] * 1500 + [r'{"text": "half \ud83d"}']
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    assert main(["inspect", saved, str(tmp_path / "a.jsonl")]) == 1
    assert "a.jsonl:1501: field 'text': wanted Unicode, got half" in capsys.readouterr().err
