"""Parts that were made for one model are used with no other."""

from collections.abc import Mapping

from app.domain.salora_errors import KitOfAnotherModel
from workers.run import NamedCheckpoint


def check_digest(what: str, made_of: Mapping[str, object], chat: NamedCheckpoint) -> None:
    """Raises KitOfAnotherModel."""
    if made_of["chat_digest"] != chat.checkpoint.digest:
        raise KitOfAnotherModel(
            what=what,
            made_for="a model",
            expected=made_of["chat_digest"],
            model=chat.id,
            found=chat.checkpoint.digest,
        )
