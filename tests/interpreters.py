"""Interpreters of their own, for what depends on what was imported before."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path


__all__ = ["WarmInterpreter", "run_python", "told"]

# What the library imports on its way, and what takes most of the time of importing it
BESIDE_THE_LIBRARY = (
    "torch._inductor.select_algorithm",
    "torchvision",
    "torchao",
    "bitsandbytes",
    "datasets",
    "sympy",
)
FORKING = """
import importlib, importlib.util, json, os, signal, sys

for name in json.loads(sys.argv[1]):
    if importlib.util.find_spec(name.partition(".")[0]):
        importlib.import_module(name)
assert not {"transformers", "transformers_videollama"} & sys.modules.keys()
for line in sys.stdin:
    request = json.loads(line)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    signal.alarm(300)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in ((1, request["stdout"]), (2, request["stderr"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    exec(compile(request["code"], "<string>", "exec"), {"__name__": "__main__"})
    sys.exit()
"""


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


class WarmInterpreter:
    """
    An interpreter that has imported what the library imports on its way, and neither the library nor the package. Each
    call runs code in a fork of it, in a quarter of the time that a fresh one takes.

    Args:
        folder (`Path`): Where what the code prints passes through.
    """

    def __init__(self, folder: Path):
        self.paths = {name: str(folder / name) for name in ("stdout", "stderr")}
        command = [sys.executable, "-c", FORKING, json.dumps(BESIDE_THE_LIBRARY)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, code: str) -> subprocess.CompletedProcess:
        code = textwrap.dedent(code)
        self.process.stdin.write(json.dumps({"code": code, **self.paths}) + "\n")
        self.process.stdin.flush()
        ended = self.process.stdout.readline()
        assert ended, "the interpreter that forks has ended"
        said = {name: Path(path).read_text(encoding="utf-8") for name, path in self.paths.items()}
        return subprocess.CompletedProcess(code, int(ended), **said)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def told(stderr: str, word: str) -> list[str]:
    """
    Lines that have a word, but for warnings in torch's own log, which begin with a W and the date: those that torchao
    causes, of what "is deprecated and will be an error", are not about this package.
    """
    return [line for line in stderr.splitlines() if word in line and not re.match(r"W\d{4} ", line)]
