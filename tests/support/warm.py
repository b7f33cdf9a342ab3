"""Apps in processes of their own that start at once: forked from one that has imported all.

`warm.run` and `warm.Popen` take what `subprocess.run` and `subprocess.Popen` take for a Python
script, and give what they give, as far as tests ask for it. A process starts in milliseconds where
imports take ten seconds. The tests of cm3-train make use of it, too.
"""

import multiprocessing
import os
import runpy
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

IMPORTED = [
    "torch", "torchvision", "torchmetrics", "lightning.pytorch", "open_clip", "jsonargparse",
    "faiss", "pyarrow", "cm3leon.run", "cm3leon.tuning", "cm3leon.evaluation.report",
    "cm3leon.generate", "cm3leon.preparation.driver", "cm3leon.training.decoder",
    "cm3leon.data.compositions", "cm3_train",
]  # fmt: skip
"""What the apps import in the end, where it is installed. Nothing is computed."""

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(IMPORTED)


class Popen:
    """A script that runs; arguments as of `subprocess.Popen`, whose outputs are always kept.

    Args:
        command: The interpreter, the script, its arguments.
        cwd: Where it runs.
        env: Its environment; None: that of the tests. What libraries read of it when they are
            imported, such as OMP_NUM_THREADS, is that of the tests.
    """

    def __init__(self, command, *, cwd=".", env=None):
        self._where = Path(tempfile.mkdtemp())
        self._files = self._where / "out", self._where / "err"
        line = [str(part) for part in command[1:]]
        environment = dict(os.environ if env is None else env)
        self._process = _server.Process(
            target=_run, args=(line, str(cwd), environment, *map(str, self._files)), daemon=False
        )
        self._process.start()
        self._code = None
        self.pid = self._process.pid

    @property
    def returncode(self):
        """Return the exit status, below 0 of a signal; None while it runs."""
        if self._code is None:
            self._code = self._process.exitcode
        return self._code

    def poll(self):
        """Return the exit status, None while it runs."""
        return self.returncode

    def said(self):
        """Return both outputs so far."""
        return tuple(
            file.read_text("utf-8", "replace") if file.exists() else "" for file in self._files
        )

    def wait(self):
        """Wait for the end; gives the exit status."""
        self._process.join()
        return self.returncode

    def send_signal(self, number):
        """Send a signal."""
        os.kill(self.pid, number)

    def communicate(self, timeout=None):
        """Wait for the end; gives both outputs."""
        self._process.join(timeout)
        assert self.returncode is not None, f"{self.pid} runs on after {timeout} s"
        outputs = tuple(file.read_text("utf-8", "replace") for file in self._files)
        shutil.rmtree(self._where)
        return outputs

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.returncode is None:
            self.send_signal(signal.SIGKILL)
        self.wait()
        self._process.close()
        shutil.rmtree(self._where, ignore_errors=True)


def run(command, *, cwd=".", env=None, timeout=None):
    """Run a script to its end; gives `returncode`, `stdout` and `stderr`."""
    with Popen(command, cwd=cwd, env=env) as job:
        out, err = job.communicate(timeout)
        return SimpleNamespace(returncode=job.returncode, stdout=out, stderr=err)


def _run(line, cwd, environment, out, err):
    for number, path in ((1, out), (2, err)):
        with open(path, "wb") as file:
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    known = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [str(Path(line[0]).parent), *filter(None, known)]
    sys.argv = line
    runpy.run_path(line[0], run_name="__main__")
