"""The check against servers in this process: what differs from Distribution 2.8, what stands before a registry, and
what is no registry at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from regstore.deployment.check import CheckLine, CheckOptions, CheckResult, Outcome, check
from regstore.deployment.check.place import Place
from regstore.deployment.check.reaching import is_here
from regstore.deployment.check.tiny import is_left_over, make_image
from regstore.errors import InputError
from regstore.events import Event, Notice
from regstore.hosts import is_loopback
from tests.deployment.fake_registry import FakeRegistry, served

PROBE = "regstore-check/probe"


async def asked(registry: FakeRegistry, **more: object) -> CheckResult:
    async with served(registry):
        return await check(CheckOptions(url=registry.url, **{"timeout": 5.0, **more}))  # type: ignore[arg-type]


def line(result: CheckResult, name: str, outcome: Outcome = Outcome.FAIL) -> CheckLine:
    found = result.of(name)
    assert found is not None and found.outcome is outcome, "\n".join(map(str, result.lines))
    assert bool(found.cure) is (outcome in (Outcome.FAIL, Outcome.WARN))
    assert not found.detail.endswith(".") and not found.cure.endswith(".")
    return found


def failed(result: CheckResult) -> list[str]:
    return [line.name for line in result.lines if line.outcome is Outcome.FAIL]


OPEN = ["password needed"]  # what these registries are red for, all of them


@pytest.mark.parametrize("tags_stay", [False, True])
@pytest.mark.parametrize("relative", [False, True])
async def test_deletion_and_locations_of_other_versions(tags_stay: bool, relative: bool) -> None:
    registry = FakeRegistry(tags_stay=tags_stay, relative=relative)
    result = await asked(registry)
    assert failed(result) == OPEN
    line(result, "removal", Outcome.OK)
    assert registry.tags == {} and registry.uploads == {} and len(registry.blobs) == 2


async def test_a_tag_that_can_not_be_removed_is_named() -> None:
    registry = FakeRegistry(deletes=False)
    removal = line(await asked(registry), "removal", Outcome.WARN)
    (tag,) = registry.tags
    assert f"{PROBE}:{tag} stays" in removal.detail and f"{PROBE}:{tag}" in removal.cure

    def shrug(request: web.Request, answer: web.Response) -> web.Response | None:
        return web.Response(status=202) if request.method == "DELETE" else None

    registry = FakeRegistry(edit=shrug, deletes=False)
    removal = line(await asked(registry), "removal")
    assert "stays, though it was deleted" in removal.detail


async def test_blobs_elsewhere_are_followed_without_the_password() -> None:
    seen: list[str | None] = []

    def note(request: web.Request, answer: web.Response) -> web.Response | None:
        seen.append(request.headers.get("Authorization"))
        name = request.path.rpartition("/")[2]
        return web.Response(body=registry.blobs[name]) if name in registry.blobs else answer

    async with served(FakeRegistry(edit=note)) as bucket:
        registry = FakeRegistry(redirect=f"{bucket.url}/bucket", edit=_wants_password)
        result = await asked(registry, user="ann", password="ü:x")
        assert failed(result) == [] and result.exit_code == 0
    assert seen == [None, None]
    registry = FakeRegistry(redirect=f"{bucket.url}/bucket")
    pull = line(await asked(registry), "pull")
    assert f"sends clients to {bucket.url} for blobs" in pull.detail and "redirect.disable" in pull.cure


def _wants_password(request: web.Request, answer: web.Response) -> web.Response | None:
    if request.headers.get("Authorization") == "Basic YW5uOsO8Ong=":
        return None
    return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})


async def test_uploads_that_are_sent_elsewhere() -> None:
    """A proxy that ends TLS and does not say so."""

    def other(request: web.Request, answer: web.Response) -> web.Response | None:
        if "Location" in answer.headers:
            answer.headers["Location"] = "https://inside.example.org/v2/x/blobs/uploads/u0"
        return None

    result = await asked(FakeRegistry(edit=other))
    push = line(result, "push")
    assert "sends uploads to https://inside.example.org, and it was asked at http://127.0.0.1" in push.detail
    assert "X-Forwarded-Proto" in push.cure
    line(result, "pull", Outcome.NOT_TRIED)


@pytest.mark.parametrize(
    "where", ["GET /v2/", "PUT /v2/regstore-check/probe/blobs", "GET /v2/regstore-check", "GET /v2/_cat"]
)
async def test_a_page_of_html(where: str) -> None:
    def page(request: web.Request, answer: web.Response) -> web.Response | None:
        if f"{request.method} {request.path}" == where or (
            len(where) > 8 and f"{request.method} {request.path}".startswith(where)
        ):
            return web.Response(
                text="<html><title>502 Bad\nGateway</title></html>", content_type="text/html", status=502
            )
        return None

    result = await asked(FakeRegistry(edit=page))
    name = {"GET /v2/": "registry", "PUT": "push", "GET /v2/_cat": "catalogue"}.get(where, "pull")
    name = "push" if where.startswith("PUT") else name
    found = line(result, name)
    assert "a page of HTML, '502 Bad Gateway'" in found.detail and "/v2/" in found.cure


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: web.Response(text="<!DOCTYPE html>hello"), "a page of HTML"),
        (lambda: web.Response(text="It works!"), "words that are no registry's"),
        (lambda: web.Response(status=401), "which no registry answers"),
        (lambda: web.Response(status=404), "answered 404"),
        (lambda: web.Response(status=301, headers={"Location": "/login"}), "answered 301"),
        (lambda: web.Response(status=429), "answered 429"),
    ],
)
async def test_what_is_no_registry(answer: Callable[[], web.Response], words: str) -> None:
    def say(request: web.Request, _: web.Response) -> web.Response | None:
        return answer()

    result = await asked(FakeRegistry(edit=say), user="ann", password="x")
    assert words in line(result, "registry").detail
    assert failed(result) == ["registry"]
    for name in ("password needed", "password accepted", "push", "catalogue", "removal"):
        line(result, name, Outcome.NOT_TRIED)


async def test_any_password_and_a_token() -> None:
    def any_password(request: web.Request, answer: web.Response) -> web.Response | None:
        if "Authorization" in request.headers:
            return None
        return web.Response(status=401, headers={"WWW-Authenticate": "Basic realm=x"})

    result = await asked(FakeRegistry(edit=any_password), user="ann", password="x")
    assert "any password is accepted" in line(result, "wrong password").detail
    assert failed(result) == ["wrong password"]

    def token(request: web.Request, answer: web.Response) -> web.Response | None:
        return web.Response(status=401, headers={"WWW-Authenticate": 'Bearer realm="https://auth.example.org"'})

    result = await asked(FakeRegistry(edit=token), user="ann", password="x")
    assert "wants 'bearer' credentials" in line(result, "password accepted", Outcome.NOT_TRIED).detail
    assert result.exit_code == 3


async def test_what_comes_back_is_compared() -> None:
    def other(request: web.Request, answer: web.Response) -> web.Response | None:
        if request.method == "GET" and "/blobs/" in request.path and answer.status == 200:
            return web.Response(body=bytes(answer.body)[:-1] + b"!")  # type: ignore[arg-type]
        return None

    registry = FakeRegistry(edit=other)
    result = await asked(registry)
    assert "other than were pushed" in line(result, "pull").detail
    line(result, "removal", Outcome.OK)
    assert registry.tags == {}


async def test_a_push_that_fails_on_its_way_is_tidied_up() -> None:
    def broken(request: web.Request, answer: web.Response) -> web.Response | None:
        if request.method == "PATCH":
            return web.json_response(
                {
                    "errors": [
                        {"code": "UNKNOWN", "message": "unknown error", "detail": {"DriverName": "filesystem"}}
                    ]
                },
                status=500,
            )
        return None

    registry = FakeRegistry(edit=broken)
    result = await asked(registry)
    assert "the registry's filesystem storage failed" in line(result, "push").detail
    assert "blobs of" in line(result, "removal", Outcome.NOT_TRIED).detail
    assert registry.uploads == {} and registry.tags == {}


BAD = [
    "http://[",
    "//",
    "file:///etc/passwd",
    "http://a:b@c/",
    "http://x:99999/",
    "\x7f",
    "javascript:1",
    "/" * 9000,
]


@pytest.mark.parametrize("location", BAD)
async def test_a_location_that_is_none(location: str) -> None:
    def lead(request: web.Request, answer: web.Response) -> web.Response | None:
        if request.method == "POST":
            answer.headers["Location"] = location
        return None

    registry = FakeRegistry(edit=lead)
    result = await asked(registry)
    line(result, "push")
    line(result, "removal", Outcome.NOT_TRIED)

    def astray(request: web.Request, answer: web.Response) -> web.Response | None:
        if request.method == "GET" and "/blobs/" in request.path:
            return web.Response(status=307, headers={"Location": location})
        return None

    registry = FakeRegistry(edit=astray)
    result = await asked(registry)
    line(result, "pull")
    assert registry.tags == {}


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        '{"errors":' + "[" * 5_000 + "]" * 5_000 + "}",
        '{"errors":[{"code":1,"message":{},"detail":' + '{"a":' * 900 + "1" + "}" * 900 + "}]}",
        '{"errors":{}}',
        '{"errors":[null,1]}',
        '{"repositories":1,"tags":1}',
        "\x1b[2J" * 100_000,
        "null",
    ],
)
@pytest.mark.parametrize("path", ["/v2/_catalog", "/tags/list", "/uploads/", "/v2/"])
async def test_answers_that_are_odd(body: str, path: str) -> None:
    """Each is a line that fails, short, and with nothing in it that a terminal would obey."""

    def odd(request: web.Request, answer: web.Response) -> web.Response | None:
        if request.path.endswith(path):
            return web.Response(text=body, content_type="application/json", status=500 if "errors" in body else 200)
        return None

    async with served(FakeRegistry(edit=lambda *_: web.Response(text=body, status=503))) as debug:
        registry = FakeRegistry(edit=odd)
        result = await asked(registry, health_url=debug.url)
    assert len(failed(result)) >= 2 and registry.tags == {}
    assert all(len(each.detail) < 700 and each.detail.isprintable() for each in result.lines)


@pytest.mark.parametrize("where", ["PATCH", f"PUT /v2/{PROBE}/manifests", f"GET /v2/{PROBE}/blobs", "DELETE"])
async def test_interrupted_it_tidies_up(where: str) -> None:
    registry = FakeRegistry(hang_at=where)
    said: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, Notice):
            said.append(event.message)

    async with served(registry):
        work = asyncio.create_task(check(CheckOptions(url=registry.url, timeout=5), on_event=note))
        await asyncio.wait_for(registry.hung.wait(), 5)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    assert registry.uploads == {} and registry.tags == {}
    assert said == ["interrupted: what was pushed is removed again"]


async def test_interrupted_it_says_what_stays() -> None:
    registry = FakeRegistry(hang_at=f"GET /v2/{PROBE}/tags", deletes=False)
    said: list[Event] = []
    async with served(registry):
        work = asyncio.create_task(check(CheckOptions(url=registry.url, timeout=5), on_event=said.append))
        await asyncio.wait_for(registry.hung.wait(), 5)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    (tag,) = registry.tags
    assert said[-1] == Notice(message=f"{PROBE}:{tag} stays: `regstore rm STORE {PROBE}:{tag}` removes it")


# -- servers that say nothing


@asynccontextmanager
async def raw(handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]):  # type: ignore[no-untyped-def]
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handle(reader, writer)
        except (asyncio.CancelledError, OSError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(bytes(65536))
        await writer.drain()


async def hanging_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


@pytest.mark.parametrize(
    ("server", "url", "name", "words"),
    [
        (silent, "https://", "TLS", "does not begin to speak TLS within 0.3 s"),
        (silent, "http://", "TLS", "no answer in HTTP within 0.3 s"),
        (dripping, "http://", "registry", "GET /v2/ was not answered within 0.3 s"),
        (endless, "http://", "registry", "the answer has no end"),
        (hanging_up, "https://", "TLS", "no TLS can be agreed on"),
        (hanging_up, "http://", "TLS", "no answer in HTTP"),
    ],
)
async def test_a_server_that_never_answers(
    server: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], url: str, name: str, words: str
) -> None:
    async with raw(server) as address:
        result = await check(CheckOptions(url=url + address, timeout=0.3 if "within" in words else 20))
    assert words in line(result, name).detail
    assert failed(result) == [name]


async def test_a_name_that_resolves_to_nothing() -> None:
    result = await check(CheckOptions(url="registry.invalid:5000", timeout=5))
    assert "registry.invalid resolves to no address" in line(result, "name").detail
    assert failed(result) == ["name"] and result.exit_code == 1


async def test_a_debug_server_that_is_none(tmp_path: Path) -> None:
    """The API tells instead, and it is said so."""
    async with raw(hanging_up) as address:
        result = await asked(FakeRegistry(), health_url=f"http://{address}")
        assert "can't be reached from here" in line(result, "storage health", Outcome.OK).detail
    registry = FakeRegistry()
    async with served(FakeRegistry(edit=lambda *_: web.Response(text="hello"))) as other:
        assert "answered 200" in line(await asked(registry, health_url=other.url), "storage health").detail


async def test_a_health_check_that_is_switched_off_is_no_green() -> None:
    result = await asked(FakeRegistry(), health_checked=False)
    assert "switched off" in line(result, "storage health", Outcome.WARN).detail
    result = await check(CheckOptions(url="http://127.0.0.1:9", health_checked=False))
    line(result, "storage health", Outcome.NOT_TRIED)


async def test_serve_beside_it() -> None:
    async with served(FakeRegistry()) as open_to_all:
        registry = FakeRegistry(edit=_wants_password)
        result = await asked(registry, user="ann", password="ü:x", serve_url=open_to_all.url)
        assert line(result, "serve").detail == "it asks nobody for a password"
        result = await asked(FakeRegistry(edit=_wants_password), serve_url=open_to_all.url)
        assert line(result, "serve").detail == "it asks nobody for a password"  # nor does it need one to be seen
    async with served(FakeRegistry(edit=_wants_password)) as guarded:
        registry = FakeRegistry(edit=_wants_password)
        result = await asked(registry, user="ann", password="ü:x", serve_url=guarded.url)
        assert "with the same password" in line(result, "serve", Outcome.OK).detail
        assert result.exit_code == 0


# -- words


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://Registry.Example.org", Place("https", "registry.example.org", 443)),
        ("registry.example.org:5000", Place("https", "registry.example.org", 5000)),
        ("http://[2001:DB8::1]:80/", Place("http", "2001:db8::1", 80)),
        ("https://bücher.example", Place("https", "xn--bcher-kva.example", 443)),
    ],
)
def test_addresses(url: str, place: Place) -> None:
    assert Place.of(url) == place
    assert Place.of(place.origin) == place


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"url": "ftp://host"}, "neither https:// nor http://"),
        ({"url": "https://host/registry"}, "more than a host and a port"),
        ({"url": "https://ann:secret@host"}, "no user and no password"),
        ({"url": "https://host:99999"}, "names no host"),
        ({"url": ""}, "names no host"),
        ({"user": "ann"}, "belong together"),
        ({"user": "a:b", "password": "x"}, "colon"),
        ({"timeout": 0}, "time-out"),
        ({"ca": Path("/nowhere")}, "can't be read as PEM certificates: No such file"),
        ({"ca": Path(__file__)}, "there are none in it"),
    ],
)
def test_options_that_can_not_be(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        CheckOptions(**{"url": "https://host", **change})  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(CheckOptions(url="https://host", user="ann", password="secret"))


def test_images_are_nobody_elses_and_tags_tell_their_time() -> None:
    now = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
    one, two = make_image(now), make_image(now)
    assert one.digest != two.digest and one.layer != two.layer and one.config != two.config and one.tag != two.tag
    assert not is_left_over(one.tag, now + timedelta(minutes=59))
    assert is_left_over(one.tag, now + timedelta(minutes=61))
    assert not is_left_over("check-latest", now)


def test_which_addresses_are_this_computers() -> None:
    assert is_here("127.0.0.1") and not is_here("192.0.2.1") and not is_here("2001:db8::1")
    assert is_loopback("localhost") and is_loopback("::1") and not is_loopback("192.0.2.1")
