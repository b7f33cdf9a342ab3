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
        ("--caption a.png --guidance-scale 2", "--guidance-scale and --sampler are for"),
        ("--caption a.png --out b.png", "--out does nothing"),
        ("--prompt apple --teach a.png", "--teach FILE and --as NAME"),
        ("--prompt apple --as zorp", "--teach FILE and --as NAME"),
        ("--prompt apple --keep", "--keep wants --teach"),
        ("--prompt zorp --teach a.png --as zorp --retrieve 0", "--teach does nothing"),
        ("--prompt apple --candidates 0", "--candidates: wanted at least 1, got 0"),
        ("--prompt apple --mask 1,2,3", "wanted x0,y0,x1,y1"),
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
