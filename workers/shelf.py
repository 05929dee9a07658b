"""One pair's place in the alignment cache, and what a job does there: find, take a turn, keep."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field

from app.alignment.difference import Difference
from app.domain.alignment import PairUsage
from app.observe.watch import watching
from app.storage.alignment_cache import CachedPair, Inventory
from app.storage.alignment_entry import Entry
from workers.checkpoints import as_bytes
from workers.kept import ToKeep
from workers.sources import Source, content_digest, content_name, source_name, source_of

logger = logging.getLogger(__name__)

Turn = Callable[[str], AbstractContextManager[None]]
"""Waits until the caller alone has the named thing to do, among all processes and hosts."""


def no_turns(name: str) -> AbstractContextManager[None]:
    """For a process that nobody else works beside."""
    return nullcontext()


@dataclass
class Shelf:
    """Not being able to read or write the cache never fails a job: it computes instead."""

    pair: CachedPair
    turns: Turn = no_turns
    hits: int = 0
    misses: int = 0
    _had_entries: bool = False
    _beside: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "alignment-cache")
    )

    def __post_init__(self) -> None:
        self._had_entries = self.pair.has_entries()

    def find(self, v: Difference, *forms: str) -> Entry | None:
        """The entry of the first of these forms that there is one of for these very weights."""
        try:
            source = source_of(v)
            found = self._by_place(source, forms)
            # The files may be copies of, or the same as, those that an entry was made from.
            return self._by_content(v, source, forms) if not found and self._had_entries else found
        except OSError as error:
            logger.warning("the alignment cache cannot be read: %s", error)
            return None

    def _by_place(self, source: Source, forms: tuple[str, ...]) -> Entry | None:
        if not source.settled:
            return None
        names = (source_name(source, form, self.pair.cache) for form in forms)
        return next(filter(None, map(self.pair.find, names)), None)

    def _by_content(self, v: Difference, source: Source, forms: tuple[str, ...]) -> Entry | None:
        cache = self.pair.cache
        content = content_digest(v, cache)
        for form in forms:
            link = source_name(source, form, cache) if source.settled else None
            if entry := self.pair.find_content(content_name(content, form, cache), link):
                return entry
        return None

    def note_hit(self, entry: Entry) -> None:
        self.hits += 1
        entry.touch()
        watching().looked_up("hit")
        watching().kept("read", sum(tensor.size_bytes for tensor in entry.tensors.values()))

    def note_miss(self) -> None:
        self.misses += 1
        watching().looked_up("miss")

    def drop(self, entry: Entry) -> None:
        logger.warning("a damaged entry of the alignment cache is computed again: %s", entry.path)
        self.pair.drop(entry)

    def turn(self, v: Difference, form: str) -> AbstractContextManager[None]:
        cache = self.pair.cache
        return self.turns(f"{cache.id}-{source_name(source_of(v), form, cache)}")

    def keep(self, v: Difference, form: str, given: ToKeep) -> bool:
        """Put what was computed into the cache; whether it is there now. The bytes are written and
        their source is hashed side by side: both wait for memory more than for a core."""
        try:
            content = self._beside.submit(content_digest, v, self.pair.cache)
            new = self.pair.create(given.described())
            if new is None:
                return False
            with closing(new):
                for name, (tensor, _) in given.tensors.items():
                    new.write(name, as_bytes(tensor))
                source = source_of(v)
                link = source_name(source, form, self.pair.cache) if source.settled else None
                name = content_name(content.result(), form, self.pair.cache)
                self.pair.publish(new, name, link, given.metadata)
                watching().kept("written", new.size_bytes)
        except OSError as error:
            logger.warning("the alignment cache cannot be written: %s", error)
            return False
        return True

    def usage(self) -> list[PairUsage]:
        """What the cache holds of every pair, because room for one may have cost another; hits and
        misses are this job's. Raises OSError."""
        return [self._usage(found) for found in self.pair.cache.inventory()]

    def _usage(self, found: Inventory) -> PairUsage:
        own, pair = self.pair.pair, found.pair
        is_own = (pair.base_digest, pair.chat_digest) == (own.base_digest, own.chat_digest)
        named = own if is_own else pair  # whatever names it was kept under first
        return PairUsage(
            cache_id=self.pair.cache.id,
            base_digest=pair.base_digest,
            chat_digest=pair.chat_digest,
            base_model=named.base_model,
            chat_model=named.chat_model,
            modules=found.entries,
            size_bytes=found.size_bytes,
            hits=self.hits if is_own else 0,
            misses=self.misses if is_own else 0,
        )

    def close(self) -> None:
        self._beside.shutdown()
