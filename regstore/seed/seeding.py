"""Seeding, step by step: the place, the seeds, what the credentials may do, settings, and the health checks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Final

from regstore import layout
from regstore.errors import AccessDenied, NoSuchBucket, NotFound, RegstoreError, StorageError
from regstore.events import OnEvent, Progress, ignore
from regstore.seed import health, probe
from regstore.seed.bucket import BucketAdmin
from regstore.seed.configuration import as_environment, registry_configuration
from regstore.seed.result import Check, Outcome, SeedOptions, SeedResult
from regstore.storage.base import PutOptions, Storage
from regstore.storage.optional import HasBucket, IsFolder

SEED_BODY: Final = (
    b"This object keeps an empty registry store healthy: without it, Distribution 2.6 fails its storage health check\n"
    b"on an empty bucket, and garbage-collect fails in 2.5 to 2.8. Written by regstore seed-bucket. Leave it here.\n"
)


async def seed(storage: Storage, options: SeedOptions, *, on_event: OnEvent = ignore) -> SeedResult:
    """Seed the store that the storage names; a bucket or a folder need not exist.

    Harmless and idempotent on a store in use: nothing of it is changed, except bucket settings where
    `apply_settings` asks for it. With `check`, nothing is written at all.
    Raises AuthenticationFailed, Unreachable, and AccessDenied where the bucket may not be created; what the
    credentials may not do on the store is a Check.
    """
    if isinstance(storage, HasBucket):
        async with storage.aioboto3_client() as client:
            admin = BucketAdmin(client, storage)
            return await _walk(_Bucket(storage, options, admin), storage, options, on_event)
    if isinstance(storage, IsFolder):
        return await _walk(_Folder(storage, options, storage.folder), storage, options, on_event)
    return await _walk(_Store(storage, options), storage, options, on_event)


async def make_place(storage: Storage, options: SeedOptions | None = None) -> None:
    """The bucket or folder alone, with a new bucket's settings, and nothing in it. Errors as of `seed`."""
    options = options or SeedOptions()
    if isinstance(storage, HasBucket):
        async with storage.aioboto3_client() as client:
            steps: _Store = _Bucket(storage, options, BucketAdmin(client, storage))
            await steps.make_place()
            await steps.settings()
    else:
        steps = (
            _Folder(storage, options, storage.folder) if isinstance(storage, IsFolder) else _Store(storage, options)
        )
        await steps.make_place()


async def _walk(steps: _Store, storage: Storage, options: SeedOptions, on_event: OnEvent) -> SeedResult:
    def say(phase: str) -> None:
        on_event(Progress(phase=phase, done=0, unit="steps"))

    say("looking for the store")
    place = await steps.make_place()
    checks = [place]
    if place.outcome is not Outcome.MISSING:
        say("seeding")
        checks += await _seeds(storage, options)
        say("trying permissions")
        checks += await steps.permissions()
        say("looking at settings")
        checks += await steps.settings()
        say("asking what the health check asks")
        checks += await steps.health()
    configuration = registry_configuration(storage, options.put or PutOptions())
    return SeedResult(
        url=storage.url,
        checks=tuple(checks),
        configuration=configuration,
        environment=as_environment(configuration) if configuration else {},
    )


async def _seeds(storage: Storage, options: SeedOptions) -> list[Check]:
    return [await _seed(storage, key, options) for key in layout.SEEDS]


async def _seed(storage: Storage, seed_key: layout.SeedKey, options: SeedOptions) -> Check:
    """`stat` tells denied from absent badly (S3 answers 403 to who may not list), so a refusal ends in the put."""
    key, name = layout.encode(seed_key), f"seed {seed_key.area}"
    try:
        await storage.stat(key)
        return Check(name, Outcome.OK, f"{key} is there", required=True)
    except NotFound:
        if options.check:
            return Check(name, Outcome.MISSING, f"{key} is not there", required=True)
    except AccessDenied as error:
        if options.check:
            return Check(name, Outcome.DENIED, str(error), required=True)
    try:
        await storage.put(key, SEED_BODY, options=options.put)
    except AccessDenied as error:
        return Check(name, Outcome.DENIED, str(error), required=True)
    return Check(name, Outcome.DONE, f"{key} written", required=True)


async def _only_look(storage: Storage) -> list[Check]:
    """The permissions that can be seen without writing."""
    why = "a check writes nothing"
    return [
        Check("permission write", Outcome.SKIPPED, why),
        await _read_any(storage),
        await probe.look(storage),
        Check("permission delete", Outcome.SKIPPED, why),
    ]


async def _read_any(storage: Storage) -> Check:
    name = "permission read"
    for seed_key in layout.SEEDS:
        try:
            await storage.get(layout.encode(seed_key))
            return Check(name, Outcome.OK, "", required=True)
        except NotFound:
            continue
        except AccessDenied as error:
            return Check(name, Outcome.DENIED, str(error), required=True)
    return Check(name, Outcome.SKIPPED, "there is no seed to read yet")


class _Store:
    """What can be done about any store; one that is not there can't be made."""

    def __init__(self, storage: Storage, options: SeedOptions) -> None:
        self._storage = storage
        self._options = options

    async def _exists(self) -> bool:
        """A listing is asked, not HEAD, whose answer cannot say why it refuses. Credentials that may not list
        leave the question open, and then the store counts as there: S3 says NoSuchBucket before it says denied."""
        try:
            await anext(self._storage.list(layout.PREFIX), None)
        except NoSuchBucket:
            return False
        except AccessDenied:
            return True
        return True

    async def make_place(self) -> Check:
        url = self._storage.url
        if await self._exists():
            return Check("store", Outcome.OK, f"{url} is there", required=True)
        if self._options.check:
            return Check("store", Outcome.MISSING, f"there is no {url}", required=True)
        raise NoSuchBucket(f"there is no {url}, and regstore can't make such a store")

    async def permissions(self) -> list[Check]:
        if self._options.check:
            return await _only_look(self._storage)
        return await probe.probe_permissions(self._storage, self._options.put)

    async def settings(self) -> list[Check]:
        return []

    async def health(self) -> list[Check]:
        return []


class _Bucket(_Store):
    def __init__(self, storage: Storage, options: SeedOptions, admin: BucketAdmin) -> None:
        super().__init__(storage, options)
        self._created = False
        self._admin = admin

    async def make_place(self) -> Check:
        admin = self._admin
        name = admin.bucket
        if await self._exists():
            return Check("bucket", Outcome.OK, f"{name} is there", required=True)
        if self._options.check:
            return Check("bucket", Outcome.MISSING, f"there is no bucket {name} at {admin.endpoint}", required=True)
        self._created = await admin.create()
        return Check("bucket", Outcome.DONE, f"{name} created in {admin.region}", required=True)

    async def settings(self) -> list[Check]:
        admin = self._admin
        apply = self._created or self._options.apply_settings
        checks = await admin.settings(self._options, apply=apply)
        return [*checks, await admin.retention()]

    async def health(self) -> list[Check]:
        admin = self._admin
        root = f"/{admin.root}" if admin.root else ""
        return [
            await _health("2.5", health.s3_list_root(admin.list_objects, root), self._options),
            await _health("2.6", health.s3_stat_root(admin.list_objects, root), self._options),
        ]


class _Folder(_Store):
    def __init__(self, storage: Storage, options: SeedOptions, root: Path) -> None:
        super().__init__(storage, options)
        self._root = root

    async def make_place(self) -> Check:
        root = self._root

        def make() -> bool:
            try:
                if root.is_dir():
                    return False
                root.mkdir(parents=True)
            except OSError as error:
                raise StorageError(f"the folder {root} can't be made: {error.strerror}") from error
            return True

        if self._options.check:
            if not await asyncio.to_thread(root.is_dir):
                return Check("folder", Outcome.MISSING, f"there is no folder {root}", required=True)
            return Check("folder", Outcome.OK, f"{root} is there", required=True)
        if await asyncio.to_thread(make):
            return Check("folder", Outcome.DONE, f"{root} made", required=True)
        return Check("folder", Outcome.OK, f"{root} is there", required=True)

    async def permissions(self) -> list[Check]:
        if self._options.check:
            return await super().permissions()
        state = self._root / layout.STATE
        was_there = await asyncio.to_thread(state.exists)
        try:
            return await super().permissions()
        finally:
            if not was_there:
                await asyncio.to_thread(_remove_if_empty, state)

    async def health(self) -> list[Check]:
        return [
            await _health("2.5", asyncio.to_thread(health.disk_list_root, self._root), self._options),
            await _health("2.6", asyncio.to_thread(health.disk_stat_root, self._root), self._options),
        ]


async def _health(version: str, asked: Awaitable[health.Verdict], options: SeedOptions) -> Check:
    """While checking, an unhealthy store is one that still has to be seeded."""
    try:
        verdict = await asked
    except RegstoreError as error:
        denied = Outcome.DENIED if isinstance(error, AccessDenied) else Outcome.FAILED
        return Check(f"health {version}", denied, str(error), required=True)
    bad = Outcome.MISSING if options.check else Outcome.FAILED
    return Check(f"health {version}", Outcome.OK if verdict.passes else bad, verdict.why, required=True)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        pass  # somebody else's state is in it
