"""The registry's storage: its own health check, and the store where regstore can open it."""

from __future__ import annotations

import json
from typing import Final

from regstore.deployment.check.answers import AGAIN, LOG, code_of, said, shortened, storage_cure
from regstore.deployment.check.client import Answer, Client
from regstore.deployment.check.options import CheckOptions
from regstore.deployment.check.place import Place
from regstore.deployment.check.reaching import Reached, is_here
from regstore.deployment.check.result import CheckLine, Outcome, fail, not_tried, ok, warn
from regstore.errors import NoSuchBucket, RegstoreError, Unreachable
from regstore.hosts import is_loopback
from regstore.seed import Outcome as Seeded
from regstore.seed import SeedOptions, seed
from regstore.storage.base import Storage

HEALTH: Final = "storage health"
STORE: Final = "store"
_PATH: Final = "/debug/health"


async def look_at_health(options: CheckOptions, root: Answer | None, reached: Reached | None) -> CheckLine:
    """Where nothing fails, but nothing is checked, that is told."""
    line = await _health(options.health_url, root, reached, options.timeout)
    if options.health_checked or line.outcome is not Outcome.OK:
        return line
    return warn(
        HEALTH,
        "its storage health check is switched off in its configuration, so nobody learns when the store is gone",
        "set health.storagedriver.enabled: true in config.yml; `regstore seed-bucket` makes an empty store pass it",
    )


async def _health(
    health_url: str | None, root: Answer | None, reached: Reached | None, timeout: float
) -> CheckLine:
    """By the debug server; where it can't be asked, by the API's answer to `GET /v2/`. root: that, None for none.

    reached: the registry. One that is not on this computer has its debug server on another's loopback."""
    debug, why = None, "no debug server was named"
    place = Place.of(health_url, with_path=True) if health_url is not None else None
    if place is not None and is_loopback(place.host) and not (reached is None or is_here(reached.host)):
        why = f"the debug server {place.origin} can only be asked on the registry's own host"
    elif place is not None:
        try:
            async with Client(place, Reached(place.host, place.port), None, timeout) as client:
                debug = await client.ask("GET", _PATH)
        except Unreachable:
            why = f"the debug server {place.origin} can't be reached from here"
    if debug is not None and debug.status in (200, 503):
        return _by_checks(debug)
    if debug is not None:
        why = f"at {health_url} {said(debug)}"
    return _by_api(root, why)


def _by_checks(answer: Answer) -> CheckLine:
    """What fails, by the name of the check: an object, empty when all is well."""
    try:
        failing = {str(name): str(words) for name, words in json.loads(answer.body).items()}
    except (ValueError, AttributeError, RecursionError):
        return fail(HEALTH, said(answer), "see what listens at the debug server's address")
    if answer.status == 200 and not failing:
        return ok(HEALTH, "no health check of the registry fails, its debug server says")
    shown = shortened("; ".join(f"{name}: {words}" for name, words in failing.items()))
    return fail(HEALTH, f"the registry's health check fails: {shown}", storage_cure(shown))


def _by_api(root: Answer | None, why: str) -> CheckLine:
    if root is None:
        return not_tried(HEALTH, f"{why}, and the registry's API did not answer")
    if root.status == 503 and code_of(root) == "UNAVAILABLE":
        cure = f"ask /debug/health of the debug server on the registry's host, or see its log; {LOG}"
        return fail(HEALTH, f"{said(root)}; {why}", cure)
    if root.status not in (200, 401):
        return not_tried(HEALTH, f"{why}, and {said(root)}")
    return ok(HEALTH, f"the API answers, as it does not while a health check fails ({why})")


async def look_at_store(store: Storage) -> CheckLine:
    """By regstore's own credentials; nothing is written."""
    options = SeedOptions(check=True, block_public_access=False, encryption=False, lifecycle=False)
    remedy = "see `regstore doctor`"
    try:
        result = await seed(store, options)
    except NoSuchBucket as error:
        return fail(STORE, str(error), AGAIN)
    except RegstoreError as error:
        return fail(STORE, str(error), remedy)
    for problem in (*result.missing, *result.broken):
        if problem.name in ("bucket", "folder", STORE):
            return fail(STORE, problem.detail, AGAIN)
        if problem.outcome is not Seeded.MISSING:
            return fail(STORE, f"{problem.name}: {problem.detail}", remedy)
    unhealthy = [check for check in result.checks if check.name.startswith("health") and not check.good]
    if unhealthy:
        return fail(STORE, f"{unhealthy[0].name}: {unhealthy[0].detail}", "`regstore seed-bucket` makes it healthy")
    return ok(STORE, f"{store.url} is there, and can be listed and read")
