"""The pages in a real browser: keyboard, search, sort, filter, copy; dark and narrow; without a script; and what an
accessibility checker finds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from regstore.registry import Registry
from regstore.storage.disk import DiskStorage
from tests.cli.conftest import programs
from tests.examples import crossed
from tests.registry.stores import push
from tests.serve.test_pages import HOSTILE, fill
from tests.servers import debian, images
from tests.servers.process import which

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

pytestmark = [
    pytest.mark.servers,
    # The driver leaves its pipes to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

PATHS = (
    "/",
    "/?path=team/",
    "/repositories/team/app",
    "/search?q=app",
    "/space",
    "/garbage",
    "/health",
    "/repositories/none",
)
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def hostile() -> images.Document:
    layer = images.layer("hostile")
    config = images.Blob(
        json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Env": list(HOSTILE), "Labels": {text: text for text in HOSTILE}},
                "history": [{"created_by": text} for text in HOSTILE],
            }
        ).encode(),
        images.OCI_CONFIG,
    )
    document = {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
        "annotations": {text: text for text in HOSTILE},
    }
    return images.Document(json.dumps(document).encode(), images.OCI_MANIFEST, blobs=(config, layer))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    debian.require("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=which("chromium"), args=list(_ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a program that serves one store for all: they look at it only."""
    folder = tmp_path_factory.mktemp("browser") / "store"

    async def make() -> None:
        async with DiskStorage(folder, create=True) as storage:
            await fill(storage)
            registry = Registry(storage)
            await push(registry.repository("hostile"), hostile(), "x")
            many = registry.repository("many")
            await push(many, images.image("many", parts=1), "t000")
            for number in range(1, 230):
                await many.tags.set(f"t{number:03}", images.image("many", parts=1).digest)

    with ThreadPoolExecutor(1) as pool:  # the driver has a loop in this thread
        pool.submit(asyncio.run, make()).result()
    with programs() as start:
        process = start("serve", folder, "--listen", "127.0.0.1:0", "--json")
        assert process.stdout is not None
        text = ""
        while not text.rstrip().endswith("}"):
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            text += line
        yield json.loads(text)["result"]["urls"][0]


class Watched:
    """A page of a context, and all that goes wrong in it."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.url = url
        self.wrong: list[str] = []
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self._origin(request.url))
        self.page.on("dialog", self._dialog)

    def _note(self, kind: str, text: str) -> None:
        # A page that says 404 is meant to.
        if kind in ("error", "warning") and "status of 404" not in text:
            self.wrong.append(f"{kind}: {text}")

    def _dialog(self, dialog: Dialog) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _origin(self, url: str) -> None:
        if urlsplit(url).netloc != urlsplit(self.url).netloc:
            self.wrong.append(f"asked another origin: {url}")

    def go(self, path: str) -> Page:
        self.page.goto(self.url + path)
        while self.page.get_by_text("The store is being listed").count():
            self.page.wait_for_timeout(50)
            self.page.goto(self.url + path)
        return self.page

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *exc: object) -> None:
        self.context.close()
        assert not self.wrong


def test_people_find_their_way(browser: Browser, url: str) -> None:
    with Watched(browser, url) as watched:
        page = watched.go("/")
        page.get_by_role("link", name="team/").click()
        page.get_by_role("link", name="app", exact=True).click()
        assert page.get_by_role("heading", level=1).inner_text() == "team/app"
        page.get_by_role("link", name="1.0").click()
        assert page.get_by_role("heading", level=1).inner_text() == "team/app:1.0"
        page.get_by_role("table", name="Layers").or_(page.locator("table").first).get_by_role("link").first.click()
        assert "used by 2 repositories" in page.get_by_role("main").inner_text()
        page.get_by_role("link", name="Why is it kept?").click()
        assert "team/app" in page.get_by_role("main").inner_text()
        page.get_by_role("searchbox").fill("mul")
        page.get_by_role("button", name="Search").click()
        page.get_by_role("link", name="team/app:multi").click()
        assert "linux/arm64" in page.get_by_role("main").inner_text()


def test_lists_sort_filter_and_turn(browser: Browser, url: str) -> None:
    with Watched(browser, url) as watched:
        page = watched.go("/repositories/many")

        def first() -> str:
            return page.locator("tbody tr th").first.inner_text().split()[0]

        assert first() == "t000"
        page.get_by_role("link", name="Tag", exact=True).click()
        assert first() == "t229"
        assert page.locator("th[aria-sort=descending]").inner_text().startswith("Tag")
        page.get_by_role("link", name="next").click()
        assert first() == "t129"
        page.get_by_label("Filter by name").fill("t22")
        page.get_by_role("button", name="Filter").click()
        assert page.locator("tbody tr").count() == 10


def test_a_command_is_copied(browser: Browser, url: str) -> None:
    with Watched(browser, url, permissions=["clipboard-read", "clipboard-write"]) as watched:
        page = watched.go("/images/team/app:1.0")
        page.get_by_role("button", name="Copy").nth(1).click()
        page.get_by_role("button", name="Copied").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == f"docker pull {urlsplit(url).netloc}/team/app:1.0"


def test_everything_is_there_without_a_script(browser: Browser, url: str) -> None:
    with Watched(browser, url, java_script_enabled=False) as watched:
        for path in (*PATHS, "/images/team/app:1.0"):
            page = watched.go(path)
            assert page.get_by_role("heading", level=1).count() == 1
            assert page.get_by_role("button", name="Copy").count() == 0, "a button that does nothing"
        page = watched.go("/garbage")
        page.get_by_label("manifests without a tag go, too").check()
        page.get_by_role("button", name="Show what it would do").click()
        assert page.get_by_label("manifests without a tag go, too").is_checked()


@crossed("scheme, width", ["light", "dark"], [1280, 360], meeting=1)
def test_pages_are_for_everybody(browser: Browser, url: str, scheme: Any, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with Watched(browser, url, color_scheme=scheme, viewport={"width": width, "height": 800}) as watched:
        for path in (*PATHS, "/images/team/app:1.0", "/images/team/app:multi"):
            page = watched.go(path)
            found = Axe().run(page).response["violations"]
            serious = [each for each in found if each["impact"] in ("serious", "critical")]
            assert not serious, (path, [(each["id"], each["nodes"][0]["html"]) for each in serious])
            sideways = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert sideways <= 0, (path, "the page scrolls sideways")


def test_by_keyboard_alone(browser: Browser, url: str) -> None:
    with Watched(browser, url) as watched:
        page = watched.go("/")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "To the content"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('main') !== null")


def test_a_hostile_store_runs_nothing(browser: Browser, url: str) -> None:
    with Watched(browser, url) as watched:
        page = watched.go("/images/hostile:x")
        assert "<script>alert(1)</script>" in page.get_by_role("main").inner_text()
        assert page.evaluate("document.querySelectorAll('main script, main img').length") == 0
        watched.go("/search?q=%3Cscript%3Ealert(1)%3C/script%3E")
