"""Coverage-guided fuzzing of the gate: `make fuzz`; see docs/fuzzing.md.

Inputs are kept in `.fuzz/corpus` between runs, what broke in `.fuzz/findings`.
"""

import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["app.intake", "app.domain"]):
    from tests.fuzz.target import as_archive, as_pair, passes

from tests.attacks.corpus import corpus
from tests.attacks.hostile_costly import COSTLY
from tests.fuzz.edits import edited_pair, edited_weights
from tests.fuzz.honest import HONEST
from tests.intake.files import GOOD_FILES, GOOD_WEIGHTS, config_bytes, tarred, zipped

WORK = Path(".fuzz")
MOST_SEED_BYTES = 1 << 16  # because large inputs make every run slow, as the costly ones would
MEMORY = Path("/dev/shm")  # five times as many runs a second as on a disk
LIMITS = ["-timeout=20", "-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1"]
KINDS = tuple(HONEST)


def seeds() -> list[bytes]:
    sound = [as_pair(each.config_bytes, each.weights) for each in HONEST.values()]
    packed = [zipped(GOOD_FILES), tarred(GOOD_FILES), tarred(GOOD_FILES, "w:gz")]
    return [*sound, *map(as_archive, packed), *_hostile()]


def _hostile() -> list[bytes]:
    forms = {
        "weights": lambda raw: as_pair(config_bytes(), raw),
        "config": lambda raw: as_pair(raw, GOOD_WEIGHTS),
        "archive": as_archive,
    }
    made = [forms[form](attack.make()) for form, attack in corpus() if attack not in COSTLY]
    return [upload for upload in made if len(upload) <= MOST_SEED_BYTES]


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """A third of the inputs are edited as JSON, which bytes at random would only break."""
    choose = random.Random(seed).randrange
    if choose(3) or not data.startswith(b"P"):
        return atheris.Mutate(data, max_size)
    config, _, weights = data[1:].partition(b"\0")
    try:
        return as_pair(config, edited_weights(weights, choose))[:max_size]
    except (ValueError, AttributeError, TypeError, RecursionError, MemoryError):
        kind = KINDS[choose(len(KINDS))]
        return as_pair(*edited_pair(kind, choose))[:max_size]


def main() -> None:
    folders = [WORK / name for name in ("corpus", "findings")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (folders[0] / f"seed-{number:03d}").write_bytes(seed)
    if MEMORY.is_dir():
        tempfile.tempdir = str(MEMORY)
    arguments = [*sys.argv, *LIMITS, f"-artifact_prefix={folders[1]}/", str(folders[0])]
    atheris.Setup(arguments, passes, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
