"""What gc must remove, said naively: the oracle that the planner's SQL is compared with.

Rules are quoted above the lines that carry them out. Nothing here is clever, and nothing is shared with the
planner but the key codec and the manifest parser.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from regstore import reference
from regstore.digest import Digest
from regstore.errors import InvalidManifest
from regstore.layout import (
    BLOBS,
    REPOSITORIES,
    UUID_RE,
    BlobKey,
    LayerLinkKey,
    LitterKey,
    MarkerKey,
    RevisionLinkKey,
    SeedKey,
    SignatureLinkKey,
    TagCurrentKey,
    TagIndexKey,
    UnknownKey,
    UploadKey,
    decode,
    encode,
    parse_link,
    repository_around,
)
from regstore.manifest import MAX_SIZE, STRONG, EdgeKind, Manifest, parse_manifest
from tests.model.store import ModelStore

_DIGEST_IN_PATH = re.compile(r"sha256/[0-9a-f]{64}|sha384/[0-9a-f]{96}|sha512/[0-9a-f]{128}", re.ASCII)
#: "links longer than 1024 bytes are never read and never deleted"
_LINK_MAX = 1024

#: Why a repository is protected.
NAME = "name"
REVISION_LINK = "revision link"
REVISION_UNREADABLE = "revision unreadable"
MANIFEST_UNREADABLE = "manifest unreadable"
LINK_UNREAD = "link not given"
TAG_LINK = "tag link"
NEEDED = "broken revision needed"


@dataclass(frozen=True)
class Expected:
    """The dead of each kind are whole keys; `uploads` are the keys of the dead uploads' parts."""

    tag_currents: frozenset[str]
    tag_indexes: frozenset[str]
    revision_links: frozenset[str]
    signature_links: frozenset[str]
    layer_links: frozenset[str]
    uploads: frozenset[str]
    litter: frozenset[str]
    blobs: frozenset[str]
    live_blobs: frozenset[str]
    protected: dict[str, frozenset[str]]
    emptied: frozenset[str]
    sweep_blocked: bool
    reach: dict[str, frozenset[Digest]]
    #: Repositories without any tag but such as follow what they name, whose every revision goes because of that.
    untagged: frozenset[str] = frozenset()

    @property
    def dead_links(self) -> frozenset[str]:
        return self.tag_currents | self.tag_indexes | self.revision_links | self.signature_links | self.layer_links

    @property
    def dead(self) -> frozenset[str]:
        return self.dead_links | self.uploads | self.litter | self.blobs


#: In place of content that the store does not give.
UNREAD = b"not given"


@dataclass(frozen=True)
class Link:
    body: bytes
    mtime: int

    @property
    def target(self) -> Digest | None:
        return parse_link(self.body)


@dataclass
class Repository:
    """ "A repository exists when any key decodes to it; nested names are separate repositories." """

    name: str
    keys: set[str] = field(default_factory=set)
    revisions: dict[Digest, Link] = field(default_factory=dict)
    layers: dict[Digest, Link] = field(default_factory=dict)
    signatures: dict[tuple[Digest, Digest], Link] = field(default_factory=dict)
    tags: dict[str, Link] = field(default_factory=dict)
    tag_indexes: dict[tuple[str, Digest], Link] = field(default_factory=dict)
    uploads: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))

    @property
    def legacy_revisions(self) -> set[Digest]:
        """As v2.1.0 left them: "signature folder for d, layer link for d, no revision link" """
        signed = {revision for revision, _ in self.signatures}
        return {digest for digest in signed & self.layers.keys() if digest not in self.revisions}


class Store:
    """The keys, decoded."""

    def __init__(self, model: ModelStore, unread: Set[str] = frozenset()) -> None:
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[Digest, Link] = {}
        self.unknown: set[str] = set()
        self.litter: dict[str, Link] = {}
        for key, (body, mtime) in model.objects.items():
            self._add(key, Link(UNREAD if key in unread else body, mtime))

    def _add(self, key: str, link: Link) -> None:
        decoded = decode(key)
        match decoded:
            case BlobKey(digest):
                self.blobs[digest] = link
                return
            case SeedKey():
                return
            case MarkerKey() if link.body:  # "a marker has no content"
                self.unknown.add(key)
                return
            case MarkerKey() | LitterKey():
                self.litter[key] = link
                return
            case UnknownKey():
                self.unknown.add(key)
                return
        repository = self.repositories.setdefault(decoded.name, Repository(decoded.name))
        repository.keys.add(key)
        match decoded:
            case RevisionLinkKey(_, digest):
                repository.revisions[digest] = link
            case LayerLinkKey(_, digest):
                repository.layers[digest] = link
            case SignatureLinkKey(_, revision, digest):
                repository.signatures[revision, digest] = link
            case TagCurrentKey(_, tag):
                repository.tags[tag] = link
            case TagIndexKey(_, tag, digest):
                repository.tag_indexes[tag, digest] = link
            case UploadKey(_, uuid, _):
                repository.uploads[uuid][key] = link.mtime

    def manifest(self, digest: Digest) -> Manifest | None:
        """ "readable when blob d is present, sha256(bytes)==d, size <= MAX_SIZE, parse_manifest accepts it." """
        blob = self.blobs.get(digest)
        if blob is None or len(blob.body) > MAX_SIZE or not digest.matches(blob.body):
            return None
        try:
            return parse_manifest(blob.body)
        except InvalidManifest:
            return None

    def riddle(self, digest: Digest) -> bool:
        """Nothing is wrong with its bytes, as far as they were read: it is only not understood."""
        blob = self.blobs.get(digest)
        if blob is None or self.manifest(digest) is not None:
            return False
        return len(blob.body) > MAX_SIZE or digest.matches(blob.body)

    def damaged(self, digest: Digest) -> bool:
        """ "present as a blob but not readable" """
        return digest in self.blobs and self.manifest(digest) is None

    def named_by_unknown(self) -> tuple[set[Digest], set[Digest]]:
        """ "digests named by unknown keys under repositories/", and of them those whose key contains /_manifests/"""
        named: set[Digest] = set()
        followed: set[Digest] = set()
        for key in self.unknown:
            if key.startswith(REPOSITORIES):
                digests = {Digest.parse(path.replace("/", ":")) for path in _DIGEST_IN_PATH.findall(key)}
                named |= digests
                if "/_manifests/" in key:
                    followed |= digests
        return named, followed


#: "the folder of a link, a tag, an upload or a blob": the first of these that a path begins with.
_UNITS = [
    re.compile(rf"{area}/", re.ASCII)
    for area in (
        rf"{REPOSITORIES}(?:[^_/][^/]*/)+_layers/(?:{_DIGEST_IN_PATH.pattern})",
        rf"{REPOSITORIES}(?:[^_/][^/]*/)+_manifests/revisions/(?:{_DIGEST_IN_PATH.pattern})",
        rf"{REPOSITORIES}(?:[^_/][^/]*/)+_manifests/tags/[^/]+/index/(?:{_DIGEST_IN_PATH.pattern})",
        rf"{REPOSITORIES}(?:[^_/][^/]*/)+_manifests/tags/[^/]+",
        rf"{REPOSITORIES}(?:[^_/][^/]*/)+_uploads/{UUID_RE}",
        rf"{BLOBS}(?:sha256/../[0-9a-f]{{64}}|sha384/../[0-9a-f]{{96}}|sha512/../[0-9a-f]{{128}})",
    )
]


def _dead_litter(
    store: Store, model: ModelStore, dead: Set[str], protected: Set[str], young_since: int
) -> set[str]:
    """ "It goes where nothing else in the folder stays, and it is itself older than the grace." """
    staying = [
        key for key in model if (key not in dead and key not in store.litter) or repository_around(key) in protected
    ]
    found = set()
    for key, link in store.litter.items():
        decoded = decode(key)
        if link.mtime >= young_since or (isinstance(decoded, LitterKey) and decoded.kept):
            continue
        parts = key.split("/")
        inside = [number for number, part in enumerate(parts[:-1]) if part in ("@eaDir", ".AppleDouble")]
        folder = "/".join(parts[: inside[0] if inside else -1]) + "/"
        name = repository_around(folder)
        unit = next((match[0] for pattern in _UNITS if (match := pattern.match(folder))), "")
        if name in protected or (unit.startswith(REPOSITORIES) and not name):
            continue
        if name and not unit:
            areas = [f"{REPOSITORIES}{name}/{area}/" for area in ("_layers", "_manifests", "_uploads")]
            goes = not any(other.startswith(area) for other in staying for area in areas)
        elif unit:
            goes = not any(other.startswith(unit) for other in staying)
        else:  # "above repositories"
            above = folder.startswith(REPOSITORIES) and folder != REPOSITORIES and "/_" not in folder
            above = above and folder.isascii() and "//" not in folder
            goes = above and not any(other.startswith(folder) for other in staying)
        if goes:
            found.add(key)
    return found


def strong_closure(store: Store, repository: Repository, start: Digest) -> set[Digest]:
    """ "what the tag's own target reaches through strong edges": expanded as in Reach, the start among it."""
    reached, expandable = {start}, {start}
    while True:
        before = len(reached), len(expandable)
        _expand(store, repository, reached, expandable)
        if before == (len(reached), len(expandable)):
            return reached


def _expand(store: Store, repository: Repository, reached: set[Digest], expandable: set[Digest]) -> None:
    """One round of: "for a reached digest d which is expandable (a root from revision/tag, or reached by an edge
    of kind MANIFEST, or linked as a revision in r) all its strong edges' targets are reached if d is readable." """
    for digest in list(reached):
        if digest not in expandable and digest not in repository.revisions:
            continue
        manifest = store.manifest(digest)
        for edge in manifest.edges if manifest else ():
            if edge.kind in STRONG:
                reached.add(edge.target.digest)
            if edge.kind is EdgeKind.MANIFEST:
                expandable.add(edge.target.digest)


@dataclass(frozen=True)
class Consent:
    """What the operator lets go besides. dropped: tags that a policy takes, by repository; guarded: tags that never
    go; broken: whether a revision (repository, digest) may go when it can't be read; named: also when it is only not
    understood."""

    dropped: Mapping[str, Set[str]] = field(default_factory=dict)
    guarded: Mapping[str, Set[str]] = field(default_factory=dict)
    broken: Callable[[str, Digest], bool] = lambda name, digest: False
    named: Callable[[str, Digest], bool] = lambda name, digest: False


class Marking:
    """Reach(r) of one repository, and whether it is protected."""

    def __init__(
        self,
        store: Store,
        repository: Repository,
        young_since: int,
        delete_untagged: bool,
        consent: Consent | None = None,
    ) -> None:
        consent = consent or Consent()
        self.store = store
        self.repository = repository
        self.young_since = young_since
        self.delete_untagged = delete_untagged
        self.reached: set[Digest] = set()
        self.expandable: set[Digest] = set()
        #: Tags that are roots now.
        self.kept_tags: set[str] = set()
        #: Tags that go by a policy; those that never go; broken revisions that may go.
        self.dropped = consent.dropped.get(repository.name, set())
        self.guarded = consent.guarded.get(repository.name, set())
        self.broken = {
            digest
            for digest, link in repository.revisions.items()
            if (
                consent.named(repository.name, digest)
                or (consent.broken(repository.name, digest) and not store.riddle(digest))
            )
            and (link.body != str(digest).encode() or store.manifest(digest) is None)
            and UNREAD not in (link.body, store.blobs.get(digest, link).body)
            and not self.young(link)
            and len(link.body) <= _LINK_MAX
        }
        self.mark(all_revisions=False)
        self.reasons = self.protection()
        if self.reasons:
            # nothing of it goes, and what was to go protects it as before
            self.dropped, self.broken = set(), set()
        if self.reasons:  # "in a protected r every revision" is a root: more is reached, so look again
            self.mark(all_revisions=True)
            self.reasons = self.protection()

    def young(self, link: Link) -> bool:
        """ "young" = mtime >= now - grace."""
        return link.mtime >= self.young_since

    def following(self, tag: str) -> Digest | None:
        """ "tag t with subject_of_tag(t) = X, where X is linked as a revision in r, target != X, and X not in what
        the tag's own target reaches through strong edges"; "young tags are always roots", and those that point at what
        is broken go with it"""
        subject = reference.subject_of_tag(tag)
        link = self.repository.tags[tag]
        target = link.target
        if subject is None or target is None or tag in self.guarded or self.young(link) or target in self.broken:
            return None
        if not self.delete_untagged and subject not in self.broken:
            return None
        if subject not in self.repository.revisions:
            return None
        if subject in strong_closure(self.store, self.repository, target):
            return None
        return subject

    def mark(self, *, all_revisions: bool) -> None:
        repository = self.repository
        self.reached, self.expandable, self.kept_tags = set(), set(), set()

        def root(digest: Digest) -> None:
            self.reached.add(digest)
            self.expandable.add(digest)

        # "not delete_untagged: every revision, every tag target. delete_untagged: every young revision; in a
        # protected r every revision"
        for digest, link in repository.revisions.items():
            if digest in self.broken:
                continue
            if not self.delete_untagged or all_revisions or self.young(link):
                root(digest)
        # "(signature folder for d, layer link for d, no revision link) is a revision of r (root always)"
        for digest in repository.legacy_revisions:
            root(digest)
        # "every tag target (following tags: see below)"; "young tags are always roots"
        waiting: dict[str, Digest] = {}
        for tag, link in repository.tags.items():
            if tag in self.dropped:
                continue
            if link.target in self.broken and tag not in self.guarded and not self.young(link):
                continue  # "with the tags pointing at them"
            subject = self.following(tag)
            if subject is not None:
                waiting[tag] = subject
                continue
            self.kept_tags.add(tag)
            if link.target is not None:
                root(link.target)
            if link.body == UNREAD:  # it names one of these
                for name, digest in repository.tag_indexes:
                    if name == tag:
                        root(digest)
        # "Every layer link that is young is a root as well (its digest and its target), not expanded."
        for digest, link in repository.layers.items():
            if self.young(link):
                self.reached.add(digest)
                if link.target is not None:
                    self.reached.add(link.target)

        while True:
            before = len(self.reached), len(self.expandable)
            _expand(self.store, repository, self.reached, self.expandable)
            # "Referrers: a revision m of r whose subject is in Reach(r) is a root of r too"
            for digest in repository.revisions.keys() - self.broken:
                manifest = self.store.manifest(digest)
                if manifest and manifest.subject and manifest.subject.digest in self.reached:
                    root(digest)
            # "alias: if digest d in Reach(r) has layer_link(r,d) with target T != d, T is in Reach(r)"
            for digest in list(self.reached):
                link_to = repository.layers.get(digest)
                if link_to and link_to.target is not None:
                    self.reached.add(link_to.target)
            # "such a tag is a root only once X is in Reach(r) (least fixpoint)"
            for tag, subject in waiting.items():
                target = repository.tags[tag].target
                if subject in self.reached and target is not None:
                    self.kept_tags.add(tag)
                    root(target)
            if before == (len(self.reached), len(self.expandable)):
                return

    def protection(self) -> frozenset[str]:
        repository, reasons = self.repository, set()
        # "name of r is not reference.is_name(r)"
        if not reference.is_name(repository.name):
            reasons.add(NAME)
        for digest, link in repository.revisions.items():
            if digest in self.broken:
                if digest in self.reached:
                    reasons.add(NEEDED)
                continue
            # "a revision link of r is not sound (body is not exactly its own digest)"
            if link.body != str(digest).encode():
                reasons.add(REVISION_LINK)
            # "a revision d of r whose manifest is not readable"
            if self.store.manifest(digest) is None:
                reasons.add(REVISION_UNREADABLE)
        for digest in repository.legacy_revisions:
            if self.store.manifest(digest) is None:
                reasons.add(REVISION_UNREADABLE)
        for layer in repository.layers.values():
            if layer.body == UNREAD:
                reasons.add(LINK_UNREAD)
        for link in repository.tags.values():
            if link.body == UNREAD:
                reasons.add(LINK_UNREAD)
            # "a tag of r whose current/link body does not parse, when delete_untagged"
            if link.target is None and self.delete_untagged:
                reasons.add(TAG_LINK)
            # "a manifest digest reached in r as a tag's target that is present as a blob but not readable"; also a tag
            # that might follow another manifest: what can't be read can't tell
            if link.target in self.broken:
                continue
            if link.target is not None and self.store.damaged(link.target):
                reasons.add(MANIFEST_UNREADABLE)
        # "... through an edge of kind MANIFEST" (an edge to a linked revision is REVISION_UNREADABLE already)
        for digest in self.reached:
            if digest not in self.expandable and digest not in repository.revisions:
                continue
            manifest = self.store.manifest(digest)
            for edge in manifest.edges if manifest else ():
                if edge.kind is EdgeKind.MANIFEST and self.store.damaged(edge.target.digest):
                    reasons.add(MANIFEST_UNREADABLE)
        return frozenset(reasons)


def links_are_whole(model: ModelStore) -> bool:
    """Unless the store says that a metadata database is in use, whatever else it says."""
    return "docker/registry/lockfiles/database-in-use" not in model


def expected(
    model: ModelStore,
    *,
    now: int,
    delete_untagged: bool,
    grace: int,
    uploads_older_than: int,
    multipart: Sequence[tuple[str, int]] | None = (),
    consent: Consent | None = None,
    unread: Set[str] = frozenset(),
) -> Expected:
    """now, grace and uploads_older_than in µs. multipart: unfinished S3 multipart uploads as (key, time of the newest
    part); None when the store would not list them, and then no upload is dead. unread: keys that the store does not
    give."""
    store = Store(model, unread)
    newest: dict[tuple[str, str], int] = {}
    for key, time in multipart or ():
        decoded = decode(key)
        if isinstance(decoded, UploadKey):
            repository = store.repositories.setdefault(decoded.name, Repository(decoded.name))
            newest[decoded.name, decoded.uuid] = max(time, newest.get((decoded.name, decoded.uuid), 0))
    young_since = now - grace
    tag_currents, tag_indexes, revisions, signatures, layers, uploads = (set[str]() for _ in range(6))
    kept: set[Digest] = set()
    untagged: set[str] = set()
    protected: dict[str, frozenset[str]] = {}
    reach: dict[str, frozenset[Digest]] = {}
    markings = {
        name: Marking(store, repository, young_since, delete_untagged, consent)
        for name, repository in store.repositories.items()
    }
    # "digests named by unknown keys: read and expanded as roots when the key contains /_manifests/"
    unknown, followed = store.named_by_unknown()
    while True:
        before = len(unknown), len(followed)
        _expand(store, Repository(""), unknown, followed)
        if before == (len(unknown), len(followed)):
            break
    kept |= unknown
    # "an unknown key naming a non-sha256 digest blocks the sweep"
    sweep_blocked = any(digest.algorithm != "sha256" for digest in store.named_by_unknown()[0])
    reached_anywhere = unknown.union(*(marking.reached for marking in markings.values()))

    for name, repository in store.repositories.items():
        marking = markings[name]
        reached = marking.reached
        reach[name] = frozenset(reached)
        kept |= reached
        if marking.reasons:
            protected[name] = marking.reasons

        # "upload(r,u): dead when newest part < now - uploads_older_than. Also in protected repositories."; "newest over
        # its parts AND its S3 multipart uploads together"; "no upload dead when multipart listing is denied"
        for uuid, parts in repository.uploads.items():
            times = [*parts.values(), newest.get((name, uuid), 0)]
            if multipart is not None and max(times) < now - uploads_older_than:
                uploads |= parts.keys()

        dead_tags: set[str] = set()
        dead_revisions: set[Digest] = set()
        if not marking.reasons:
            # "tag current link: only a following tag that is not reached (young tags are always roots)"
            dead_tags = repository.tags.keys() - marking.kept_tags
            # "revision(r,d): dead when delete_untagged, r not protected, d not in Reach(r), not young"
            for digest, link in repository.revisions.items():
                if delete_untagged and digest not in reached and not marking.young(link):
                    dead_revisions.add(digest)
            dead_revisions |= marking.broken
        if (
            delete_untagged
            and dead_revisions
            and all(marking.following(tag) for tag in repository.tags)
            and dead_revisions == repository.revisions.keys()
        ):
            untagged.add(name)
        tag_currents |= {encode(TagCurrentKey(name, tag)) for tag in dead_tags}
        revisions |= {encode(RevisionLinkKey(name, digest)) for digest in dead_revisions}
        kept_revisions = repository.revisions.keys() - dead_revisions
        kept |= kept_revisions
        # What a kept revision link's body names, where it is not its own digest, is kept too: it is what is served.
        kept |= {target for digest in kept_revisions if (target := repository.revisions[digest].target)}

        # "A TagIndex without current (or with a dead one) where any index link of that tag is young: keep all of that
        # tag's."
        being_pushed = {
            tag
            for (tag, _), link in repository.tag_indexes.items()
            if (tag not in repository.tags or tag in dead_tags) and marking.young(link)
        }
        for (tag, digest), link in repository.tag_indexes.items():
            if marking.reasons or marking.young(link) or tag in being_pushed:
                continue
            # "tag t has no current link [or its current link is dead], or (d is not the tag's target and d is not
            # a kept revision)"
            has_no_current = tag not in repository.tags or tag in dead_tags
            if has_no_current or digest not in {repository.tags[tag].target, *kept_revisions}:
                tag_indexes.add(encode(TagIndexKey(name, tag, digest)))

        for (revision, digest), link in repository.signatures.items():
            # "dead when revision(r,rev) is dead, or has no revision link at all and it is not young; not in
            # protected."; what something reaches all the same keeps its signatures
            orphan = revision not in repository.revisions | dict.fromkeys(reached) and not marking.young(link)
            if not marking.reasons and (revision in dead_revisions or orphan):
                signatures.add(encode(SignatureLinkKey(name, revision, digest)))
            else:
                kept.add(digest)

        dead_layers: set[Digest] = set()
        for digest, link in repository.layers.items():
            # "dead when r not protected, d not in Reach(r), not young, and target not in Reach(r)"
            unreached = digest not in reached and link.target not in reached
            # "such links (non-sha256) are dead only if their digest is in no repository's reach"
            if digest.algorithm != "sha256" and digest in reached_anywhere:
                unreached = False
            if len(link.body) <= _LINK_MAX and not marking.reasons and unreached and not marking.young(link):
                dead_layers.add(digest)
        # "if r keeps any tag or revision and all its layer links would die, the smallest-digest one stays"
        found_by_layers = kept_revisions or repository.tags.keys() - dead_tags
        if found_by_layers and dead_layers and dead_layers == repository.layers.keys():
            dead_layers.remove(min(dead_layers, key=lambda digest: digest.raw))
        for digest, link in repository.layers.items():
            if digest in dead_layers:
                layers.add(encode(LayerLinkKey(name, digest)))
            else:
                # "target or digest of any layer link that is not dead"
                kept |= {digest} if link.target is None else {digest, link.target}
                # "of an algorithm other than sha256 has no parseable body: the whole blob sweep is blocked"; for any
                # link that stays, be it reached, young or protected
                sweep_blocked |= digest.algorithm != "sha256" and link.target is None

    live_blobs = {
        encode(BlobKey(digest))
        for digest, blob in store.blobs.items()
        if sweep_blocked or digest in kept or blob.mtime >= young_since
    }
    blobs = {encode(BlobKey(digest)) for digest in store.blobs} - live_blobs

    # "repository emptied: r had at least one dead key, and all its keys are dead, and no unknown key lies below it
    # in its own _ areas."
    dead_links = tag_currents | tag_indexes | revisions | signatures | layers | uploads
    emptied = {
        name
        for name, repository in store.repositories.items()
        if repository.keys
        and repository.keys <= dead_links
        and not any(key.startswith(f"{REPOSITORIES}{name}/_") for key in store.unknown)
    }
    litter = _dead_litter(store, model, dead_links | blobs, protected.keys(), young_since)
    # A registry that lists by prefix shows a repository of which nothing but litter is left.
    emptied |= {
        name
        for key in litter
        if (name := repository_around(key[: key.index("@eaDir")] if "@eaDir" in key else key))
        and (name not in store.repositories or not store.repositories[name].keys)
        and not any(other.startswith(f"{REPOSITORIES}{name}/_") for other in store.unknown)
    }
    return Expected(
        litter=frozenset(litter),
        tag_currents=frozenset(tag_currents),
        tag_indexes=frozenset(tag_indexes),
        revision_links=frozenset(revisions),
        signature_links=frozenset(signatures),
        layer_links=frozenset(layers),
        uploads=frozenset(uploads),
        blobs=frozenset(blobs),
        live_blobs=frozenset(live_blobs),
        protected=protected,
        emptied=frozenset(emptied),
        sweep_blocked=sweep_blocked,
        reach=reach,
        untagged=frozenset(untagged),
    )
