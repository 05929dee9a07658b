"""How large anything that strangers send may be, each number with its reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from app.domain.adapter import CONFIG_FILE, README_FILE, REPORT_FILE, WEIGHTS_FILE

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclass(frozen=True)
class Limits:
    """Caps on one adapter (or checkpoint). Sizes are in bytes, the others are counts."""

    # because real names take 130 to 150 bytes a tensor, so that 4 MiB hold about 28,000 (a dense
    # 70B model needs 1,120), while safetensors' own 100 MB let 84 MB of empty tensors cost 7.7 s
    # and 1 GB of memory (measured with safetensors 0.8)
    header_bytes: int = 4 * MIB
    tensors: int = 50_000  # because short names must not bring in more work than long ones
    # because PEFT's own file has about 1 KiB, and 10,000 rank patterns fit into 1 MiB
    config_bytes: int = MIB
    readme_bytes: int = MIB  # because a model card is text; the Hub's templates have about 5 KiB
    report_bytes: int = 32 * MIB  # because 50,000 modules have about 500 bytes each
    # because rank 256 on every linear module of an 8B model is 2.7 GB in 32 bits
    weights_bytes: int = 4 * GIB
    # because three files are allowed, and archivers add a few entries such as "./"
    archive_entries: int = 16
    # because 200 separates real adapters from bombs: an untrained one is half zeros (B), at most
    # 97 % on a vocabulary head, so it packs 40:1 at best; deflate packs a bomb 1032:1
    archive_ratio: int = 200
    # because below this an honest tiny file may pack at any ratio, and the harm is small; the main
    # protection is the cap on each file's real bytes, not the ratio
    archive_ratio_floor_bytes: int = 16 * MIB
    rank: int = 4096  # because no useful LoRA is wider than the hidden size of a 7B model
    # because alpha is at most a few thousand in practice, and extremes overflow what follows
    alpha: float = 1e6
    name_chars: int = 512  # because the longest real module paths have about 120
    # because the deepest real ones have about 15, and to look inside which module a tensor lies
    # costs the square of it: 7,000 tensors of 240 parts took 31 s
    name_parts: int = 32
    # because PEFT's deepest field has 3 levels and recursion is how parsers are killed
    json_depth: int = 32
    patterns: int = 10_000  # because EVA writes one rank pattern per module, and nobody more
    dims: int = 8  # because LoRA has 2 and no common checkpoint has more than 5
    zero_size_tensors: bool = False  # because PEFT writes none, and `[0, 10**15]` has no bytes
    strict_names: bool = True  # because PEFT's names are module paths; see `names.MODULE_PATH`
    file_bytes: Mapping[str, int] = field(init=False)  # the cap of each allowed file, by its name

    def __post_init__(self) -> None:
        caps = {
            CONFIG_FILE: self.config_bytes,
            WEIGHTS_FILE: self.weights_bytes,
            README_FILE: self.readme_bytes,
            REPORT_FILE: self.report_bytes,
        }
        object.__setattr__(self, "file_bytes", caps)


UPLOAD_LIMITS = Limits()
"""For what strangers upload."""

CHECKPOINT_LIMITS = replace(
    UPLOAD_LIMITS,
    header_bytes=100_000_000,  # because that is the safetensors format's own limit
    tensors=2_000_000,  # because that header cannot hold more; mixtures store expert by expert
    zero_size_tensors=True,
    strict_names=False,
)
"""For the models' own files, which the operator put there."""
