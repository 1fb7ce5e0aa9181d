"""The key codec: every key of Distribution's `docker/registry/v2` layout, encoded and decoded.

    docker/registry/v2/
      blobs/<alg>/<first 2 hex>/<hex>/data                                      BlobKey
      blobs/_regstore/seed  repositories/_regstore/seed                         SeedKey
      repositories/<name>/
        _layers/<alg>/<hex>/link                                                LayerLinkKey
        _manifests/revisions/<alg>/<hex>/link                                   RevisionLinkKey
        _manifests/revisions/<alg>/<hex>/signatures/<alg>/<hex>/link            SignatureLinkKey (v2.0 to 2.4)
        _manifests/tags/<tag>/current/link                                      TagCurrentKey
        _manifests/tags/<tag>/index/<alg>/<hex>/link                            TagIndexKey
        _uploads/<uuid>/<part>                                                  UploadKey
    anywhere in it: <folder>/                                                   MarkerKey (an S3 directory marker)
    anywhere in it: @eaDir/…, ._<file>, Thumbs.db and their like                LitterKey

Keys are relative to the registry's root directory. Whatever does not decode is an UnknownKey: a value, not an
error; nothing ever deletes it. `decode(encode(k)) == k` for every kind; `encode(decode(key)) == key` for every text.

Markers and litter refer to nothing. Only what no registry can write is taken for litter: a repository's component
begins with a letter or a digit, a tag with one or `_` (distribution's reference grammar), and a key ends in `link` or
in a part of a blob or an upload. So a *folder* is litter only by a name that neither can have, while `Thumbs.db`, which
a tag may be named, is litter only as a file. `lost+found` is none: fsck may have put links there that somebody needs.

A repository name here is any path of printable ASCII components that do not begin with `_`: stores hold folders
that no registry would accept as a name, and what they link must still count. `reference.is_name` tells them apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from regstore.digest import HEX_LENGTH, Digest
from regstore.errors import InvalidDigest

PREFIX: Final = "docker/registry/v2/"
BLOBS: Final = PREFIX + "blobs/"
REPOSITORIES: Final = PREFIX + "repositories/"
#: What GitLab's registry says of its metadata (`inventory.whose`).
REGISTRY: Final = "docker/registry/"
LOCKFILES: Final = REGISTRY + "lockfiles/"
DATABASE_IN_USE: Final = LOCKFILES + "database-in-use"
FILESYSTEM_IN_USE: Final = LOCKFILES + "filesystem-in-use"
#: Present beside `docker/` when the store belongs to a pull-through cache.
SCHEDULER_STATE: Final = "scheduler-state.json"
#: Everything of our own lies beside `docker/`, where no registry looks: `regstore.state` draws the map. No key of ours
#: begins otherwise.
STATE: Final = "regstore/"
LOCKS: Final = STATE + "locks/"
RUNS: Final = STATE + "runs/"
TRASH: Final = STATE + "trash/"
TAG_RECORDS: Final = STATE + "migrate/tags/"
UPLOAD_RECORDS: Final = STATE + "migrate/uploads/"
COUNTS: Final = STATE + "counts.json"
REGISTRY_STATE: Final = STATE + "registry.json"
STORE_ID: Final = STATE + "id"
#: And a random word: written, looked at, and removed at once, to learn what the store can, allows, or has for a clock.
PROBE: Final = STATE + "probe-"

#: Bytes of a link's body for each algorithm: `<alg>:<hex>`, no newline.
LINK_SIZE: Final = {name: len(name) + 1 + length for name, length in HEX_LENGTH.items()}

# These fragments are also used in the SQL decoder (RE2): keep to what Python's re and RE2 share.
COMPONENT_RE: Final = r"[ -.0-^`-~][ -.0-~]*"
NAME_RE: Final = rf"{COMPONENT_RE}(?:/{COMPONENT_RE})*"
TAG_RE: Final = r"[ -.0-~]+"
DIGEST_PATH_RE: Final = r"(?:sha256/[0-9a-f]{64}|sha384/[0-9a-f]{96}|sha512/[0-9a-f]{128})"
UUID_RE: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
PART_RE: Final = r"[ -.0-~]+(?:/[ -.0-~]+)*"

#: Snapshots, recycle bins, and files that NFS and FUSE keep only as long as somebody has them open: views of what was,
#: or about to go, and nobody else's to delete. Synology, QNAP, NetApp, ZFS, Windows, macOS, the freedesktop trash.
_KEPT_FOLDER_RE: Final = (
    r"(?:#recycle|#snapshot|@Recycle|@Recently-Snapshot|\.snapshot|~snapshot|\.zfs"
    r"|\$RECYCLE\.BIN|\.Trashes|\.Trash-[0-9]+|Network Trash Folder)"
)
_KEPT_FILE_RE: Final = r"(?:\.nfs[0-9a-f]{8,}|\.fuse_hidden[0-9a-f]{8,})"
#: What systems put beside files: Synology, QNAP, netatalk, macOS (github/gitignore's macOS, Windows, Linux), Windows,
#: MS Office and LibreOffice, KDE, Samba; and Hadoop's directory markers.
LITTER_FOLDER_RE: Final = (
    rf"(?:{_KEPT_FOLDER_RE}|@eaDir|\.@__thumb|\.@upload_cache|\.AppleDouble|\.AppleDB|\.AppleDesktop"
    r"|\.DocumentRevisions-V100|\.fseventsd|\.Spotlight-V100|\.TemporaryItems|Temporary Items"
    r"|System Volume Information)"
)
LITTER_FILE_RE: Final = (
    rf"(?:{_KEPT_FILE_RE}|\._[^/]*|\.DS_Store|\.apdisk|\.localized|\.LSOverride|\.VolumeIcon\.icns"
    r"|Thumbs\.db(?::encryptable)?|ehthumbs(?:_vista)?\.db|[Dd]esktop\.ini|~\$[^/]*|\.~lock\.[^/]*#|\.directory"
    r"|\.smbdelete[^/]*|[^/]*_\$folder\$)"
)
#: Litter that is left where it is.
KEPT_LITTER_RE: Final = rf"/{_KEPT_FOLDER_RE}/|/{_KEPT_FILE_RE}$"


@dataclass(frozen=True, slots=True)
class BlobKey:
    digest: Digest


@dataclass(frozen=True, slots=True)
class SeedKey:
    """One of the two objects that make an empty store a healthy registry for every version."""

    area: str  # "blobs" or "repositories"


@dataclass(frozen=True, slots=True)
class LayerLinkKey:
    name: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class RevisionLinkKey:
    name: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class SignatureLinkKey:
    name: str
    revision: Digest
    digest: Digest


@dataclass(frozen=True, slots=True)
class TagCurrentKey:
    name: str
    tag: str


@dataclass(frozen=True, slots=True)
class TagIndexKey:
    name: str
    tag: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class UploadKey:
    """One object of an upload: `data`, `startedat`, `hashstates/<alg>/<offset>`, or what a driver left there."""

    name: str
    uuid: str
    part: str


@dataclass(frozen=True, slots=True)
class MarkerKey:
    """What S3 consoles and tools that play file system put in the place of a folder: a key that ends in `/`.

    It has zero bytes. One with content is no marker: the inventory counts it as unknown.
    """

    folder: str


@dataclass(frozen=True, slots=True)
class LitterKey:
    """A file of a NAS or of a desktop system, which no registry wrote or reads."""

    key: str

    @property
    def kept(self) -> bool:
        """Not to be deleted, wherever it stands."""
        return _KEPT_LITTER.search(self.key) is not None


@dataclass(frozen=True, slots=True)
class UnknownKey:
    key: str


Key = (
    BlobKey
    | SeedKey
    | LayerLinkKey
    | RevisionLinkKey
    | SignatureLinkKey
    | TagCurrentKey
    | TagIndexKey
    | UploadKey
    | MarkerKey
    | LitterKey
    | UnknownKey
)
#: Kinds of keys that belong to no repository, or to nobody.
NOBODYS = BlobKey | SeedKey | MarkerKey | LitterKey | UnknownKey

SEEDS: Final = (SeedKey("blobs"), SeedKey("repositories"))


def encode(key: Key) -> str:
    match key:
        case BlobKey(digest):
            return blob_key(digest)
        case LayerLinkKey(name, digest):
            return f"{REPOSITORIES}{name}/_layers/{_path(digest)}/link"
        case RevisionLinkKey(name, digest):
            return f"{REPOSITORIES}{name}/_manifests/revisions/{_path(digest)}/link"
        case SignatureLinkKey(name, revision, digest):
            return f"{REPOSITORIES}{name}/_manifests/revisions/{_path(revision)}/signatures/{_path(digest)}/link"
        case TagCurrentKey(name, tag):
            return f"{REPOSITORIES}{name}/_manifests/tags/{tag}/current/link"
        case TagIndexKey(name, tag, digest):
            return f"{REPOSITORIES}{name}/_manifests/tags/{tag}/index/{_path(digest)}/link"
        case UploadKey(name, uuid, part):
            return f"{REPOSITORIES}{name}/_uploads/{uuid}/{part}"
        case SeedKey(area):
            return f"{PREFIX}{area}/_regstore/seed"
        case MarkerKey(folder):
            return f"{folder}/"
        case LitterKey(text) | UnknownKey(text):
            return text


def blob_key(digest: Digest) -> str:
    """Where a registry has a blob."""
    return f"{BLOBS}{digest.algorithm}/{digest.encoded[:2]}/{digest.encoded}/data"


def repository_prefix(name: str) -> str:
    """Every key of the repository begins with this; so do those of repositories nested in it."""
    return f"{REPOSITORIES}{name}/"


def repository_around(key: str) -> str:
    """The repository in whose own folders a key of any kind stands, "" where it stands elsewhere."""
    match = _IN_REPOSITORY.match(key)
    return match[1] if match else ""


def tags_prefix(name: str) -> str:
    return f"{REPOSITORIES}{name}/_manifests/tags/"


def manifests_prefix(name: str) -> str:
    return f"{REPOSITORIES}{name}/_manifests/"


def revisions_prefix(name: str) -> str:
    return f"{REPOSITORIES}{name}/_manifests/revisions/"


def layers_prefix(name: str) -> str:
    return f"{REPOSITORIES}{name}/_layers/"


def uploads_prefix(name: str) -> str:
    return f"{REPOSITORIES}{name}/_uploads/"


_REPOSITORY_KEY: Final = re.compile(rf"{REPOSITORIES}({NAME_RE})/(_layers|_manifests|_uploads)/(.+)", re.DOTALL)
_LINK: Final = re.compile(rf"({DIGEST_PATH_RE})/link")
_MANIFESTS: Final = re.compile(
    rf"revisions/(?P<revision>{DIGEST_PATH_RE})/(?:link|signatures/(?P<signature>{DIGEST_PATH_RE})/link)"
    rf"|tags/(?P<tag>{TAG_RE})/(?:current/link|index/(?P<index>{DIGEST_PATH_RE})/link)"
)
_UPLOAD: Final = re.compile(rf"({UUID_RE})/({PART_RE})")
_LITTER_FOLDER: Final = re.compile(f"/{LITTER_FOLDER_RE}/")
_LITTER_FILE: Final = re.compile(LITTER_FILE_RE)
_IN_REPOSITORY: Final = re.compile(rf"{REPOSITORIES}({NAME_RE})/_(?:layers|manifests|uploads)/")
_KEPT_LITTER: Final = re.compile(KEPT_LITTER_RE)


def decode(key: str) -> Key:
    """The kind of a key (relative to the root). Never raises.

    A component `.` or `..` makes a key unknown: as a file's path it would name another place.
    """
    if "/./" in key or "/../" in key or key.endswith(("/.", "/..")) or not key.startswith(PREFIX):
        return UnknownKey(key)
    if _LITTER_FOLDER.search(key):
        return LitterKey(key)
    decoded = _decode_own(key)
    if isinstance(decoded, UnknownKey):
        if key.endswith("/"):
            return MarkerKey(key[:-1])
        if _LITTER_FILE.fullmatch(key.rpartition("/")[2]):
            return LitterKey(key)
    return decoded


def _decode_own(key: str) -> Key:
    """What a registry, or `seed`, has written."""
    if key.startswith(BLOBS):
        return _decode_blob(key)
    match = _REPOSITORY_KEY.fullmatch(key)
    if match is None:
        return SeedKey("repositories") if key == encode(SeedKey("repositories")) else UnknownKey(key)
    name, area, rest = match[1], match[2], match[3]
    if area == "_layers":
        link = _LINK.fullmatch(rest)
        return LayerLinkKey(name, _digest(link[1])) if link else UnknownKey(key)
    if area == "_uploads":
        upload = _UPLOAD.fullmatch(rest)
        return UploadKey(name, upload[1], upload[2]) if upload else UnknownKey(key)
    manifests = _MANIFESTS.fullmatch(rest)
    if manifests is None:
        return UnknownKey(key)
    if manifests["revision"]:
        revision = _digest(manifests["revision"])
        signature = manifests["signature"]
        return (
            SignatureLinkKey(name, revision, _digest(signature)) if signature else RevisionLinkKey(name, revision)
        )
    tag, index = manifests["tag"], manifests["index"]
    return TagIndexKey(name, tag, _digest(index)) if index else TagCurrentKey(name, tag)


def link_body(digest: Digest) -> bytes:
    """What a link to the digest holds: its text, with no newline."""
    return str(digest).encode()


def parse_link(body: bytes) -> Digest | None:
    """The digest that a link's body names, or None where it is not exactly one digest.

    Strict as Distribution's own reader: a newline or an empty body makes the link unreadable there.
    """
    try:
        return Digest.parse(body.decode("ascii"))
    except (InvalidDigest, UnicodeDecodeError):
        return None


def _decode_blob(key: str) -> Key:
    parts = key[len(BLOBS) :].split("/")
    if len(parts) == 4 and parts[3] == "data" and parts[1] == parts[2][:2]:
        try:
            return BlobKey(Digest(parts[0], parts[2]))
        except InvalidDigest:
            return UnknownKey(key)
    return SeedKey("blobs") if key == encode(SeedKey("blobs")) else UnknownKey(key)


def _path(digest: Digest) -> str:
    return f"{digest.algorithm}/{digest.encoded}"


def _digest(path: str) -> Digest:
    algorithm, _, encoded = path.partition("/")
    return Digest(algorithm, encoded)
