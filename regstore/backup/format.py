"""The format of a backup, version 1. What stands here is all that is needed to read one without regstore.

    BACKUP/
      regstore-backup.json                     {"format": "regstore-backup", "version": 1, "created": "2026-…Z"}
      blobs/<alg>/<first 2 hex>/<hex>          a blob's own bytes; the name is their digest
      packs/<first 2 hex>/<64 hex>.jsonl.gz    one repository; `zcat FILE | sha256sum` gives the name
      snapshots/<run>-<64 hex>.json            one snapshot; `sha256sum FILE` gives the 64 hex of the name
      intents/<run>/<number>.json              a `create` or `restore` that is, or was, under way
      regstore/locks/                          the lock of `prune`

`<run>` is `20261123T224806Z-1a2b3c4d`: when the snapshot was begun, in UTC by the backup's clock, and eight hex digits
that make it unique and put those of one second in order; it is the snapshot's ID. Nothing but the lock is ever
rewritten with other content. Keys that end in `/` (folders that a console has made) and files named `.regstore-…` (left
by a killed run on a disk) are no part of a backup. Nothing is named `docker/registry/v2`, so no registry's
garbage-collect finds anything here.

**A snapshot** is a JSON object:

    {"format": "regstore-backup", "version": 1, "run": RUN, "begun": TIME, "source": URL, "place": TEXT,
     "after": [RUN…],
     "options": {"repositories": [PATTERN…], "tags": [PATTERN…]},
     "repositories": {NAME: {"pack": 64 HEX, "tags": N, "manifests": N, "layers": N, "blobs": N, "bytes": N}},
     "blobs": N, "bytes": N, "new_blobs": N, "new_bytes": N,
     "left_out": [{"repository": NAME, "tag": TAG or "", "what": TEXT, "reason": TEXT}…]}

TIME is in microseconds since 1970, UTC. `place` tells the registry's store from every other one, where `source` may be
written the same (`regstore.storage.identity`); older versions did not write it. `after`, which may be absent: the
snapshots that were listed when this one was begun although they are dated more than ten minutes later. `blobs` and
`bytes` count each blob once; `new_…` is what this run copied.

**A pack** is gzip of JSON objects, one a line, in this order; digests are text, `sha256:<hex>`:

    {"kind": "repository", "name": NAME, "version": 1}
    {"kind": "blob", "digest": D, "size": BYTES}                     every blob that the repository needs
    {"kind": "layer", "digest": D, "target": D2}                     a layer link, and what its body says
    {"kind": "manifest", "digest": D, "type": MEDIA TYPE, "linked": BOOL, "needs": [D…], "subject": D or null}
    {"kind": "signature", "manifest": D, "digest": D2}               a schema1 signature link (v2.0 to 2.4)
    {"kind": "history", "tag": TAG, "digest": D}                     a tag's index link
    {"kind": "tag", "tag": TAG, "digest": D, "time": TIME}           time: when the tag was set

`linked` says that the repository has a revision link of it, or serves it by its layer link alone, as v2.1.0 linked
manifests (older versions of regstore did not say so of these). `needs` are config, layers and child manifests, by the
digest that the manifest names; where a layer line has that digest, the blob is its `target` (a layer that was pushed
by its sha512 is stored by its sha256). What the registry did not have and need not have, foreign layers and absent
entries of a sparse index, is not in `needs`. Children come before what names them. Equal contents give equal bytes:
lines of a kind stand in the order of their tags and digests, manifests first in that of their height above those
without children (older versions wrote them in another order).

To restore by hand: put each blob to `docker/registry/v2/blobs/<alg>/<first 2 hex>/<hex>/data`, then write the links
of LAYOUT (`regstore.layout`), layers first, then manifests that are `linked`, signatures, history and tags. A link
holds one digest as text, without a newline: a layer's its `target`, any other the `digest` of its line.

**An intent** is a JSON object, {"run": RUN, "command": "create" or "restore", "lease": SECONDS, "host": TEXT,
"pid": N}; its files are numbered from 000001, and a new one is written four times a lease. Until twice the lease has
passed since the newest was written, by the backup's clock, it counts. A lease is more than 0 and counts as 86400 s at
most; one that can't be read, or is nonsense, counts as 1800 s. The intent of a listed snapshot counts no more.

**Order.** `create` writes an intent, then blobs, then packs, lists both again, also where it wrote none, and writes
the snapshot last: whatever is listed below `snapshots/` is complete, at any instant. `prune` deletes in reverse.
Two rules keep them apart: `create` withdraws where it sees a lock after it has written its intent, and `prune`
collects nothing where it sees an intent that counts after it has taken the lock. Of two that start together at least
one sees the other. `create` publishes only within 0.9 leases of its newest intent file, and only while that is listed.
`prune` removes the intents that have expired before it lists the snapshots: whose intent that was has published by
then, and is seen, or does not publish any more.
`restore` writes an intent too, where it may and no prune is under way. In any case it looks whether the snapshot is
still listed when something of it is missing.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from regstore.digest import Digest
from regstore.errors import IntegrityError, InvalidDigest
from regstore.state import is_run, started_at

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

FORMAT: Final = "regstore-backup"
VERSION: Final = 1
MARKER: Final = "regstore-backup.json"
BLOBS: Final = "blobs/"
PACKS: Final = "packs/"
SNAPSHOTS: Final = "snapshots/"
INTENTS: Final = "intents/"

#: The size of zlib's window, for gzip: written without a time.
GZIP: Final = zlib.MAX_WBITS | 16
_BLOB: Final = re.compile(r"blobs/(sha256|sha384|sha512)/([0-9a-f]{2})/([0-9a-f]{64,128})")
_PACK: Final = re.compile(r"packs/([0-9a-f]{2})/([0-9a-f]{64})\.jsonl\.gz")
_SNAPSHOT: Final = re.compile(r"snapshots/([0-9TZ]{16}-[0-9a-f]{8})-([0-9a-f]{64})\.json")
_INTENT: Final = re.compile(r"intents/([0-9TZ]{16}-[0-9a-f]{8})/[0-9]+\.json")


def blob_key(digest: Digest) -> str:
    return f"{BLOBS}{digest.algorithm}/{digest.encoded[:2]}/{digest.encoded}"


def pack_key(encoded: str) -> str:
    """Of a pack, by the 64 hex characters of its content's sha256."""
    return f"{PACKS}{encoded[:2]}/{encoded}.jsonl.gz"


def snapshot_key(run: str, body: bytes) -> str:
    return f"{SNAPSHOTS}{run}-{Digest.of(body).encoded}.json"


def intent_key(run: str, number: int) -> str:
    return f"{INTENTS}{run}/{number:06d}.json"


def parse_blob_key(key: str) -> Digest | None:
    match = _BLOB.fullmatch(key)
    if match is None or match[2] != match[3][:2]:
        return None
    try:
        return Digest(match[1], match[3])
    except InvalidDigest:
        return None


def parse_pack_key(key: str) -> str | None:
    """The 64 hex characters, or None where the key is no pack's."""
    match = _PACK.fullmatch(key)
    return match[2] if match and match[1] == match[2][:2] else None


def parse_snapshot_key(key: str) -> str | None:
    """The run, or None where the key is no snapshot's."""
    match = _SNAPSHOT.fullmatch(key)
    return match[1] if match and is_run(match[1]) else None


def parse_intent_key(key: str) -> str | None:
    """The run, or None where the key is no intent's."""
    match = _INTENT.fullmatch(key)
    return match[1] if match and is_run(match[1]) else None


def marker_body(now: int) -> bytes:
    moment = datetime.fromtimestamp(now // 1_000_000, UTC)
    document = {"format": FORMAT, "version": VERSION, "created": f"{moment:%Y-%m-%dT%H:%M:%SZ}"}
    return json.dumps(document).encode() + b"\n"


# -- packs


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedManifest:
    """linked: it gets a revision link. needs, subject: as in the module's text."""

    media_type: str
    linked: bool
    needs: tuple[Digest, ...] = ()
    subject: Digest | None = None


@dataclass(frozen=True, slots=True)
class PackedTag:
    """time: when it was set, in microseconds."""

    digest: Digest
    time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """One repository. blobs: their sizes in bytes; layers: each link's digest and the digest in its body.
    manifests: children before what names them."""

    name: str
    blobs: Mapping[Digest, int] = field(default_factory=dict)
    layers: Mapping[Digest, Digest] = field(default_factory=dict)
    manifests: Mapping[Digest, PackedManifest] = field(default_factory=dict)
    signatures: frozenset[tuple[Digest, Digest]] = frozenset()
    history: frozenset[tuple[str, Digest]] = frozenset()
    tags: Mapping[str, PackedTag] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(self.blobs.values())

    def blob_of(self, digest: Digest) -> Digest:
        """The blob that holds what a manifest names by this digest."""
        return digest if digest in self.blobs else self.layers.get(digest, digest)

    def reached(self, roots: Iterable[Digest]) -> set[Digest]:
        """Every blob that these manifests reach, their own included."""
        seen: set[Digest] = set()
        stack = list(roots)
        while stack:
            digest = stack.pop()
            if digest in seen:
                continue
            seen.add(digest)
            manifest = self.manifests.get(digest)
            if manifest is not None:
                stack += manifest.needs
        return {self.blob_of(digest) for digest in seen}

    def tags_touched(self, blobs: set[Digest]) -> list[str]:
        """The tags that reach any of these blobs."""
        bad: set[Digest] = set()
        for digest, manifest in self.manifests.items():  # children first
            needs = {self.blob_of(need) for need in manifest.needs} | set(manifest.needs)
            if self.blob_of(digest) in blobs or needs & blobs or needs & bad:
                bad.add(digest)
        return sorted(tag for tag, packed in self.tags.items() if packed.digest in bad)


def decode_pack(data: bytes, encoded: str, where: str) -> Pack:
    """From the stored bytes; `encoded` is the hex in its name. IntegrityError where the content is not that. The text
    is never held whole."""
    content = hashlib.sha256()
    lines = _hashed_lines(data, content)
    pack: Pack | Exception
    try:
        try:
            pack = _parse_pack(map(json.loads, lines))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            pack = error
            for _ in lines:  # what was damaged is told as that
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise IntegrityError(f"{where} is damaged: {error}") from error
    if content.hexdigest() != encoded:
        raise IntegrityError(f"{where} is damaged: its content has another digest")
    if isinstance(pack, Exception):
        raise IntegrityError(f"{where} is no pack of version {VERSION}: {pack!r}") from pack
    return pack


def _hashed_lines(data: bytes, content: Hash) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=BytesIO(data)) as file:
        for line in file:
            content.update(line)
            yield line


def _parse_pack(lines: Iterator[dict[str, Any]]) -> Pack:
    head = next(lines, {})
    if head.get("kind") != "repository" or head.get("version") != VERSION:
        raise ValueError(head)
    known: dict[str, Digest] = {}

    def parse(text: str) -> Digest:
        """Each digest once: it stands in a line of its own, in those of links, and in each that needs it."""
        found = known.get(text)
        if found is None:
            found = known[text] = Digest.parse(text)
        return found

    blobs: dict[Digest, int] = {}
    layers: dict[Digest, Digest] = {}
    manifests: dict[Digest, PackedManifest] = {}
    signatures: set[tuple[Digest, Digest]] = set()
    history: set[tuple[str, Digest]] = set()
    tags: dict[str, PackedTag] = {}
    for line in lines:
        digest = parse(line["digest"])
        match line["kind"]:
            case "blob":
                blobs[digest] = line["size"]
            case "layer":
                layers[digest] = parse(line["target"])
            case "manifest":
                manifests[digest] = PackedManifest(
                    media_type=line["type"],
                    linked=line["linked"],
                    needs=tuple(map(parse, line["needs"])),
                    subject=parse(line["subject"]) if line["subject"] else None,
                )
            case "signature":
                signatures.add((parse(line["manifest"]), digest))
            case "history":
                history.add((line["tag"], digest))
            case "tag":
                tags[line["tag"]] = PackedTag(digest, line["time"])
            case other:
                raise ValueError(other)
    return Pack(
        name=head["name"],
        blobs=blobs,
        layers=layers,
        manifests=manifests,
        signatures=frozenset(signatures),
        history=frozenset(history),
        tags=tags,
    )


# -- snapshots


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class LeftOut:
    """Something of the source that is not in the snapshot, and why. tag is "" where it is no tag."""

    repository: str
    tag: str
    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.repository}: {self.what} {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackSummary:
    """A repository in a snapshot: the pack's 64 hex characters, and counts. bytes: of its blobs."""

    pack: str
    tags: int
    manifests: int
    layers: int
    blobs: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A root over packs. Times in microseconds, sizes in bytes. place: "" where an older version did not say it."""

    run: str
    begun: int
    source: str
    place: str = ""
    after: tuple[str, ...] = ()
    repository_patterns: tuple[str, ...] = ()
    tag_patterns: tuple[str, ...] = ()
    repositories: Mapping[str, PackSummary] = field(default_factory=dict)
    blobs: int = 0
    bytes: int = 0
    new_blobs: int = 0
    new_bytes: int = 0
    left_out: tuple[LeftOut, ...] = ()

    @property
    def tags(self) -> int:
        return sum(summary.tags for summary in self.repositories.values())

    @property
    def scope(self) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        """Snapshots of one scope follow each other; those of another are kept apart when old ones go."""
        return self.place or f"somewhere, {self.source}", self.repository_patterns, self.tag_patterns


def encode_snapshot(snapshot: Snapshot) -> bytes:
    document = {
        "format": FORMAT,
        "version": VERSION,
        "run": snapshot.run,
        "begun": snapshot.begun,
        "source": snapshot.source,
        "place": snapshot.place,
        **({"after": snapshot.after} if snapshot.after else {}),
        "options": {"repositories": snapshot.repository_patterns, "tags": snapshot.tag_patterns},
        "repositories": {
            name: {
                "pack": known.pack,
                "tags": known.tags,
                "manifests": known.manifests,
                "layers": known.layers,
                "blobs": known.blobs,
                "bytes": known.bytes,
            }
            for name, known in sorted(snapshot.repositories.items())
        },
        "blobs": snapshot.blobs,
        "bytes": snapshot.bytes,
        "new_blobs": snapshot.new_blobs,
        "new_bytes": snapshot.new_bytes,
        "left_out": [
            {"repository": one.repository, "tag": one.tag, "what": one.what, "reason": one.reason}
            for one in snapshot.left_out
        ],
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def decode_snapshot(body: bytes, key: str) -> Snapshot:
    """IntegrityError unless the bytes have the digest in the key."""
    run = parse_snapshot_key(key)
    if run is None or key != snapshot_key(run, body):
        raise IntegrityError(f"{key} is damaged: its bytes have another digest than its name")
    try:
        document = json.loads(body)
        if document["format"] != FORMAT or document["version"] != VERSION:
            raise ValueError(document["version"])
        if document["run"] != run or type(document["begun"]) is not int:
            raise ValueError(document["run"])
        place, after = document.get("place", ""), document.get("after", [])
        if type(place) is not str or not all(type(run) is str for run in after):
            raise ValueError(place, after)
        for known in document["repositories"].values():
            if parse_pack_key(pack_key(known["pack"])) is None:
                raise ValueError(known["pack"])
        return Snapshot(
            run=document["run"],
            begun=document["begun"],
            source=document["source"],
            place=place,
            after=tuple(after),
            repository_patterns=tuple(document["options"]["repositories"]),
            tag_patterns=tuple(document["options"]["tags"]),
            repositories={name: PackSummary(**known) for name, known in document["repositories"].items()},
            blobs=document["blobs"],
            bytes=document["bytes"],
            new_blobs=document["new_blobs"],
            new_bytes=document["new_bytes"],
            left_out=tuple(LeftOut(**one) for one in document["left_out"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{key} is no snapshot of version {VERSION}: {error!r}") from error


def time_of(run: str) -> int:
    """When the snapshot was begun, to the second, in microseconds."""
    return started_at(run)
