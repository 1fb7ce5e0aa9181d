"""The whole check, in order; what can't be tried because of what failed is said to be "not tried"."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from regstore.deployment.check import certificate
from regstore.deployment.check.access import look_at_api, look_at_passwords, look_at_serve
from regstore.deployment.check.client import Answer, Client, Credentials
from regstore.deployment.check.options import CheckOptions
from regstore.deployment.check.place import Place
from regstore.deployment.check.reaching import Reached, connect, resolve
from regstore.deployment.check.result import CheckLine, CheckResult, Outcome, Red, not_tried
from regstore.deployment.check.storage import look_at_health, look_at_store
from regstore.deployment.check.tiny import make_image
from regstore.deployment.check.trial import NAMES as TRIAL
from regstore.deployment.check.trial import Trial
from regstore.events import OnEvent, Progress, ignore

_PASSWORDS: Final = ("password needed", "password accepted", "wrong password")


async def check(options: CheckOptions, *, on_event: OnEvent = ignore) -> CheckResult:
    """Look at everything. What is wrong with the deployment is a line, and nothing is raised for it. InputError where
    the package cryptography is missing.

    Cancelled, it removes what it pushed before it ends, and says in a Notice what stays.
    """
    return await _Check(options, on_event).run()


class _Check:
    def __init__(self, options: CheckOptions, on_event: OnEvent) -> None:
        self._options = options
        self._on_event = on_event
        self._place = Place.of(options.url)
        self._lines: list[CheckLine] = []
        self._now = datetime.now(UTC)
        self._reached: Reached | None = None

    async def run(self) -> CheckResult:
        self._reached = reached = await self._reach()
        secure = reached is not None and await self._tls(reached)
        if reached is None or not secure:
            why = "the address can't be reached" if reached is None else "passwords go to no server of doubtful TLS"
            await self._without_api(None, why, ("registry", *_PASSWORDS))
            self._skip(TRIAL, why)
            return self._result()
        context = certificate.client_context(self._options.ca) if self._place.tls else None
        async with Client(self._place, reached, context, self._options.timeout) as client:
            await self._ask(client)
        return self._result()

    async def _ask(self, client: Client) -> None:
        options = self._options
        self._say("asking the registry")
        line, root = await look_at_api(client)
        self._lines.append(line)
        if root is None or line.outcome is not Outcome.OK:
            await self._without_api(root, "the registry does not answer as one", _PASSWORDS)
            self._skip(TRIAL, "the registry does not answer as one")
            return
        lines, credentials, may = await look_at_passwords(client, root, options)
        self._lines += lines
        await self._without_api(root, "", (), credentials=credentials if may else None)
        if not may:
            why = "nobody may log in" if options.user else "no user was given"
            self._skip(TRIAL, why)
            return
        self._say("pushing a tiny image, and pulling it")
        trial = Trial(client, credentials, make_image(self._now), options.store, self._now)
        self._lines += await trial.run(options.timeout, self._on_event)

    async def _reach(self) -> Reached | None:
        options = self._options
        self._say("looking for the registry")
        name = "name"
        try:
            line, addresses, port = await resolve(options, self._place)
            self._lines.append(line)
            name = "port"
            line, reached = await connect(addresses, port, options.timeout)
            self._lines.append(line)
        except Red as red:
            self._lines.append(red.line(name))
            self._skip(("port",) if name == "name" else (), "the name resolves to nothing")
            self._skip(certificate.NAMES if self._place.tls else certificate.NAMES[:1], "nothing answers")
            return None
        return reached

    async def _tls(self, reached: Reached) -> bool:
        """Whether a password may be sent."""
        options = self._options
        self._say("looking at its certificate")
        if self._place.tls:
            lines = await certificate.look_at_tls(self._place, reached, options.ca, options.timeout, self._now)
        else:
            lines = [await certificate.look_at_plain(self._place, reached, options.timeout)]
        self._lines += lines
        return all(line.outcome in (Outcome.OK, Outcome.WARN) for line in lines)

    async def _without_api(
        self,
        root: Answer | None,
        why: str,
        skipped: Sequence[str],
        *,
        credentials: Credentials | None = None,
    ) -> None:
        """What is looked at beside the registry's API. root: its answer to `GET /v2/`."""
        options = self._options
        self._skip(skipped, why)
        self._say("looking at its storage")
        self._lines.append(await look_at_health(options, root, self._reached))
        if options.store is not None:
            self._lines.append(await look_at_store(options.store))
        if options.serve_url is not None:
            place = Place.of(options.serve_url, with_path=True)
            same = self._reached is not None and place.host == self._place.host
            host = self._reached.host if self._reached is not None and same else place.host
            context = certificate.client_context(options.ca) if place.tls else None
            async with Client(place, Reached(host, place.port), context, options.timeout) as client:
                self._lines.append(await look_at_serve(client, root, options, credentials))

    def _skip(self, names: Sequence[str], why: str) -> None:
        names = [name for name in names if name != "same store" or self._options.store is not None]
        self._lines += [not_tried(name, why) for name in names]

    def _say(self, phase: str) -> None:
        self._on_event(Progress(phase=phase, done=0, unit="steps"))

    def _result(self) -> CheckResult:
        return CheckResult(url=self._options.url, lines=tuple(self._lines))
