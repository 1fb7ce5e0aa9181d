"""The pages, without a browser: what they show, in what order, and that nothing of a store gets through unescaped."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from regstore.backup.as_store import SnapshotStorage
from regstore.digest import Digest
from regstore.errors import StorageError, Unreachable
from regstore.inventory.scan import ScanOptions
from regstore.manifest import parse_manifest
from regstore.registry import Registry, StoredManifest
from regstore.serve.attachment import CONTENT_MAX, decode
from regstore.serve.contents import read_attachments
from regstore.serve.garbage import plan_plain
from regstore.serve.image import dockerfile_line, parse_config
from regstore.serve.index import Index
from regstore.serve.listing import tag_filter
from regstore.serve.mounts import open_mounts
from regstore.serve.opening import PageOptions, open_pages
from regstore.serve.rendering import static_files, templates
from regstore.serve.report import make_report
from regstore.serve.server import ServeOptions, make_application, serving, url_of
from regstore.serve.treemap import HEIGHT, WIDTH, Area, treemap
from regstore.storage.base import Storage
from regstore.words import size
from tests.backup.places import memory, take
from tests.model.memory import ModelStorage
from tests.registry.stores import push
from tests.serve.served import Answer, Served
from tests.servers import images

SCANNING = ScanOptions(cache_dir=None, concurrency=4)
SHARED = images.layers("shared", 2)
APP = images.image("app", parts=[*SHARED, images.layer("own", 5000)])
OTHER = images.image("other", parts=[*SHARED])
MULTI = images.multiarch("pages")
SBOM = images.referrer(APP, "sbom")


@asynccontextmanager
async def pages_of(storage: Storage, snapshot: str = "", **options: Any) -> AsyncIterator[Served]:
    import aiohttp

    mounts = await open_mounts(storage, snapshot)
    chosen = ServeOptions(port=0)
    async with open_pages(mounts, storage.url, PageOptions(**({"scanning": SCANNING} | options))) as pages:
        application = make_application(mounts, chosen, pages=pages)
        async with serving(application, chosen) as addresses, aiohttp.ClientSession() as session:
            yield Served(url_of(chosen, addresses[0]), session)


async def look(client: Served, path: str) -> Answer:
    """The page, once the index that it is made from is there."""
    async with asyncio.timeout(60):
        while True:
            answer = await client.ask(path)
            if b"is being listed" not in answer.body:
                return answer
            await asyncio.sleep(0.02)


def words(answer: Answer) -> str:
    """What a reader reads of its content, spaces as one."""
    body = answer.body.decode().replace("<wbr>", "")
    content = body[body.index("<main") : body.index("</main>")]
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", content))).strip()


def rows(answer: Answer) -> list[list[str]]:
    """The cells of every row of the tables but their headings."""
    body = answer.body.decode().replace("<wbr>", "")
    found = []
    for table in re.findall(r"<tbody>(.*?)</tbody>", body, re.DOTALL):
        for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL):
            cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
            found.append(
                [html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", cell)).strip()) for cell in cells]
            )
    return found


async def fill(storage: Storage) -> None:
    registry = Registry(storage)
    app = registry.repository("team/app")
    await push(app, APP, "1.0")
    await push(app, MULTI, "multi")
    await push(app, SBOM)
    tag, signature = images.cosign(APP)
    await push(app, signature, tag)
    await push(registry.repository("team/other"), OTHER, "x")
    await push(registry.repository("base"), images.image("base", parts=1), "latest")


@pytest.fixture
async def client() -> AsyncIterator[Served]:
    storage = memory()
    await fill(storage)
    async with pages_of(storage) as client:
        yield client


async def test_repositories_are_a_tree(client: Served) -> None:
    answer = await look(client, "/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert [row[0] for row in rows(answer)] == ["base", "team/ 2 repositories"]
    below = await look(client, "/?path=team/")
    assert [row[0] for row in rows(below)] == ["app", "other"]
    assert (await look(client, "/?path=team")).body == below.body
    found = await look(client, "/?q=OTH")
    assert [row[0] for row in rows(found)] == ["team/other"]
    assert "No repository's name contains" in words(await look(client, "/?q=nothing"))


async def test_repositories_sort_by_every_column(client: Served) -> None:
    sizes = [row[0] for row in rows(await look(client, "/?q=a&sort=-size"))]
    assert sizes == sorted(sizes, key=["team/app", "team/other", "base"].index)[: len(sizes)]
    for column in ("name", "tags", "size", "own", "pushed"):
        up = [row[0] for row in rows(await look(client, f"/?q=team&sort={column}"))]
        down = [row[0] for row in rows(await look(client, f"/?q=team&sort=-{column}"))]
        assert sorted(up) == sorted(down) == ["team/app", "team/other"]
    assert rows(await look(client, "/?sort=nonsense&page=x&page=-3")) == rows(await look(client, "/"))


async def test_a_repository_shows_its_tags_and_folds_those_that_name_a_digest(client: Served) -> None:
    answer = await look(client, "/repositories/team/app")
    assert [row[0].split()[0] for row in rows(answer)] == ["1.0", "multi"]
    first = rows(answer)[0][0]
    assert "signature" in first
    assert "SBOM" in first or "sbom" in first
    assert rows(answer)[1][3] == "multi-platform"
    by_digest = await look(client, f"/repositories/team/app?q={MULTI.digest[7:15]}")
    assert [row[0].split()[0] for row in rows(by_digest)] == ["multi"]
    missing = await look(client, "/repositories/none")
    assert (missing.status, "There is no repository none" in words(missing)) == (404, True)


async def test_many_tags_come_page_by_page() -> None:
    storage = memory()
    repository = Registry(storage).repository("many")
    await push(repository, APP, "t000")
    for number in range(1, 250):
        await repository.tags.set(f"t{number:03}", APP.digest)
    async with pages_of(storage) as client:
        seen = []
        path = "/repositories/many"
        while path:
            answer = await look(client, path)
            seen += [row[0] for row in rows(answer)]
            link = re.search(r'rel="next" href="([^"]+)"', answer.body.decode())
            path = html.unescape(link[1]) if link else ""
        assert seen == [f"t{number:03}" for number in range(250)]
        last = await look(client, "/repositories/many?sort=-name&page=3")
        assert [row[0] for row in rows(last)] == [f"t{number:03}" for number in range(49, -1, -1)]
        assert "page 3 of 3" in words(last)


async def test_an_image_in_full(client: Served) -> None:
    answer = await look(client, f"/images/team/app@{APP.digest}?tag=1.0")
    said = words(answer)
    assert f"docker pull 127.0.0.1:{client.port}/team/app:1.0" in said
    assert f"docker pull 127.0.0.1:{client.port}/team/app@{APP.digest}" in said
    assert f"Size {size(sum(map(len, APP.closure().values())))}" in said
    layers = [row for row in rows(answer) if row[0].startswith("sha256:")]
    assert [row[2] for row in layers] == ["2 repositories", "2 repositories", "this repository only"]
    assert "signature" in said
    index = await look(client, f"/images/team/app@{MULTI.digest}")
    assert [row[0] for row in rows(index)] == ["linux/amd64", "linux/arm64"]
    assert "multi-platform" in words(index)
    by_tag = await client.ask("/images/team/app:1.0")
    assert (by_tag.status, by_tag.headers["Location"]) == (302, f"/images/team/app@{APP.digest}?tag=1.0")
    signature = await look(client, f"/images/team/app@{SBOM.digest}")
    assert "Belongs to" in words(signature)


async def test_what_is_not_there_is_a_page_that_says_so(client: Served) -> None:
    await look(client, "/")
    for path in (
        f"/images/team/app@sha256:{'0' * 64}",
        "/images/team/app@sha256:abc",
        "/images/team/app:none",
        "/images/none:none",
        f"/blobs/sha256:{'0' * 64}",
        "/blobs/nonsense",
        "/repositories/" + "x" * 400,
    ):
        answer = await client.ask(path)
        assert (path, answer.status) == (path, 404)
        assert words(answer)


async def test_search_finds_repositories_tags_and_digests(client: Served) -> None:
    assert "team/app" in words(await look(client, "/search?q=app"))
    assert "team/app:multi" in words(await look(client, "/search?q=mult"))
    found = words(await look(client, f"/search?q={APP.digest[7:14].upper()}"))
    assert APP.digest in found
    assert APP.digest in words(await look(client, f"/search?q={APP.digest[:20]}"))
    assert "Nothing found" in words(await look(client, "/search?q=zzz"))
    assert (await look(client, "/search")).status == 200


async def test_a_blob_says_who_uses_it_and_why_it_is_kept(client: Served) -> None:
    said = words(await look(client, f"/blobs/{SHARED[0].digest}"))
    assert "used by 2 repositories" in said
    assert "team/app:1.0" in said
    assert "team/other" in said
    why = words(await look(client, f"/why/{SHARED[0].digest}"))
    assert "team/app" in why
    assert SHARED[0].digest in why


async def test_space_adds_up(client: Served) -> None:
    answer = await look(client, "/space")
    assert rows(answer)[0][0] == "team/app"
    assert answer.body.count(b'<rect class="edge"') == 3


async def test_garbage_and_a_policy_that_is_tried() -> None:
    storage = memory()
    repository = Registry(storage).repository("team/app")
    for number in range(4):
        await push(repository, images.image(f"g{number}", parts=1), f"v{number}")
    await Registry(storage).repository("team/app").blobs.put(b"orphan")
    before = storage.store.bodies()
    async with pages_of(storage) as client:
        assert "Would be free" in words(await look(client, "/garbage"))
        policy = '[[rule]]\nrepositories = ["team/*"]\nkeep_newest = 2\nkeep = ["rc-*"]\n'
        async with client.session.post(f"{client.url}/garbage", data={"policy": policy}) as response:
            assert response.status == 200
            body = await response.text()
        assert "keep_newest" in body
        assert "keep: rc-* matches no tag" in body
        async with client.session.post(f"{client.url}/garbage", data={"policy": "nonsense = 1"}) as response:
            assert response.status == 200
            assert 'role="alert"' in await response.text()
        async with client.session.post(f"{client.url}/garbage", data={"policy": "x" * 100_000}) as response:
            assert response.status == 413
    assert storage.store.bodies() == before, "looking changed the store"


async def test_health_and_metrics(client: Served) -> None:
    await look(client, "/")
    assert "reachable" in words(await look(client, "/health"))
    text = (await client.ask("/metrics")).body.decode()
    figures = dict(re.findall(r"^(regstore_[a-z_]+) (\S+)$", text, re.MULTILINE))
    assert (figures["regstore_repositories"], figures["regstore_tags"]) == ("3", "4")
    assert figures["regstore_index_up"] == "1"
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) \S+ .+|regstore_[a-z_]+(\{([a-z]+="[^"\n]*",?)+\})? [0-9.e+]+', line), (
            line
        )
    assert 'regstore_http_requests_total{method="GET",status="200"}' in text


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\x1b[31mred\x1b[0m",
    "line\nbreak\r\nX-Header: 1",
    "\u202egnp.exe",
    "{{ 7 * 7 }}",
    "javascript:alert(1)",
)


async def test_a_hostile_store_gets_nothing_through() -> None:
    storage = memory()
    labels = {text: text for text in HOSTILE}
    layer = images.layer("h")
    config = images.Blob(
        __import__("json")
        .dumps(
            {
                "architecture": HOSTILE[0],
                "os": HOSTILE[1],
                "created": HOSTILE[2],
                "author": HOSTILE[0],
                "config": {
                    "Env": list(HOSTILE),
                    "Cmd": list(HOSTILE),
                    "Entrypoint": HOSTILE[0],
                    "Labels": labels,
                    "User": HOSTILE[0],
                    "ExposedPorts": {HOSTILE[0]: {}},
                    "Volumes": {HOSTILE[1]: {}},
                },
                "history": [{"created_by": text, "created": text} for text in HOSTILE],
            }
        )
        .encode(),
        images.OCI_CONFIG,
    )
    document = {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "artifactType": HOSTILE[0],
        "config": config.descriptor(),
        "layers": [layer.descriptor() | {"mediaType": HOSTILE[1]}],
        "annotations": labels,
    }
    hostile = images.Document(json.dumps(document).encode(), images.OCI_MANIFEST, blobs=(config, layer))
    repository = Registry(storage).repository("team/app")
    await push(repository, hostile, "x")
    # A store may hold names that no registry takes.
    odd = "docker/registry/v2/repositories/<script>alert(2)<|script>\x1b/_manifests/tags/x/current/link"
    await storage.put(odd, hostile.digest.encode())
    async with pages_of(storage) as client:
        for path in (
            "/",
            "/?q=" + quote("<script>alert(3)</script>"),
            "/?path=" + quote('"><script>alert(3)</script>'),
            "/search?q=" + quote("<script>alert(4)</script>"),
            "/repositories/team/app",
            "/repositories/team/app?q=" + quote('"><script>'),
            "/repositories/" + quote("<script>alert(2)<|script>\x1b"),
            f"/images/team/app@{hostile.digest}?tag=" + quote("<script>alert(5)</script>"),
            f"/images/team/app@{hostile.digest}",
            "/garbage?policy=" + quote("<script>"),
            "/space",
            f"/blobs/{layer.digest}",
        ):
            answer = await look(client, path)
            body = answer.body.decode()
            assert answer.status in (200, 404), path
            assert "<script>alert" not in body, path
            assert "<img" not in body, path
            assert re.findall(r"<script[^>]*>", body) == ['<script src="/static/copy.js" defer>'], path
            for tag in re.findall(r"<[a-z][^>]*>", re.sub(r'"[^"]*"', '""', body)):
                assert not re.search(r"\son\w+=|style=", tag), (path, tag)
            assert "\x1b" not in body, path
            assert "\u202e" not in body, path
            assert not re.search(r'(?:href|src|action)="(?!/|#|\?)', body), path


async def test_the_store_goes_away_and_comes_back() -> None:
    class Going(ModelStorage):
        gone: StorageError | None = None

        async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Any]:
            if self.gone is not None:
                raise self.gone
            async for page in super().list(prefix, start_after=start_after):
                yield page

    model = memory()
    await fill(model)
    storage = Going(model.store, now=await model.now())
    index = Index(storage=storage, scanning=SCANNING, refresh=0.05, after=plan_plain)
    async with index.kept(), index.view() as first:
        storage.gone = Unreachable("nobody answers")
        async with asyncio.timeout(30):
            while not index.failure:
                await asyncio.sleep(0.01)
            assert (await first.rows("totals"))[0][0] == 3, "what was there is shown"
            storage.gone = None
            while index.failure:
                await asyncio.sleep(0.01)
        async with index.view() as second:
            assert second is not first
            assert (await second.rows("totals"))[0][0] == 3
        assert (await first.rows("totals"))[0][0] == 3, "who looks at the old one still can"


async def test_a_backup_has_pages_for_every_snapshot() -> None:
    source, backup = memory(), memory()
    await fill(source)
    first = (await take(source, backup)).snapshot.run.lower()
    await Registry(source).repository("team/app").tags.set("1.0", MULTI.digest)
    second = (await take(source, backup)).snapshot.run.lower()
    async with pages_of(backup) as client:
        listed = await look(client, "/")
        assert [row[1] for row in rows(listed)] == [second, first]
        assert [row[0] for row in rows(await look(client, f"/at/{first}/"))] == ["base", "team/ 2 repositories"]
        assert (await look(client, "/at/latest/")).status == 200
        past = await look(client, "/tags/team/app:1.0")
        assert [row[1] for row in rows(past)] == [MULTI.digest, APP.digest]
        image = words(await look(client, f"/at/{first}/images/team/app@{APP.digest}?tag=1.0"))
        assert f"docker pull 127.0.0.1:{client.port}/{first}/team/app:1.0" in image
        for path in ("/at/none/", "/tags/team/app:none", f"/at/{first}/health"):
            assert (await look(client, path)).status == 404
    async with pages_of(backup, first) as client:
        assert [row[0] for row in rows(await look(client, "/"))] == ["base", "team/ 2 repositories"]


@pytest.mark.parametrize(
    ("created_by", "line"),
    [
        ('/bin/sh -c #(nop)  CMD ["sh"]', 'CMD ["sh"]'),
        ("/bin/sh -c apt-get update", "RUN apt-get update"),
        ("RUN /bin/sh -c make # buildkit", "RUN make"),
        ("COPY /app /app # buildkit", "COPY /app /app"),
        ("|1 VERSION=3 /bin/sh -c make", "RUN make"),
        ("bazel build ...", "RUN bazel build ..."),
        ("ENV A=b", "ENV A=b"),
        ("", ""),
    ],
)
def test_history_as_lines_of_a_dockerfile(created_by: str, line: str) -> None:
    assert dockerfile_line(created_by) == line


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"nonsense", b'{"config": 3, "history": {"a": 1}}', b'{"history": [1, null, {}]}', b"\xff"]
)
def test_a_config_of_another_shape_raises_nothing(data: bytes) -> None:
    assert parse_config(data, parse_manifest(APP.data)).labels == {}


def test_a_treemap_fills_its_field() -> None:
    areas = [Area(str(number), number * 100, number * 50) for number in range(1, 30)] + [Area("none", 0, 0)]
    placed = treemap(areas)
    assert len(placed) == 29
    assert sum(place.width * place.height for place in placed) == pytest.approx(WIDTH * HEIGHT)
    total = sum(area.total for area in areas)
    for place in placed:
        assert place.width * place.height == pytest.approx(WIDTH * HEIGHT * place.area.total / total)
        assert place.x >= -0.001
        assert place.x + place.width <= WIDTH + 0.001
        assert place.y + place.height <= HEIGHT + 0.001
        assert place.own_width == pytest.approx(place.width * 2 / 3)
    assert treemap([]) == []


def test_everything_that_pages_need_is_in_the_package() -> None:
    environment = templates()
    names = environment.list_templates()
    assert "base.html" in names
    for name in names:
        text = (Path(environment.get_template(name).filename)).read_text()
        for address in re.findall(r'(?:href|src)="/static/([^"]+)"', text):
            assert address in static_files()
        assert "http://" not in text, "a page asks no other origin"
        assert "https://" not in text
        assert "style=" not in text, "the Content-Security-Policy takes none"
        assert "|safe" not in text


class TestReport:
    async def test_it_is_one_file_that_fetches_nothing(self) -> None:
        storage = memory()
        await fill(storage)
        odd = "docker/registry/v2/repositories/<script>alert(1)<|script>/_manifests/tags/x/current/link"
        await storage.put(odd, APP.digest.encode())
        before = storage.store.bodies()
        text = await make_report(storage, SCANNING)
        assert storage.store.bodies() == before
        for name in ("team/app", "team/other", "base"):
            assert name in text
        assert "Would be free" in text
        assert "reachable" in text
        assert "<script" not in text
        assert not re.search(r"<(?:a|img|link|iframe)\b|\b(?:src|href)=", text)
        assert "{{" not in text

    async def test_of_a_snapshot(self) -> None:
        source, backup = memory(), memory()
        await fill(source)
        snapshot = SnapshotStorage(backup, (await take(source, backup)).snapshot)
        text = await make_report(snapshot, SCANNING)
        assert "team/other" in text
        assert "<h2>Health</h2>" not in text


def test_attachments_are_decoded() -> None:
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://slsa.dev/provenance/v1",
        "subject": [{"name": "team/app", "digest": {"sha256": "0" * 64}}],
        "predicate": {"buildType": "x"},
    }
    payload = base64.b64encode(json.dumps(statement).encode()).decode()
    envelope = {"payloadType": "application/vnd.in-toto+json", "payload": payload, "signatures": [{"sig": "x"}]}
    decoded = decode(json.dumps(envelope).encode())
    assert decoded is not None
    assert decoded.what == "signed envelope (DSSE), in-toto statement"
    assert decoded.facts["predicate"] == "https://slsa.dev/provenance/v1"
    assert (decoded.facts["subject"], decoded.facts["signatures"]) == ("team/app", "1")
    assert '"buildType": "x"' in decoded.text
    spdx = decode(json.dumps({"spdxVersion": "SPDX-2.3", "packages": [{}, {}]}).encode())
    assert spdx is not None
    assert (spdx.what, spdx.facts) == ("SBOM (SPDX)", {"version": "SPDX-2.3", "packages": "2"})
    signature = decode(json.dumps({"critical": {"image": {"docker-manifest-digest": "sha256:x"}}}).encode())
    assert signature is not None
    assert (signature.what, signature.facts) == ("cosign signature", {"of": "sha256:x"})


@pytest.mark.parametrize(
    "document",
    [
        [],
        3,
        {"payload": "!", "payloadType": 3},
        {"payload": "bm90anNvbg==", "payloadType": "x", "signatures": {}},
        {"predicateType": [], "subject": {}},
        {"predicateType": "x", "subject": [3]},
        {"critical": {"image": []}},
        {"spdxVersion": "x", "packages": {}},
        {"bomFormat": "CycloneDX", "specVersion": 1},
    ],
)
def test_attachments_of_another_shape_raise_nothing(document: object) -> None:
    decoded = decode(json.dumps(document).encode())
    assert decoded is None or isinstance(decoded.text, str)
    assert decode(b"\xff") is None


async def test_what_is_attached_is_shown_with_its_own_page() -> None:
    storage = memory()
    await fill(storage)
    payload = images.Blob(
        json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.5", "components": [1, 2, 3]}).encode(),
        "application/vnd.cyclonedx+json",
    )
    empty = images.Blob(b"{}", images.OCI_EMPTY)
    document = {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "artifactType": payload.media_type,
        "config": empty.descriptor(),
        "layers": [payload.descriptor()],
        "subject": APP.descriptor(),
    }
    attached = images.Document(json.dumps(document).encode(), images.OCI_MANIFEST, blobs=(empty, payload))
    await push(Registry(storage).repository("team/app"), attached)
    async with pages_of(storage) as client:
        said = words(await look(client, f"/images/team/app@{attached.digest}"))
        assert "SBOM (CycloneDX)" in said
        assert "components 3" in said


async def test_a_backup_tells_monitors_of_its_newest_snapshot() -> None:
    source, backup = memory(), memory()
    await fill(source)
    snapshot = (await take(source, backup)).snapshot
    async with pages_of(backup) as client:
        text = (await client.ask("/metrics")).body.decode()
        assert "regstore_snapshots 1" in text
        assert f"regstore_newest_snapshot_timestamp_seconds {snapshot.begun // 1_000_000}" in text


async def test_tags_are_filtered_by_any_column() -> None:
    storage = memory()
    await fill(storage)
    async with pages_of(storage) as client:

        async def found(words: str) -> list[str]:
            return [
                row[0].split()[0] for row in rows(await look(client, f"/repositories/team/app?q={quote(words)}"))
            ]

        day = (await storage.now() // 86_400_000_000) * 86_400
        today = datetime.fromtimestamp(day, UTC).date()
        assert await found("multi-platform") == ["multi"]
        assert await found("image") == ["1.0", "multi"]
        assert await found("1.0") == ["1.0"]
        assert await found(f"{today:%Y-%m-%d}") == await found(f"{today:%Y-%m}") == ["1.0", "multi"]
        assert await found(f"{today.year - 3}-01") == []
        assert await found(">1B") == ["1.0", "multi"]
        assert await found("> 1.5 GiB") == []
        assert await found("<1MB") == ["1.0", "multi"]


@pytest.mark.parametrize("words", ["", "x", ">", "<1", "2026-13", "2026-02-31", "9999-12", ">99999.9TiB"])
def test_any_words_are_a_filter(words: str) -> None:
    wanted = tag_filter(words)
    assert 0 <= wanted["smallest"] <= 2**63 - 1
    assert -1 <= wanted["largest"] <= 2**63 - 1
    assert wanted["since"] < 2**63


def test_templates_are_compiled_once() -> None:
    assert templates() is templates()


async def test_an_attachment_is_read_to_a_size_whatever_its_manifest_says() -> None:
    """And the page of it can be asked for again."""
    storage = memory()
    content = b'{"bomFormat": "CycloneDX", "x": "' + b"x" * CONTENT_MAX + b'"}'
    payload = images.Blob(content, "application/vnd.cyclonedx+json")
    empty = images.Blob(b"{}", images.OCI_EMPTY)
    document = {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "config": empty.descriptor(),
        "layers": [payload.descriptor() | {"size": 10}],
    }
    repository = Registry(storage).repository("team/app")
    for blob in (empty, payload):
        await repository.blobs.put(blob.data)
    data = json.dumps(document).encode()
    stored = StoredManifest(Digest.of(data), images.OCI_MANIFEST, data, parse_manifest(data))
    before = storage.counters.bytes_read
    for _ in range(2):
        assert await read_attachments(repository, stored) == []
    assert storage.counters.bytes_read - before < CONTENT_MAX
