"""What a registry's storage holds, taken while it serves, with read permission only.

A repository is taken when two listings of it agree: everything in them stood together at the moment between the two.
The links are listed before the blobs: a push writes blobs first, so a link that was listed has its blob in the
listing, unless it was deleted since; then the links are read again. One that never holds still is taken from its
last listing; what its manifests name and that listing lacks is looked for by name. So it is where a link is missing
though two listings agree: gc takes one that nothing needs, and gives it back where a push needed it meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final, TypeAlias

from regstore import layout
from regstore.backup.options import CreateOptions, refuse_unmatched
from regstore.backup.plan import KnownManifest, Listing
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import AccessDenied, IntegrityError, Refused, StorageError
from regstore.events import Notice, OnEvent
from regstore.inventory.inventory import Inventory
from regstore.inventory.reachability import Reachability
from regstore.inventory.scan import Scanner, ScanOptions
from regstore.inventory.whose import Use, refuse_database
from regstore.layout import LayerLinkKey, RevisionLinkKey
from regstore.manifest import EdgeKind
from regstore.state.journal import UNLINK, find_runs, read_parts, read_seen
from regstore.storage.base import Storage
from regstore.storage.streams import is_fatal

#: Listings of a repository that does not hold still, after the first two.
_TRIES: Final = 6
_TABLES: Final = ("layer_link", "revision_link", "signature_link", "tag", "tag_index")
_BATCH: Final = 200

#: A link that a manifest needs and no listing showed.
_Wanted: TypeAlias = LayerLinkKey | RevisionLinkKey


class Source:
    """The links, blobs and manifests of a store, in an inventory of this run."""

    def __init__(
        self,
        storage: Storage,
        inventory: Inventory,
        scanning: ScanOptions,
        options: CreateOptions,
        on_event: OnEvent,
    ) -> None:
        self.storage = storage
        self.inventory = inventory
        self._scanning = scanning
        self._options = options
        # A scan speaks of uploads, which are none of a backup's business.
        self._on_event: OnEvent = lambda event: None if isinstance(event, Notice) else on_event(event)
        self._scanner = Scanner(storage, inventory, scanning, self._on_event)
        #: Repositories whose last two listings differed.
        self._restless: set[str] = set()
        #: Those that were looked at again, as something of theirs was missing.
        self._doubted: set[str] = set()

    async def load(self) -> None:
        await self._scanner.list_links()
        self._refuse_patterns_of_nothing()
        later = self.inventory.child()
        try:
            await Scanner(self.storage, later, self._scanning, self._on_event).list_links()
            moving = self._differing(later)
            self._adopt(later, moving)
        finally:
            later.close()
        await self._settle([name for name in moving if self.in_scope(name)])
        await list_blobs(self._scanner)
        refuse_database(self.storage.url, self.inventory.database, Use.BACK_UP)
        self._refuse_symbolic_links()
        await self._read_manifests()

    def _refuse_patterns_of_nothing(self) -> None:
        names = self.names()
        if not self.inventory.count("repository"):
            return  # `create` says what is not there
        refuse_unmatched("repository", self._options.repositories, names, self.storage.url)
        rows = self.inventory.all(
            "select distinct t.name from tag t join repository r on r.id = t.repository"
            " where r.name in (select unnest(?))",
            [names],
        )
        refuse_unmatched("tag", self._options.tags, [tag for (tag,) in rows], self.storage.url)

    def _refuse_symbolic_links(self) -> None:
        links = sorted(key for key in self.storage.symlinks if key.startswith(layout.PREFIX))
        if links:
            raise Refused(
                f"{self.storage.url} holds symbolic links ({len(links)}, such as {links[0]}); what lies behind them "
                "is not seen, so it would be missing from the backup: replace them by bind mounts, or move the data"
            )

    def in_scope(self, name: str) -> bool:
        patterns = self._options.repositories
        return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)

    def names(self) -> list[str]:
        """The repositories of the scope that hold anything, sorted."""
        rows = self.inventory.all("select name from repository order by name")
        return [name for (name,) in rows if self.in_scope(name)]

    async def look_again(self, names: Collection[str], missing: Collection[Digest]) -> None:
        """List these repositories anew, and ask for the blobs and links that were missing."""
        self._doubted.update(names)
        await self._settle(names)
        await self._find_blobs(missing)
        await self._read_manifests()
        # What was pushed since the blobs were listed.
        while await self._find_blobs(self._absent(names)):
            await self._read_manifests()

    def forget_blobs(self, digests: Collection[Digest]) -> None:
        """They are gone from the store."""
        for digest in digests:
            self.inventory.execute("delete from blob where digest = ?", [digest.raw])

    async def _settle(self, names: Collection[str]) -> None:
        names = set(names)
        self._restless -= names
        for _ in range(_TRIES):
            if not names:
                return
            later = self.inventory.child()
            try:
                scanner = Scanner(self.storage, later, self._scanning, self._on_event)
                await scanner.list_repositories(sorted(names))
                changed = self._differing(later) & names
                self._adopt(later, changed)
            finally:
                later.close()
            names = changed
        self._restless |= names

    def _differing(self, later: Inventory) -> set[str]:
        """Repositories that the two listings show differently. Times do not count: content does."""
        one, other = _contents("main"), _contents(_schema(later))
        rows = self.inventory.all(
            f"select distinct name from ((from ({one}) except from ({other}))"
            f" union all (from ({other}) except from ({one})))"
        )
        return {name for (name,) in rows}

    def _adopt(self, later: Inventory, names: Collection[str]) -> None:
        """Take these repositories from the later listing."""
        if not names:
            return
        execute, schema = self.inventory.execute, _schema(later)
        listed = sorted(names)
        execute(
            "insert into main.repository select (select coalesce(max(id), 0) from main.repository)"
            f" + row_number() over (), name from {schema}.repository"
            " where name in (select unnest(?)) and name not in (select name from main.repository)",
            [listed],
        )
        for table in _TABLES:
            columns = [row[0] for row in self.inventory.all(f"describe main.{table}") if row[0] != "repository"]
            execute(
                f"delete from main.{table} where repository in"
                " (select id from main.repository where name in (select unnest(?)))",
                [listed],
            )
            execute(
                f"insert into main.{table} (repository, {', '.join(columns)})"
                f" select m.id, {', '.join('t.' + column for column in columns)} from {schema}.{table} t"
                f" join {schema}.repository r on r.id = t.repository join main.repository m on m.name = r.name"
                " where r.name in (select unnest(?))",
                [listed],
            )

    def _absent(self, names: Collection[str]) -> set[Digest]:
        """What these repositories name that is not among the blobs."""
        rows = self.inventory.all(
            f"""
            with chosen as (select id from repository where name in (select unnest(?))),
            named as (
                select target as digest from layer_link where repository in (from chosen)
                union select digest from revision_link where repository in (from chosen)
                union select e.target from revision_link v join edge e on e.source = v.digest
                    where v.repository in (from chosen) and e.kind <> {int(EdgeKind.SUBJECT)}
            )
            select digest from named where digest is not null and digest not in (select digest from blob)
            """,
            [sorted(names)],
        )
        return {Digest.from_raw(bytes(raw)) for (raw,) in rows}

    async def _find_blobs(self, digests: Collection[Digest]) -> int:
        """Ask for these by name, and take those that are there; how many."""
        rows = self.inventory.all(
            "select digest from blob where digest in (select unnest(?::blob[]))", [[one.raw for one in digests]]
        )
        known = {bytes(raw) for (raw,) in rows}
        found: list[tuple[bytes, int, int]] = []

        async def look(digest: Digest) -> None:
            try:
                info = await self.storage.stat(layout.encode(layout.BlobKey(digest)))
            except StorageError as error:
                if is_fatal(error):
                    raise
                return  # absent, or not to be seen: what needs it is left out, and named
            found.append((digest.raw, info.size, info.mtime))

        await for_each(
            [digest for digest in digests if digest.raw not in known], look, concurrency=self._scanning.concurrency
        )
        self.inventory.insert(
            "blob",
            {
                "digest": ("binary", [row[0] for row in found]),
                "size": ("int64", [row[1] for row in found]),
                "mtime": ("int64", [row[2] for row in found]),
            },
        )
        return len(found)

    async def _read_manifests(self) -> None:
        # One that was missing may have come; what was read stays.
        self.inventory.execute("delete from manifest where state = 'missing'")
        await self._scanner.read_manifests()
        asked: set[_Wanted] = set()
        while await self._find_links(asked):
            await self._scanner.read_manifests()

    async def _find_links(self, asked: set[_Wanted]) -> bool:
        """In repositories that never held still, or lacked something: links that a push wrote while the listing ran,
        or that gc took while it ran. Whether any was."""
        names = self._restless | self._doubted
        if not names:
            return False
        rows = self.inventory.all(
            f"""
            select distinct r.name, e.target, e.kind = {int(EdgeKind.MANIFEST)}
            from repository r join revision_link v on v.repository = r.id join edge e on e.source = v.digest
            where r.name in (select unnest(?)) and e.kind not in (
                {int(EdgeKind.SUBJECT)}, {int(EdgeKind.FOREIGN_LAYER)})
                and not exists (from layer_link l where l.repository = r.id and l.digest = e.target)
                and not exists (from revision_link x where x.repository = r.id and x.digest = e.target)
            """,
            [sorted(names)],
        )
        wanted: set[_Wanted] = {
            (RevisionLinkKey if is_manifest else LayerLinkKey)(name, Digest.from_raw(bytes(raw)))
            for name, raw, is_manifest in rows
        } - asked
        asked |= wanted
        found: dict[_Wanted, Digest] = {}

        async def look(key: _Wanted) -> None:
            try:
                body = await self.storage.get(layout.encode(key))
            except StorageError as error:
                if is_fatal(error):
                    raise
                return
            target = layout.parse_link(body)
            if target is not None:
                found[key] = target

        await for_each(sorted(wanted, key=str), look, concurrency=self._scanning.concurrency)
        found |= await self._taken_by_gc(wanted - found.keys())
        ids = dict(self.inventory.all("select name, id from repository"))
        for table, kind in (("layer_link", LayerLinkKey), ("revision_link", RevisionLinkKey)):
            chosen = [(key, target) for key, target in found.items() if isinstance(key, kind)]
            self.inventory.insert(
                table,
                {
                    "repository": ("int32", [ids[key.name] for key, _ in chosen]),
                    "digest": ("binary", [key.digest.raw for key, _ in chosen]),
                    "target": ("binary", [target.raw for _, target in chosen]),
                    "size": ("int64", [71] * len(chosen)),
                    "mtime": ("int64", [0] * len(chosen)),
                },
            )
        if found:
            await self._find_blobs(set(found.values()))
        return bool(found)

    async def _taken_by_gc(self, wanted: Collection[_Wanted]) -> dict[_Wanted, Digest]:
        """Links that gc took from a repository where a manifest names them: it gives them back, as it does not know
        yet of that manifest, or was killed before it did. Only what its journals hold (a layer link is a right to
        read), and not what stood again since."""
        found: dict[_Wanted, Digest] = {}
        if not wanted:
            return found
        keys = {layout.encode(key): key for key in wanted}
        try:
            for record in await find_runs(self.storage):
                seen = await read_seen(self.storage, record)
                async for entries in read_parts(self.storage, record.parts):
                    for entry in entries:
                        key = keys.get(entry.key)
                        if key is None or entry.op != UNLINK or entry.body is None or entry.key in seen:
                            continue
                        target = layout.parse_link(entry.body)
                        if target is not None:
                            found[key] = target
        except (AccessDenied, IntegrityError):
            pass  # what regstore keeps beside the registry need not be readable for a backup of it
        return found

    # -- rows for the plan

    def mark(self) -> None:
        """Compute what each repository reaches, before `listings`."""
        Reachability(self.inventory, "backup_reach").add(
            "select repository, digest, true as expand from revision_link"
            " union all select repository, target, true from tag"
            " union all select repository, digest, true from legacy_revision"
        )

    def listings(
        self, names: Sequence[str]
    ) -> Iterator[tuple[Listing, dict[Digest, KnownManifest], dict[Digest, int]]]:
        """Each of these repositories with the manifests and the blobs (their sizes) that it may need."""
        for start in range(0, len(names), _BATCH):
            yield from self._batch(names[start : start + _BATCH])

    def _batch(
        self, names: Sequence[str]
    ) -> Iterator[tuple[Listing, dict[Digest, KnownManifest], dict[Digest, int]]]:
        rows = self._rows_of(names)
        digest = _Digests()
        listings = {name: Listing(name=name) for name in names}
        for name, raw, target in rows("r.name, t.digest, t.target", "layer_link"):
            if target is not None:
                listings[name].layers[digest(raw)] = digest(target)
        for name, raw, target in rows("r.name, t.digest, t.target", "revision_link"):
            sound = target is not None and bytes(raw) == bytes(target)
            (listings[name].revisions if sound else listings[name].broken).add(digest(raw))
        for name, raw in rows("r.name, t.digest", "legacy_revision"):
            listings[name].legacy.add(digest(raw))
        for name, revision, raw in rows("r.name, t.revision, t.digest", "signature_link"):
            listings[name].signatures.add((digest(revision), digest(raw)))
        for name, tag, raw in rows("r.name, t.name, t.digest", "tag_index"):
            listings[name].history.add((tag, digest(raw)))
        for name, tag, target, mtime in rows("r.name, t.name, t.target, t.mtime", "tag"):
            listings[name].tags[tag] = (None if target is None else digest(target), mtime)
        manifests: dict[str, dict[Digest, KnownManifest]] = defaultdict(dict)
        for name, raw, state, reason, media_type, edges in rows(
            "r.name, m.digest, any_value(m.state), any_value(m.reason), any_value(m.media_type),"
            " list({'target': e.target, 'kind': e.kind}) filter (e.target is not null)",
            "backup_reach",
            "join manifest m on m.digest = t.digest left join edge e on e.source = t.digest where t.expand",
            "group by r.name, m.digest",
        ):
            pairs = sorted({(edge["kind"], bytes(edge["target"])) for edge in edges or ()})
            manifests[name][digest(raw)] = KnownManifest(
                state,
                reason or "",
                media_type or "",
                tuple((digest(target), EdgeKind(kind)) for kind, target in pairs),
            )
        blobs: dict[str, dict[Digest, int]] = defaultdict(dict)
        wanted = (
            "(select repository, digest from backup_reach union select repository, target from layer_link"
            " union select repository, digest from signature_link)"
        )
        for name, raw, size in rows(
            "distinct r.name, b.digest, b.size", wanted, "join blob b on b.digest = t.digest"
        ):
            blobs[name][digest(raw)] = size
        for name in names:
            yield listings[name], manifests[name], blobs[name]

    def _rows_of(self, names: Sequence[str]) -> Any:
        chosen = list(names)

        def rows(columns: str, table: str, more: str = "", group: str = "") -> list[tuple[Any, ...]]:
            condition = "and" if "where" in more else "where"
            return self.inventory.all(
                f"select {columns} from {table} t join repository r on r.id = t.repository {more}"
                f" {condition} r.name in (select unnest(?)) {group}",
                [chosen],
            )

        return rows


async def list_blobs(scanner: Scanner) -> None:
    """All of them, in the inventory on return."""
    await scanner.list_blobs()
    await scanner.list_repositories(())


class _Digests:
    """From raw bytes, each made once."""

    def __init__(self) -> None:
        self._made: dict[bytes, Digest] = {}

    def __call__(self, raw: bytes) -> Digest:
        raw = bytes(raw)
        made = self._made.get(raw)
        if made is None:
            made = self._made[raw] = Digest.from_raw(raw)
        return made


def _schema(inventory: Inventory) -> str:
    return str(inventory.one("select current_schema()"))


def _contents(schema: str) -> str:
    """SQL: one row for everything that a listing says of a repository, with its name."""
    nothing = "null::blob"

    def rows(table: str, columns: str) -> str:
        return (
            f"select r.name, '{table}' as kind, {columns} from {schema}.{table} t"
            f" join {schema}.repository r on r.id = t.repository"
        )

    return " union all ".join(
        (
            rows("layer_link", "'' as label, t.digest as one, t.target as two, t.body as body, t.size"),
            rows("revision_link", "'', t.digest, t.target, t.body, t.size"),
            rows("signature_link", f"'', t.revision, t.digest, {nothing}, t.size"),
            rows("tag", f"t.name, {nothing}, t.target, t.body, t.size"),
            rows("tag_index", f"t.name, t.digest, {nothing}, {nothing}, t.size"),
        )
    )
