"""A page's own folder, in which its blocks are run one after the other."""

import contextlib
import io
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.docs.blocks import Block
from tests.docs.outputs import alike
from tests.service import READY

BLOCK_TIMEOUT_S = 120
KEEP_EXPORTS = 'trap \'export -p > "$HOME/.exported"\' EXIT\n. "$HOME/.exported"\n'
"""What one block exports the next ones have, as in a reader's terminal."""


@dataclass
class Sandbox:
    folder: Path
    environment: Mapping[str, str]
    stands_for: Mapping[str, str]  # what a page calls it: what it is called here
    namespace: dict[str, Any] = field(default_factory=dict)  # of the page's Python
    printed: str = ""  # by the last block that was run

    def __post_init__(self) -> None:
        (self.folder / ".exported").touch()

    def do(self, block: Block) -> None:
        """Raises AssertionError, or whatever the block's Python raises."""
        if "file" in block.marks:
            self._write(block)
        elif "output" in block.marks:
            assert alike(block.text, self.printed), (
                f"{block.where} shows\n{block.text}\nbut this was printed:\n{self.printed}"
            )
        elif block.language == "python":
            self._run_python(block)
        elif "until stopped" in block.marks:
            self._serve(block)
        else:
            self._run(block)

    def _write(self, block: Block) -> None:
        path = self.folder / block.marks["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._here(block.text), encoding="utf-8")
        path.chmod(0o755 if block.is_script else 0o644)

    def _here(self, text: str) -> str:
        for theirs, ours in self.stands_for.items():
            text = text.replace(theirs, ours)
        return text

    def _run(self, block: Block) -> None:
        script = f"set -euo pipefail\n{KEEP_EXPORTS}{self._here(block.text)}"
        process = self._bash(script, stderr=subprocess.PIPE)
        try:
            out, errors = process.communicate(timeout=BLOCK_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # and what it has started, which dies with it
            raise
        said = f"{block.where} ended with {process.returncode}\n{out}\n{errors}"
        assert process.returncode in block.exits, said
        self.printed = out

    def _bash(self, script: str, stderr: int | None = None) -> "subprocess.Popen[str]":
        """In a session of its own, as a terminal would start it."""
        return subprocess.Popen(
            ["bash", "-c", script],
            cwd=self.folder,
            env=dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )

    def _run_python(self, block: Block) -> None:
        code = compile(self._here(block.text), block.where, "exec")
        said = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(said):
            exec(code, self.namespace)
        self.printed = said.getvalue()

    def _serve(self, block: Block) -> None:
        """Stopped by one Ctrl-C."""
        process = self._bash(f". $HOME/.exported\n{self._here(block.text)}")
        assert process.stdout
        ready = any(line.startswith(READY) for line in process.stdout)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=BLOCK_TIMEOUT_S)
        assert ready, f"{block.where} was never ready"
