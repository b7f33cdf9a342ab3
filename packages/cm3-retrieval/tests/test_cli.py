import pytest

from cm3_retrieval.cli import _parser, main
from cm3_retrieval.commands import COMMANDS


def test_no_command_and_unknown_options_end_with_status_2(capsys):
    for arguments in ([], ["sing"], ["search", "bank", "--loud"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
    capsys.readouterr()


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
