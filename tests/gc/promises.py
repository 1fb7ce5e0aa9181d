"""What writers of a registry were told: the truth that a store is held to afterwards."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.servers.images import Document


@dataclass
class _Readers:
    """One lock, held by many who push or by one who deletes."""

    condition: threading.Condition = field(default_factory=threading.Condition)
    shared: int = 0
    exclusive: bool = False


class Promises:
    """By tag, the last answer that a registry gave. A tag belongs to one writer; only a DELETE of the manifest it
    names takes it away from others, so a push and a DELETE of one digest in one repository exclude each other:
    otherwise the registry itself says nothing about what is left."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: defaultdict[tuple[str, str], _Readers] = defaultdict(_Readers)
        self.tags: dict[tuple[str, str], Document] = {}
        #: Tags that a policy drops: what each was last told to name, and when that push began (seconds since 1970).
        self.passing: dict[tuple[str, str], tuple[Document, float]] = {}
        self.deleted: set[tuple[str, str]] = set()
        #: An answer was lost, so either state may stand.
        self.uncertain: set[tuple[str, str]] = set()

    @contextlib.contextmanager
    def pushing(self, repository: str, *digests: str) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for digest in sorted(set(digests)):
                stack.enter_context(self._shared(self._lock(repository, digest)))
            yield

    @contextlib.contextmanager
    def deleting(self, repository: str, digest: str) -> Iterator[None]:
        lock = self._lock(repository, digest)
        with lock.condition:
            lock.condition.wait_for(lambda: not lock.shared and not lock.exclusive)
            lock.exclusive = True
        try:
            yield
        finally:
            with lock.condition:
                lock.exclusive = False
                lock.condition.notify_all()

    @contextlib.contextmanager
    def _shared(self, lock: _Readers) -> Iterator[None]:
        with lock.condition:
            lock.condition.wait_for(lambda: not lock.exclusive)
            lock.shared += 1
        try:
            yield
        finally:
            with lock.condition:
                lock.shared -= 1
                lock.condition.notify_all()

    def _lock(self, repository: str, digest: str) -> _Readers:
        with self._guard:
            return self._locks[repository, digest]

    def current(self, repository: str, tag: str) -> Document | None:
        with self._guard:
            document, _ = self.passing.get((repository, tag), (None, 0))
            return self.tags.get((repository, tag)) or document

    def stands(self, repository: str, tag: str, document: Document) -> None:
        with self._guard:
            self.tags[repository, tag] = document
            self.deleted.discard((repository, tag))
            self.uncertain.discard((repository, tag))
            self._drop_followers(repository)

    def passes(self, repository: str, tag: str, document: Document, began: float) -> None:
        with self._guard:
            self.passing[repository, tag] = document, began
            self.uncertain.discard((repository, tag))

    def unknown(self, repository: str, tag: str) -> None:
        with self._guard:
            self.uncertain.add((repository, tag))

    def gone(self, repository: str, digest: str) -> None:
        """The manifest was deleted, and with it every tag that named it."""
        with self._guard:
            for place in [
                place
                for place, document in self.tags.items()
                if place[0] == repository and document.digest == digest
            ]:
                del self.tags[place]
                self.deleted.add(place)
            for place, (document, _) in list(self.passing.items()):
                if place[0] == repository and document.digest == digest:
                    del self.passing[place]
            self._drop_followers(repository)

    def perhaps_gone(self, repository: str, digest: str) -> None:
        """Its deletion was cut short: on a disk the registry takes the revision, then reads every tag, and gives up at
        one that another client is just writing (`test_deletes_cut_short`). So these tags may name what is gone."""
        signature = digest.replace(":", "-") + "."
        with self._guard:
            named = {place for place, document in self.tags.items() if document.digest == digest}
            named |= {place for place, (document, _) in self.passing.items() if document.digest == digest}
            named |= {place for place in self.tags if place[1].startswith(signature)}
            self.uncertain |= {place for place in named if place[0] == repository}

    def _drop_followers(self, repository: str) -> None:
        """A signature goes once no tag names what it signs; a later tag of that does not bring it back."""
        tags = {place: document for place, document in self.tags.items() if place[0] == repository}
        named = {document.digest for document in tags.values()}
        for place in tags:
            if place[1].startswith("sha256-") and place[1].partition(".")[0].replace("-", ":", 1) not in named:
                del self.tags[place]

    def tagged(self, repository: str) -> set[str]:
        """Digests that a tag of the repository surely names."""
        with self._guard:
            return {
                document.digest
                for place, document in self.tags.items()
                if place[0] == repository and place not in self.uncertain
            }
