"""What the command line ends with: 0 done, 1 refused (`inspect`) or not held (`evaluate`,
`frontier`), 2 bad input, 3 the job failed."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from pydantic import ValidationError

from app.domain.errors import AdapterSafetyError, NotFound, Refused
from app.domain.measure_errors import (
    NoRefusalToRestore,
    PromptsTooLong,
    SetsOverlap,
    SetTooSmall,
)

REFUSED = NOT_HELD = 1
BAD_INPUT = 2
FAILED = 3
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
    except (AdapterSafetyError, OSError) as error:
        raise fail(str(error), FAILED) from error


def _settings_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"ADAPTER_SAFETY_{str(first['loc'][0]).upper()}: {first['msg']}"
