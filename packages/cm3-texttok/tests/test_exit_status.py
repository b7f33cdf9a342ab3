"""The ends of commands. The same file stands beside each copy of `exit_status.py`."""

import signal
import subprocess
import sys
import time

import pytest

from cm3_texttok.exit_status import FAILURES, exit_status

# a shell starts its background jobs deaf to Ctrl-C, and their children inherit it
PROGRAM = """
import signal, sys
from cm3_texttok.exit_status import exit_status
signal.signal(signal.SIGINT, signal.default_int_handler)
def run():
    while True:
        print("line")
sys.exit(exit_status(run, "it", interrupted="stopped"))
"""


def fail(error: BaseException) -> None:
    raise error


def test_what_is_done_is_0(capsys):
    assert exit_status(lambda: print("done"), "it") == 0
    assert capsys.readouterr() == ("done\n", "")


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_is_one_line_and_1(kind, capsys):
    assert exit_status(lambda: fail(kind("a.png: broken\n  in two lines")), "it") == 1
    assert capsys.readouterr() == ("", "it: a.png: broken in two lines\n")


def test_faults_of_the_program_keep_their_traceback():
    for error, failures in ((AssertionError(), FAILURES), (TypeError(), (ValueError,))):
        with pytest.raises(type(error)):
            exit_status(lambda error=error: fail(error), "it", failures=failures)
    with pytest.raises(SystemExit):
        exit_status(lambda: sys.exit(2), "it")


def test_an_interrupt_is_130(capsys):
    assert exit_status(lambda: fail(KeyboardInterrupt()), "it") == 130
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_leaves_no_traceback():
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert program.stdout is not None and program.stdout.readline() == b"line\n"
    time.sleep(0.1)
    program.send_signal(signal.SIGINT)
    _, err = program.communicate()
    assert (program.returncode, err) == (130, b"stopped\n")


def test_a_reader_that_has_gone_is_no_error():
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert program.stdout is not None and program.stderr is not None
    program.stdout.readline()
    program.stdout.close()  # as `head -1` does
    assert (program.wait(), program.stderr.read()) == (141, b"")
    program.stderr.close()
