"""A pack's text (`format` says what it is), written as the rows of its plan come, and never held."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import BinaryIO, Final

from regstore.backup.format import GZIP, VERSION, PackSummary
from regstore.backup.plan import BLOB, HISTORY, LAYER, MANIFEST, SIGNATURE, TAG, Row
from regstore.digest import text_of

#: Characters that are compressed at once.
_CHUNK: Final = 1 << 18


class PackWriter:
    """Writes to a file from where that stands; equal rows give equal bytes."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self._file = file
        self._content, self._stored = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        self._compressing = zlib.compressobj(6, wbits=GZIP)
        self._lines: list[str] = []
        self._length = 0
        self._blobs = self._bytes = self._layers = self._manifests = self._tags = 0
        #: The manifest that is being read, and what it needs.
        self._manifest: Row | None = None
        self._needs: dict[bytes, None] = {}
        self._write(f'{{"kind":"repository","name":{json.dumps(name)},"version":{VERSION}}}\n')

    @property
    def md5(self) -> str:
        """Of the bytes that were written, in hex."""
        return self._stored.hexdigest()

    def take(self, rows: Iterable[Row]) -> None:
        """All rows of the pack, in their order."""
        sections = self._sections()
        for row in rows:
            if self._manifest is not None and (row[1] != MANIFEST or row[4] == 0):
                self._end_manifest(self._manifest)
            sections[row[1]](row)
        if self._manifest is not None:
            self._end_manifest(self._manifest)

    def _sections(self) -> Mapping[int, Callable[[Row], None]]:
        return {
            BLOB: self._blob,
            LAYER: self._layer,
            MANIFEST: self._manifest_row,
            SIGNATURE: self._signature,
            HISTORY: self._history,
            TAG: self._tag,
        }

    def _blob(self, row: Row) -> None:
        self._blobs += 1
        self._bytes += row[7] or 0
        self._write(f'{{"kind":"blob","digest":"{text_of(row[3])}","size":{row[7]}}}\n')

    def _layer(self, row: Row) -> None:
        assert row[5] is not None
        self._layers += 1
        self._write(f'{{"kind":"layer","digest":"{text_of(row[3])}","target":"{text_of(row[5])}"}}\n')

    def _manifest_row(self, row: Row) -> None:
        if row[4] == 0:
            self._manifest = row
        else:
            assert row[5] is not None
            assert self._manifest is not None and self._manifest[3] == row[3]
            self._needs[row[5]] = None

    def _end_manifest(self, row: Row) -> None:
        needs = ",".join(f'"{text_of(need)}"' for need in self._needs)
        subject = "null" if row[5] is None else f'"{text_of(row[5])}"'
        linked = "true" if row[8] else "false"
        self._manifests += bool(row[8])
        self._manifest = None
        self._needs.clear()
        self._write(
            f'{{"kind":"manifest","digest":"{text_of(row[3])}","type":{json.dumps(row[6])},'
            f'"linked":{linked},"needs":[{needs}],"subject":{subject}}}\n'
        )

    def _signature(self, row: Row) -> None:
        assert row[5] is not None
        self._write(f'{{"kind":"signature","manifest":"{text_of(row[3])}","digest":"{text_of(row[5])}"}}\n')

    def _history(self, row: Row) -> None:
        self._write(f'{{"kind":"history","tag":{json.dumps(row[2])},"digest":"{text_of(row[3])}"}}\n')

    def _tag(self, row: Row) -> None:
        self._tags += 1
        self._write(f'{{"kind":"tag","tag":{json.dumps(row[2])},"digest":"{text_of(row[3])}","time":{row[7]}}}\n')

    def _write(self, line: str) -> None:
        self._lines.append(line)
        self._length += len(line)
        if self._length >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        text = "".join(self._lines).encode()
        self._lines.clear()
        self._length = 0
        self._content.update(text)
        self._store(self._compressing.compress(text))

    def _store(self, data: bytes) -> None:
        self._stored.update(data)
        self._file.write(data)

    def end(self) -> PackSummary:
        self._flush()
        self._store(self._compressing.flush())
        return PackSummary(
            pack=self._content.hexdigest(),
            tags=self._tags,
            manifests=self._manifests,
            layers=self._layers,
            blobs=self._blobs,
            bytes=self._bytes,
        )
