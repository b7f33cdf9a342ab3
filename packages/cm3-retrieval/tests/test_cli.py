import pytest

from cm3_retrieval.cli import _parser, main
from cm3_retrieval.commands import COMMANDS


def test_no_command_and_unknown_options_end_with_status_2(capsys):
    for arguments in ([], ["sing"], ["search", "bank", "--loud"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("search bank", "--text, --image: wanted at least one of them"),
        ("search bank --text a -k 0", "-k: wanted at least 1, got 0"),
        ("eval bank -k x", "-k: invalid integer value: 'x'"),
        ("eval bank --duplicate nan", "--duplicate: wanted -1 to 1, got nan"),
        ("neighbours bank table --candidates 0", "--candidates: wanted at least 1, got 0"),
        ("neighbours bank table --max-likeness nan", "--max-likeness: wanted -1 to 1, got nan"),
        ("neighbours bank table --max-relevance 2", "--max-relevance: wanted -1 to 1, got 2.0"),
        ("neighbours bank table --seed -1", "--seed: wanted at least 0, got -1"),
    ],
)
def test_wrong_values_of_options_end_with_status_2(capsys, arguments, words):
    with pytest.raises(SystemExit) as stopped:
        main(arguments.split())
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def test_every_command_of_the_parser_can_run():
    (commands,) = (action for action in _parser()._actions if action.dest == "command")
    assert set(commands.choices) == set(COMMANDS)


HELP = """
from cm3_retrieval.cli import main
try:
    main(["--help"])
except SystemExit as stopped:
    assert stopped.code == 0
"""


def test_help_imports_nothing_heavy(heavy_after):
    assert heavy_after(HELP) == set()
