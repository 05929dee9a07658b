"""Coverage-guided fuzzing of the gate: `make fuzz`, or `python -m tests.fuzz.gate --seconds 60`.

Needs atheris (the extra `fuzz`). The first byte of an input says what the rest is: weights, a
configuration, or an archive. What is found is written to the folder that `--found` names.
"""

import argparse
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["app.intake", "app.domain"]):
    from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE
    from tests.attacks.mutants import tried, tried_archive

from tests.attacks.hostile_archives import ARCHIVES
from tests.attacks.hostile_configs import CONFIGS
from tests.attacks.hostile_kinds import KINDS
from tests.attacks.hostile_weights import WEIGHTS
from tests.intake.files import GOOD_FILES, tarred, zipped

LARGEST_SEED = 1 << 16  # bytes; a fuzzer learns nothing from a bomb
LONGEST_INPUT = 1 << 14
SLOWEST_S = 10
WEIGHTS_FORM, CONFIG_FORM, ARCHIVE_FORM = range(3)


def one_input(data: bytes) -> None:
    """Raises where the gate does neither of what it may."""
    if not data:
        return
    form, rest = data[0] % 3, data[1:]
    if form == ARCHIVE_FORM:
        tried_archive(rest)
    else:
        file = WEIGHTS_FILE if form == WEIGHTS_FORM else CONFIG_FILE
        tried({**GOOD_FILES, file: rest})


def write_seeds(folder: Path) -> int:
    """The sound files and the hostile corpus."""
    folder.mkdir(parents=True, exist_ok=True)
    sound = [
        (WEIGHTS_FORM, GOOD_FILES[WEIGHTS_FILE]),
        (CONFIG_FORM, GOOD_FILES[CONFIG_FILE]),
        *((ARCHIVE_FORM, raw) for raw in (zipped(GOOD_FILES), tarred(GOOD_FILES))),
    ]
    hostile = [
        (form, attack.make())
        for form, attacks in (
            (WEIGHTS_FORM, WEIGHTS), (CONFIG_FORM, CONFIGS), (ARCHIVE_FORM, [*ARCHIVES, *KINDS])
        )
        for attack in attacks
    ]  # fmt: skip
    small = [(form, raw) for form, raw in sound + hostile if len(raw) <= LARGEST_SEED]
    for i, (form, raw) in enumerate(small):
        (folder / f"{i:04}").write_bytes(bytes([form]) + raw)
    return len(small)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, default=Path("fuzz-corpus"))
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"))
    asked = parser.parse_args()
    write_seeds(asked.corpus / "seeds")
    (asked.corpus / "grown").mkdir(exist_ok=True)
    asked.found.mkdir(parents=True, exist_ok=True)
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={asked.seconds}",
            f"-max_len={LONGEST_INPUT}",
            f"-timeout={SLOWEST_S}",
            f"-artifact_prefix={asked.found}/",
            "-print_final_stats=1",
            str(asked.corpus / "grown"),
            str(asked.corpus / "seeds"),
        ],
        one_input,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
