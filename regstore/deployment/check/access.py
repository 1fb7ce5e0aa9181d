"""It is a registry, it asks for a password, takes the right one, and refuses another."""

from __future__ import annotations

import secrets

from regstore.deployment.check.answers import is_page, refusal, said
from regstore.deployment.check.client import Answer, Client, Credentials
from regstore.deployment.check.options import CheckOptions
from regstore.deployment.check.result import CheckLine, Outcome, fail, not_tried, ok
from regstore.errors import Unreachable

ROOT = "/v2/"
HANGS = "see whether the registry hangs: its log tells; if not, whether what stands before it reaches it"
_USERS = "`regstore init DIR --add-user NAME` gives it one, then start the registry again"


async def look_at_api(client: Client) -> tuple[CheckLine, Answer | None]:
    """The line, and the answer to who has no password; None where there was none."""
    try:
        answer = await client.ask("GET", ROOT)
    except Unreachable as error:
        return fail("registry", str(error), HANGS), None
    if answer.status not in (200, 401):
        return refusal(answer, "read").line("registry"), answer
    basic = "www-authenticate" in answer.headers
    if is_page(answer) or (answer.status == 401 and not basic):
        cure = "have what stands at this address pass /v2/ on to the registry, and ask for no password of its own"
        return fail("registry", f"{said(answer)}, which no registry answers", cure), answer
    if answer.status == 200 and not _is_registry(answer):
        return fail("registry", f"{said(answer)} in words that are no registry's", "see what listens there"), answer
    return ok("registry", "it speaks the registry's API"), answer


def _is_registry(answer: Answer) -> bool:
    """The specification asks for no more than the 200: those that say nothing send an empty object, or nothing."""
    return "docker-distribution-api-version" in answer.headers or answer.body.strip() in (b"", b"{}", b"true")


async def look_at_passwords(
    client: Client, answer: Answer, options: CheckOptions
) -> tuple[list[CheckLine], Credentials | None, bool]:
    """Lines; with whose credentials the rest is to be tried; whether it can be."""
    names = ("password accepted", "wrong password")
    if answer.status == 200:
        why = "the registry asks nobody for a password"
        lines = [not_tried(name, why) for name in names]
        return [fail("password needed", why, _USERS), *lines], None, not options.user
    scheme = answer.headers["www-authenticate"].partition(" ")[0].lower()
    needed = ok("password needed", "who has none is refused")
    if scheme != "basic":
        why = f"the registry wants {scheme!r} credentials, and this check has passwords only"
        return [needed, *(not_tried(name, why) for name in names)], None, False
    if not options.user:
        return [needed, *(not_tried(name, "no user was given") for name in names)], None, False
    credentials = Credentials(user=options.user, password=options.password)
    accepted = await _try(client, credentials)
    lines = [needed, accepted, await _try_wrong(client, credentials)]
    return lines, credentials, accepted.outcome is Outcome.OK


async def _try(client: Client, credentials: Credentials) -> CheckLine:
    name = "password accepted"
    try:
        answer = await client.ask("GET", ROOT, credentials=credentials)
    except Unreachable as error:
        return fail(name, str(error), HANGS)
    if answer.status == 200:
        return ok(name, f"{credentials.user} may log in")
    if answer.status == 401:
        return fail(
            name,
            f"the password of {credentials.user} is refused",
            "give the right one; or `regstore init DIR --add-user NAME` sets a new one. A registry knows bcrypt only "
            "(htpasswd -B), and passes over other lines without a word",
        )
    return refusal(answer, "read").line(name)


async def _try_wrong(client: Client, credentials: Credentials) -> CheckLine:
    name = "wrong password"
    wrong = Credentials(user=credentials.user, password=secrets.token_urlsafe(18))
    try:
        answer = await client.ask("GET", ROOT, credentials=wrong)
    except Unreachable as error:
        return fail(name, str(error), HANGS)
    if answer.status in (401, 403):
        return ok(name, "another password is refused")
    if answer.status == 200:
        return fail(
            name, "any password is accepted", "see `auth` in config.yml, and what stands before the registry"
        )
    return refusal(answer, "read").line(name)


async def look_at_serve(
    client: Client, root: Answer | None, options: CheckOptions, credentials: Credentials | None
) -> CheckLine:
    """`regstore serve` beside it: it answers, and guards what the registry guards. root: the registry's answer to who
    has no password."""
    is_guarded = bool(options.user) or (root is not None and root.status == 401)
    name, cure = "serve", "start `regstore serve`; its log says why it does not answer"
    try:
        answer = await client.ask("GET", ROOT)
        if is_guarded and answer.status == 200:
            return fail(name, "it asks nobody for a password", "give `regstore serve` the registry's --htpasswd")
        if answer.status == 401 and credentials is not None:
            answer = await client.ask("GET", ROOT, credentials=credentials)
            if answer.status == 401:
                return fail(
                    name,
                    f"it refuses the password of {credentials.user}",
                    "give `regstore serve` the registry's --htpasswd",
                )
    except Unreachable as error:
        return fail(name, str(error), cure)
    if answer.status == 401:
        return ok(name, f"it answers at {client.place.origin}, and wants a password")
    if answer.status != 200:
        return fail(name, said(answer), cure)
    return ok(name, f"it answers at {client.place.origin}" + (", with the same password" if credentials else ""))
