"""A model's tokenizer, to count with: its `tokenizer.json`, without transformers or torch."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from app.domain.salora_errors import TokenizerRefused

FILE = "tokenizer.json"


class TokenCounter:
    """Counts tokens of plain texts: no template, no special tokens, nothing cut off or filled."""

    def __init__(self, folder: Path, *, field: str, model: str) -> None:
        """`folder` is the model's. Raises TokenizerRefused naming `field`."""
        path = folder / FILE
        if not path.is_file():
            raise TokenizerRefused(field=field, model=model, reason=f"it has no {FILE}")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception:  # noqa: BLE001 - because tokenizers raises nothing more special
            reason = f"its {FILE} cannot be read"
            raise TokenizerRefused(field=field, model=model, reason=reason) from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def count(self, texts: Sequence[str]) -> int:
        """Of all of them together."""
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return sum(map(len, encoded))
