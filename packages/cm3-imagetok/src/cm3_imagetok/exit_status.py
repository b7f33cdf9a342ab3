"""How a command ends, the same for every command of the project.

0: done. 1: a failure, one line on stderr. 2: wrong usage, from `argparse`. 130: interrupted, as a
shell says it of Ctrl-C. 141: nobody reads the output any more, as a shell says it of a broken pipe.
The same file stands in each package with a command, since no package imports another; a test of the
repository keeps the copies equal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

FAILURES = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    ImportError,
    RuntimeError,
    FloatingPointError,
)
"""Errors whose message is for the user; others are the program's own and keep their traceback."""


def exit_status(
    run: Callable[[], object],
    name: str,
    *,
    failures: tuple[type[Exception], ...] = FAILURES,
    interrupted: str = "",
) -> int:
    """Run a command and return its exit status.

    Args:
        run: The work.
        name: What stands before the line of a failure, such as the program's name.
        failures: Errors that are a failure.
        interrupted: What to say after Ctrl-C.
    """
    try:
        run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        if interrupted:
            print(interrupted, file=sys.stderr)
        return 130
    except BrokenPipeError:
        # what is left in the buffer has nowhere to go, and Python would say so at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except failures as error:
        # the text of a KeyError is its argument's repr
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"{name}: {' '.join(str(text).split())}", file=sys.stderr)
        return 1
    return 0
