"""A store that lies, is damaged, or goes away: it costs one answer, not the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from regstore import layout, manifest
from regstore.digest import Digest
from regstore.events import Event
from regstore.registry import Registry
from regstore.serve import index, pages
from regstore.serve.garbage import plan_plain
from regstore.serve.index import Index, IndexClosed, between
from regstore.serve.listing import tag_filter
from tests.backup.places import memory, take
from tests.model.memory import ModelStorage
from tests.registry.stores import push
from tests.serve.served import Served
from tests.serve.test_pages import APP, MULTI, SCANNING, fill, look, pages_of, words
from tests.servers import images

BASE = images.image("base of many", parts=1)


def with_config(config: images.Blob, size: int) -> images.Document:
    layer = images.layer("lies")
    document = {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "config": config.descriptor() | {"size": size},
        "layers": [layer.descriptor()],
    }
    return images.Document(json.dumps(document).encode(), images.OCI_MANIFEST, blobs=(config, layer))


async def put_unasked(storage: ModelStorage, name: str, document: images.Document, tag: str) -> None:
    """What no registry would take."""
    for key, body in images.registry_keys(name, document, tag).items():
        await storage.put(key, body)


async def test_a_config_larger_than_the_manifest_says_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says 10 bytes, and has more than anybody reads into memory."""
    config = images.Blob(json.dumps({"author": "x" * 100_000, "architecture": "amd64"}).encode(), images.OCI_CONFIG)
    document = with_config(config, 10)
    storage = memory()
    await put_unasked(storage, "lies", document, "x")
    monkeypatch.setattr("regstore.serve.contents.CONFIG_MAX", 50_000)
    async with pages_of(storage) as client:
        assert "Platform" not in words(await look(client, f"/images/lies@{document.digest}"))


async def test_no_command_to_copy_holds_a_tag_that_nobody_can_pull() -> None:
    """A store may have a tag `1;reboot`: pasted into a shell it would be run."""
    storage = memory()
    await fill(storage)
    digest = Digest.parse(APP.digest)
    for tag in ("1;reboot", "$(reboot)", "`reboot`"):
        key = layout.encode(layout.TagCurrentKey("team/other", tag))
        await storage.put(key, layout.link_body(digest))
    revision = layout.encode(layout.RevisionLinkKey("team/other", digest))
    await storage.put(revision, layout.link_body(digest))
    async with pages_of(storage) as client:
        for asked in ("1;reboot", "$(reboot)", "none", ""):
            body = (await look(client, f"/images/team/other@{APP.digest}?tag={asked}")).body.decode()
            assert "docker pull" in body
            assert not [line for line in body.splitlines() if "docker pull" in line and "reboot" in line]


class TestAnIndexThatCannotBeMade:
    async def test_is_tried_again_whatever_it_was(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No room in TMPDIR, or a mistake in here."""
        storage = memory()
        await fill(storage)
        told: list[Event] = []
        broken: list[Exception | None] = [OSError(28, "No space left on device: /tmp/secret"), None]
        prepare = index.prepare

        def fails_once(inventory: Any) -> Any:
            error = broken[0]
            if error is not None:
                raise error
            return prepare(inventory)

        monkeypatch.setattr(index, "prepare", fails_once)
        monkeypatch.setattr(index, "_AGAIN", 0.05)
        kept = Index(storage=storage, scanning=SCANNING, refresh=0.05, on_event=told.append, after=plan_plain)
        async with kept.kept(), asyncio.timeout(30):
            while not kept.failure:
                await asyncio.sleep(0.01)
            assert "secret" not in kept.failure, "a page would show it"
            assert "secret" in str(told[-1]), "the log says what it was"
            broken[0] = None
            async with kept.view() as view:
                assert (await view.rows("totals"))[0][0] == 3

    async def test_who_waits_for_one_that_is_closed_is_told(self) -> None:
        """Four snapshots looked at together, three kept: the request for the one that was put away ends."""
        storage = memory()
        await fill(storage)
        kept = Index(storage=storage, scanning=SCANNING, refresh=0)

        async def wait() -> None:
            async with kept.view():
                pass

        async with AsyncExitStack() as stack:
            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0)
            await stack.enter_async_context(kept.kept())
        with pytest.raises(IndexClosed):
            async with asyncio.timeout(5):
                await waiting


async def test_many_snapshots_looked_at_at_once_are_all_answered() -> None:
    source, backup = memory(), memory()
    await fill(source)
    prefixes = []
    for number in range(5):
        await Registry(source).repository("team/app").tags.set(f"n{number}", MULTI.digest)
        prefixes.append((await take(source, backup)).snapshot.run.lower())
    async with pages_of(backup) as client:

        async def browse(client: Served, prefix: str) -> set[int]:
            answers = [await client.ask(f"/at/{prefix}/") for _ in range(4)]
            return {answer.status for answer in answers}

        async with asyncio.timeout(30):
            found = await asyncio.gather(*(browse(client, prefix) for prefix in prefixes * 2))
        assert set().union(*found) <= {200, 503}


class TestQueries:
    """What pages ask of the index, where one thing is used by very many."""

    @pytest.fixture
    async def client(self) -> AsyncIterator[Served]:
        storage = memory()
        registry = Registry(storage)
        for number in range(501):
            await put_unasked(storage, f"r{number:03}", BASE, "x")
        many = registry.repository("r000")
        for number in range(30):
            await many.tags.set(f"t{number}", BASE.digest)
        for number in range(12):
            await push(many, images.referrer(BASE, f"sbom {number}"))
        async with pages_of(storage) as client:
            yield client

    async def test_a_blob_that_many_use_says_how_many(self, client: Served) -> None:
        said = words(await look(client, f"/blobs/{BASE.blobs[0].digest}"))
        assert "used by 501 repositories" in said
        assert "and 1 more" in said
        assert "30 more tags of the same manifest" in said

    async def test_an_image_with_many_things_attached_has_a_few_beside_its_tag(self, client: Served) -> None:
        listed = (await look(client, "/repositories/r000?q=t1")).body.decode()
        row = listed[listed.index(">t1<") :]
        assert row[: row.index("</tr>")].count('class="badge"') == pages._BADGES
        image = (await look(client, f"/images/r000@{BASE.digest}")).body.decode()
        attached = image[image.index('<ul class="attached">') :]
        assert attached[: attached.index("</ul>")].count("<li>") == 12

    async def test_digests_are_found_by_any_beginning(self, client: Served) -> None:
        for length in range(4, 65):
            assert BASE.digest in words(await look(client, f"/search?q={BASE.digest[7 : 7 + length]}"))
        assert "Nothing found" in words(await look(client, f"/search?q={BASE.digest[7:]}0"))


async def test_sizes_count_what_several_images_of_an_index_share_once() -> None:
    """image_size against sets, over indexes of indexes."""
    storage = memory()
    layers = images.layers("sizes", 3)
    one, two = images.image("one", parts=layers[:2]), images.image("two", parts=layers[1:])
    inner = images.index([one, two])
    outer = images.index([inner, one])
    repository = Registry(storage).repository("sizes")
    for tag, document in {"one": one, "two": two, "inner": inner, "outer": outer}.items():
        await push(repository, document, tag)
    await repository.tags.set("again", one.digest)
    kept = Index(storage=storage, scanning=SCANNING)
    await kept.once()
    async with kept.view() as view:
        asked = {"limit": 9, "offset": 0, "repository": 1, **tag_filter(""), **between("")}
        found = {row[0]: row[3] for row in await view.rows("tags", asked, order="name")}
    await kept.close()
    wanted = {
        tag: sum(map(len, document.closure().values()))
        for tag, document in {"one": one, "two": two, "inner": inner, "outer": outer, "again": one}.items()
    }
    assert found == wanted


async def test_a_damaged_manifest_is_not_one_that_is_not_there() -> None:
    storage = memory()
    await fill(storage)
    document = images.Document(b'{"schemaVersion":2,"layers":7}', images.OCI_MANIFEST)
    await put_unasked(storage, "broken", document, "x")
    await storage.put(layout.encode(layout.BlobKey(Digest.parse(APP.digest))), b"{}")
    async with pages_of(storage) as client:
        for path in (f"/images/broken@{document.digest}", f"/images/team/app@{APP.digest}"):
            answer = await look(client, path)
            assert answer.status == 500
            assert "damaged" in words(answer)


async def test_a_large_manifest_is_parsed_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who parses 4 MiB of JSON in the loop lets everybody wait."""
    import threading

    from regstore.registry import manifests

    threads = []
    parse = manifest.parse_manifest

    def note(data: bytes) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return parse(data)

    monkeypatch.setattr(manifests, "parse_manifest", note)
    storage = memory()
    large = images.image("large", parts=1, annotations={"x": "y" * 1_000_000})
    await put_unasked(storage, "large", large, "x")
    await Registry(storage).repository("large").manifests.get("x")
    assert threads == [False]


async def test_a_page_behind_the_end_says_so() -> None:
    storage = memory()
    await fill(storage)
    async with pages_of(storage) as client:
        for path in ("/?page=9", "/repositories/team/app?page=9", "/?q=team&page=9"):
            assert "The list has no page 9" in words(await look(client, path))


async def test_who_comes_before_the_index_is_brought_back_to_where_he_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Index, "ready", False)
    storage = memory()
    await fill(storage)
    async with pages_of(storage) as client:
        answer = await client.ask("/search?q=a%20b&x=1")
        assert answer.headers["Refresh"] == "3"
        assert b'href="/search?q=a%20b&amp;x=1"' in answer.body


async def test_a_tower_of_indexes_costs_no_more_than_its_floors() -> None:
    """Two indexes on each floor, each naming both of the floor below: 2^24 ways lead to the ground."""
    storage = memory()
    floor = [images.image(f"ground {number}", parts=1) for number in range(2)]
    everything = {digest: len(data) for each in floor for digest, data in each.closure().items()}
    for number in range(24):
        floor = [
            images.Document(
                json.dumps(
                    {
                        "schemaVersion": 2,
                        "mediaType": images.OCI_INDEX,
                        "manifests": [child.descriptor() for child in floor],
                        "annotations": {"floor": f"{number} {side}"},
                    }
                ).encode(),
                images.OCI_INDEX,
            )
            for side in "ab"
        ]
        for each in floor:
            everything[each.digest] = len(each.data)
            await put_unasked(storage, "tower", each, "top")
    for number in range(2):
        await put_unasked(storage, "tower", images.image(f"ground {number}", parts=1), f"g{number}")
    kept = Index(storage=storage, scanning=SCANNING)
    async with asyncio.timeout(30):
        await kept.once()
    async with kept.view() as view:
        asked = {"limit": 9, "offset": 0, "repository": 1, **tag_filter("top"), **between("")}
        ((_, _, _, size, *_),) = await view.rows("tags", asked, order="name")
        other = [each for each in everything if each == floor[0].digest]
        assert size == sum(everything.values()) - sum(everything[each] for each in other)
        await plan_plain(view)
    await kept.close()


async def test_tags_that_name_a_digest_are_folded_where_it_is_there_however_they_are_cut() -> None:
    storage = memory()
    await fill(storage)
    long = Digest.parse("sha512:" + "ab" * 64)
    app = Digest.parse(APP.digest)
    links: dict[layout.Key, Digest] = {
        layout.RevisionLinkKey("team/app", long): long,
        layout.TagCurrentKey("team/app", "sha512-" + "ab" * 32): app,
        layout.TagCurrentKey("team/app", "sha512-" + "ab" * 32 + ".sig"): app,
        layout.TagCurrentKey("team/app", "sha512-" + "cd" * 32): app,
        layout.TagCurrentKey("team/app", "sha256-" + "cd" * 32): app,
    }
    for key, digest in links.items():
        await storage.put(layout.encode(key), layout.link_body(digest))
    kept = Index(storage=storage, scanning=SCANNING)
    await kept.once()
    async with kept.view() as view:
        repository = (await view.rows("repository", {"name": "team/app"}))[0][0]
        asked = {"limit": 99, "offset": 0, "repository": repository, **tag_filter("sha"), **between("")}
        listed = [row[0] for row in await view.rows("tags", asked, order="name")]
        assert listed == ["sha256-" + "cd" * 32, "sha512-" + "cd" * 32], (
            "what they name is not there: they stand alone"
        )
        attached = await view.rows("attached", {"repository": repository, "subjects": [long.raw], "limit": 9})
        assert [row[1] for row in attached] == ["sha512-" + "ab" * 32, "sha512-" + "ab" * 32 + ".sig"]
    await kept.close()


class TestLarge:
    async def test_an_index_of_very_many_entries_is_parsed_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One of 100,000 took seconds of each HEAD."""
        from regstore.registry import manifests

        entries = [
            {"mediaType": images.OCI_MANIFEST, "digest": f"sha256:{number:064x}", "size": 1234}
            for number in range(10_000)
        ]
        document = {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": entries}
        index = images.Document(json.dumps(document).encode(), images.OCI_INDEX)
        assert len(index.data) > 1024 * 1024
        storage = memory()
        await put_unasked(storage, "many", index, "x")
        parsed: list[int] = []
        parse = manifest.parse_manifest

        def note(data: bytes) -> Any:
            parsed.append(len(data))
            return parse(data)

        async with pages_of(storage) as client:
            page = words(await look(client, f"/images/many@{index.digest}"))
            assert "and 9,000 more" in page
            monkeypatch.setattr(manifests, "parse_manifest", note)
            for method, body in (("HEAD", b""), ("GET", index.data), ("GET", index.data)):
                for reference in ("x", index.digest):
                    answer = await client.ask(f"/v2/many/manifests/{reference}", method)
                    assert (answer.status, answer.body) == (200, body)
                    assert answer.headers["Content-Length"] == str(len(index.data))
                    assert answer.headers["Content-Type"] == images.OCI_INDEX
            assert parsed == [len(index.data)]
            assert (await client.ask("/v2/many/manifests/x", Accept=images.OCI_MANIFEST)).status == 404
            await storage.delete_many([layout.encode(layout.BlobKey(Digest.parse(index.digest)))])
            for method in ("HEAD", "GET"):
                assert (await client.ask("/v2/many/manifests/x", method)).status == 404

    async def test_a_config_that_is_none_is_not_read(self) -> None:
        config = images.Blob(b" " * 50_000_000, images.OCI_CONFIG)
        storage = memory()
        document = with_config(config, len(config.data))
        await put_unasked(storage, "large", document, "x")
        async with pages_of(storage) as client:
            await look(client, "/")
            before = storage.counters.bytes_read
            assert "application/vnd.oci.image.manifest.v1+json" in words(
                await look(client, f"/images/large@{document.digest}")
            )
            assert storage.counters.bytes_read - before < 100_000
            answer = await client.ask(f"/v2/large/blobs/{config.digest}", Range="bytes=-3")
            assert (answer.status, answer.body) == (206, b"   ")


async def test_odd_paths_of_pages_are_pages_that_say_so() -> None:
    storage = memory()
    await fill(storage)
    async with pages_of(storage) as client:
        await look(client, "/")
        for path in (
            "/repositories/..",
            "/repositories/%2e%2e/%2e%2e/etc/passwd",
            "/repositories/a%2f..%2f..%2fb",
            "/repositories/a%00b",
            f"/images/..%2f..%2fteam/app@{APP.digest}",
            f"/images/a%00b@{APP.digest}",
            "/images/team/app:%00",
            "/images/team/app:..%2f..",
            "/images/team/app@sha256:%00",
            "/blobs/sha256:..%2f..",
            "/why/%00",
            "/static/..%2fpages.py",
            "/static/%2e%2e/pages.py",
            "/static/%00",
            "/?path=%00&sort=%00&page=%00",
            "/search?q=%00%ff",
            "/repositories/%ff%fe",
            "/garbage?policy=%00",
        ):
            answer = await client.ask(path)
            assert answer.status in (200, 400, 404), path
            assert b"Traceback" not in answer.body, path
            assert b"root:" not in answer.body, path
