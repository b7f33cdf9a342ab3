"""The command line of generate.py: an option that would change nothing is refused."""

import pytest

from cm3leon.generate_options import parse


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "wanted --prompt TEXT"),
        ("--prompt apple --mask 0,0,8,8", "--infill FILE and --mask"),
        ("--infill a.png", "--infill FILE and --mask"),
        ("--caption a.png --prompt apple", "--caption stands alone"),
        ("--caption a.png --guidance-scale 2", "--guidance-scale does nothing with --caption"),
        ("--infill a.png --mask 1,2,3,4 --sampler cd-k", "--sampler cd-k is for --prompt"),
        ("--caption a.png --sampler mixed", "--sampler mixed is for --prompt"),
        ("--caption a.png --cd-alpha 0.2", "--cd-alpha does nothing with --sampler top-p"),
        ("--prompt apple --sampler top-p --cd-k 2", "--cd-k does nothing with --sampler top-p"),
        ("--prompt apple --sampler cd-k --guidance-scale 2", "--guidance-scale does nothing with"),
        ("--prompt apple --sampler greedy --temperature 2", "--temperature does nothing with"),
        ("--caption a.png --sampler greedy --top-p 0.5", "--top-p does nothing with"),
        ("--prompt apple --sampler greedy --seed 0", "--seed does nothing with --sampler greedy"),
        ("--prompt apple --sampler greedy --candidates 2", "--candidates: wanted 1 with --sampler"),
        ("--teach a.png --as b --keep --out c.png", "--out does nothing without --prompt"),
        ("--teach a.png --as b --keep --seed 0", "--seed does nothing without --prompt"),
        ("--prompt apple --seed -1", "--seed: wanted 0 to 4294967295, got -1"),
        ("--prompt apple --seed 4294967296", "--seed: wanted 0 to 4294967295"),
        ("--prompt apple --top-p 2", "--top-p: wanted a number above 0 and at most 1, got 2.0"),
        ("--prompt apple --temperature 0", "--temperature: wanted a number above 0, got 0.0"),
        ("--prompt apple --guidance-scale nan", "--guidance-scale: wanted 0 or more, got nan"),
        ("--prompt apple --cd-k 0", "--cd-k: wanted a whole number of at least 1, got 0"),
        ("--caption a.png --out b.png", "--out does nothing"),
        ("--caption a.png --best b.png", "--best does nothing"),
        ("--prompt apple --teach a.png", "--teach FILE and --as NAME"),
        ("--prompt apple --as zorp", "--teach FILE and --as NAME"),
        ("--prompt apple --keep", "--keep wants --teach"),
        ("--prompt zorp --teach a.png --as zorp --retrieve 0", "--teach does nothing"),
        ("--prompt apple --candidates 0", "--candidates: wanted at least 1, got 0"),
        ("--prompt apple --mask 1,2,3", "wanted x0,y0,x1,y1"),
        ("--infill a.png --mask 0,0,0,0", "x0 < x1 and y0 < y1"),
        ("--prompt apple --retrieve 0 --image-guidance-scale 2", "does nothing with --retrieve 0"),
        ("--prompt apple --sampler mixed --candidates 1", "--candidates: wanted at least 2"),
        ("--prompt apple --out /proc/apple.png", "/proc: "),
        ("--prompt apple --out apple.xyz", "wanted a name with one of"),
        ("--prompt apple --out apple", "wanted a name with one of"),
        ("--prompt apple --out no/such/folder/apple.png", "no such folder"),
    ],
)
def test_options_that_are_wrong_or_change_nothing_are_named(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        parse(None, arguments.split())
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_options_that_go_together():
    given = parse(None, "--teach a.png --as zorp --keep".split())
    assert given.name == "zorp" and given.prompt is None
    given = parse(None, "--infill a.png --mask 1,2,3,4 --out b.jpg".split())
    assert given.mask == (1, 2, 3, 4) and given.out.name == "b.jpg"


@pytest.mark.parametrize("what", ["--prompt apple", "--caption a.png"])
def test_greedy_draws_one_candidate_and_others_eight(what):
    given = parse(None, [*what.split(), "--sampler", "greedy"])
    assert (given.sampler, given.candidates, given.seed) == ("greedy", 1, 0)
    given = parse(None, what.split())
    assert (given.candidates, given.seed, given.trust) == (8, 0, False)
    assert given.sampler == (None if "prompt" in what else "top-p")


def test_a_file_that_is_there_is_not_replaced(tmp_path, capsys):
    for name in ("a.png", "link.jpg"):
        (tmp_path / name).symlink_to("gone") if "link" in name else (tmp_path / name).touch()
        with pytest.raises(SystemExit):
            parse(None, ["--prompt", "apple", "--out", str(tmp_path / name)])
        assert "is there already; wanted a new file" in capsys.readouterr().err
    assert parse(None, ["--prompt", "apple", "--out", str(tmp_path / "b.png")]).out.name == "b.png"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--edit a.png", "--edit wants --instruction TEXT"),
        ("--edit a.png --instruction x --prompt y", "--prompt does nothing with --edit"),
        ("--edit a.png --instruction x --retrieve 1", "--retrieve does nothing with --edit"),
        ("--edit a.png --instruction x --retrieve 0", "--retrieve does nothing with --edit"),
        ("--ask a.png what --guidance-scale 0", "--guidance-scale does nothing with --ask"),
        ("--edit a.png --instruction x --sampler greedy", "--sampler does nothing with --edit"),
        ("--edit a.png --write K", "--write does nothing with --edit"),
        ("--structure canny a.png", "--structure wants --prompt TEXT"),
        ("--structure cany a.png --prompt x", "--structure: wanted one of"),
        ("--structure canny a.png --prompt x --feature-weights w", "does nothing with --structure"),
        ("--structure hed a.png --prompt x --feature-weights w --feature-file", "--feature-file"),
        ("--write K --image-guidance-scale 2", "--image-guidance-scale does nothing with --write"),
        ("--write K --candidates 0", "--candidates: wanted at least 1, got 0"),
        ("--write K --guidance-scale nan", "--guidance-scale: wanted 0 or more, got nan"),
        ("--ask a.png what --candidates 2", "--candidates does nothing with --ask"),
        ("--ask a.png what --out b.png", "--out does nothing with --ask"),
        ("--ask a.png what --best b.png", "--best does nothing with --ask"),
        ("--long", "--long wants --caption FILE"),
        ("--long --caption a.png --seed 3", "--seed does nothing with --long"),
        ("--instruction x", "--instruction goes with --edit"),
        ("--feature-file --prompt x", "--feature-file goes with --structure"),
    ],
)
def test_options_of_instructions_stand_alone(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        parse(None, arguments.split())
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--write", "--ask", "--instruction"])
def test_empty_texts_are_refused(capsys, option):
    arguments = {"--write": ["--write", " "], "--ask": ["--ask", "a.png", ""]}.get(
        option, ["--edit", "a.png", "--instruction", ""]
    )
    with pytest.raises(SystemExit):
        parse(None, arguments)
    assert "wanted a" in capsys.readouterr().err or option == "--instruction"
