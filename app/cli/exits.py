"""What the command line ends with. docs/cli.md has the same table."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import typer
from pydantic import ValidationError

from app.domain.errors import AdapterSafetyError, NotFound, Refused, Unavailable
from app.domain.measure_errors import (
    NoRefusalToRestore,
    PromptsTooLong,
    SetsOverlap,
    SetTooSmall,
)
from app.observe.redaction import redactor

DONE = 0
REFUSED = NOT_HELD = 1
BAD_INPUT = 2
FAILED = 3
INTERRUPTED = 130  # as shells have it: 128 and SIGINT's number
EXITS: Mapping[int, str] = {
    DONE: "done; of `inspect`: accepted; of `evaluate` and `frontier`: every bound is held",
    NOT_HELD: "what was asked not to be is: a refusal of `inspect`, a bound of `evaluate` or "
    "`frontier` that is not held, a `--fail-on` of `patch` or `score`, a base model that "
    "no pair of a policy knows, a worker that does no work",
    BAD_INPUT: "bad input or usage: correct it and try again",
    FAILED: "the job failed, or the server did not answer; a backup or restore that lacks files, a "
    "schema that is not this version's (`migrate --check`), a data folder in use, a port that is "
    "taken",
    INTERRUPTED: "interrupted by Ctrl-C; a job that a server did is cancelled",
}
INPUT_FAULTS = (NoRefusalToRestore, PromptsTooLong, SetsOverlap, SetTooSmall)
"""What a job finds out only by a tokenizer or an answer, and is for the caller to correct."""


def fail(message: str, code: int) -> typer.Exit:
    """Print the message to stderr; raise what is returned."""
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(code)


@contextmanager
def explained() -> Iterator[None]:
    """Known errors become a sentence and an exit code instead of a trace."""
    try:
        yield
    except (Refused, NotFound, *INPUT_FAULTS) as error:
        raise fail(str(error), BAD_INPUT) from error
    except ValidationError as error:
        raise fail(_settings_fault(error), BAD_INPUT) from error
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise fail(str(error), BAD_INPUT) from error
    except Unavailable as error:
        raise fail(f"{error}{_reason(error)}", FAILED) from error
    except (AdapterSafetyError, OSError) as error:
        raise fail(str(error), FAILED) from error
    except KeyboardInterrupt as error:
        raise fail("interrupted", INTERRUPTED) from error


def _reason(error: Unavailable) -> str:
    """In the words of what did not answer: the first line, because drivers add pages."""
    said = str(getattr(error.__cause__, "orig", None) or error.__cause__ or "").strip()
    return f" ({redactor(())(said.splitlines()[0])})" if said else ""


def _settings_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"ADAPTER_SAFETY_{str(first['loc'][0]).upper()}: {first['msg']}"
