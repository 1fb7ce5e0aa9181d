"""`regstore init DIR --check`: a running deployment is proved, as its clients meet it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from regstore.cli.init.asking import Terminal
from regstore.cli.init.options import InitStore, Keys
from regstore.cli.outcome import Result
from regstore.cli.output import counted, emit, emit_error, emit_problem, printable
from regstore.cli.tables import Painted, state
from regstore.cli.voice import voice
from regstore.errors import InputError

if TYPE_CHECKING:
    from regstore.deployment.check import CheckOptions, CheckResult
    from regstore.deployment.wanted import Deployment
    from regstore.events import OnEvent
    from regstore.storage.base import Storage

_WIDTH: Final = len("not tried")


@dataclass(frozen=True, kw_only=True)
class Checking:
    """What of a running deployment is looked at, and where."""

    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Change nothing: prove the running deployment, a line for each thing, with the cure."
        ),
    ] = False
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", show_default="as DIR says", help="Of --check: the registry, as clients reach it."
        ),
    ] = None
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST[:PORT]",
            show_default=False,
            help="Of --check: connect there, whatever the name resolves to; the certificate must have the name.",
        ),
    ] = None
    without_store: Annotated[
        bool, typer.Option("--without-store", help="Of --check: look at the registry only, not at its store.")
    ] = False


def check_deployment(folder: Path, settings: InitStore, keys: Keys, asked: Checking, *, yes: bool) -> Result:
    """The exit code in it is that of `CheckResult`."""
    from regstore.cli.progress import progress
    from regstore.cli.run import run_async
    from regstore.deployment import applying

    record = applying.read_record(folder)
    if record is None:
        raise InputError(f"{folder} is no deployment: `regstore init {folder} --host ... --store ...` makes one")
    terminal = Terminal.here(wanted=not (yes or voice().as_json or voice().quiet))
    options = _options(folder, record.deployment, keys, asked, terminal)
    with progress() as on_event:
        result = run_async(_check(folder, record.deployment, settings, asked, options, on_event))
    _print(result)
    data = _as_json(result)
    numbers = {"checks": len(result.lines), "failed_checks": data["failed"], "warnings": data["warnings"]}
    return Result(exit_code=result.exit_code, data=data, numbers=numbers)


def _options(folder: Path, deployment: Deployment, keys: Keys, asked: Checking, terminal: Terminal) -> CheckOptions:
    from regstore.deployment.check import CheckOptions
    from regstore.deployment.containers import debug_url
    from regstore.deployment.wanted import CA_CERT, Form, Tls
    from regstore.hosts import bracketed

    given = folder / CA_CERT
    user, password = _who(folder, keys, terminal)
    scheme = "http" if deployment.tls is Tls.NONE else "https"
    return CheckOptions(
        url=asked.url or deployment.url,
        address=asked.address or "",
        ca=keys.tls_ca or (given if given.exists() else None),
        user=user,
        password=password,
        # In a container it is on the container's own loopback.
        health_url=debug_url(deployment, "") if deployment.form is Form.SYSTEMD else None,
        health_checked=_health_checked(folder),
        serve_url=f"{scheme}://{bracketed(deployment.host)}:{deployment.serve_port}"
        if deployment.with_serve
        else None,
    )


def _health_checked(folder: Path) -> bool:
    """As config.yml says, which people edit; where it says nothing, the registry checks nothing."""
    import yaml

    from regstore.deployment.wanted import CONFIG

    try:
        tree = yaml.safe_load((folder / CONFIG).read_bytes())
        return bool(tree["health"]["storagedriver"]["enabled"])
    except (KeyError, TypeError):
        return False
    except (OSError, yaml.YAMLError):  # it is not known here
        return True


def _who(folder: Path, keys: Keys, terminal: Terminal) -> tuple[str, str]:
    """A user and the password; both "" where nobody says one."""
    from regstore.cli.init.passwords import passwords_of
    from regstore.deployment import applying, users
    from regstore.deployment.wanted import HTPASSWD

    names = keys.user or []
    if len(names) > 1:
        raise InputError("--check logs in as one user: give --user once")
    if not (keys.password_stdin or terminal.asks):
        if names:
            raise InputError("the password is missing: --password-stdin reads it from standard input")
        return "", ""
    if not names:
        standing = applying.read_standing(folder, [HTPASSWD])
        known = users.users_of(standing[HTPASSWD].content, str(folder / HTPASSWD)) if standing else []
        if len(known) != 1 and keys.password_stdin:
            raise InputError(f"whose password is it? Give --user: {', '.join(known) or 'DIR has none'}")
        names = (
            known if len(known) == 1 else [terminal.ask("Which user is to log in", str, default="".join(known[:1]))]
        )
    if keys.password_stdin:
        return names[0], passwords_of(names, (), terminal, from_stdin=True).given[names[0]]
    return names[0], terminal.known_password(names[0])


async def _check(
    folder: Path,
    deployment: Deployment,
    settings: InitStore,
    asked: Checking,
    options: CheckOptions,
    on_event: OnEvent,
) -> CheckResult:
    from regstore.deployment.check import check

    async with AsyncExitStack() as stack:
        if not asked.without_store:
            store = await stack.enter_async_context(_store(folder, deployment, settings))
            options = replace(options, store=store)
        return await check(options, on_event=on_event)


def _store(folder: Path, deployment: Deployment, settings: InitStore) -> Storage:
    """As it was recorded, with the keys of regstore's own jobs, unless the command line or the environment has some."""
    from regstore.cli.init.choosing import open_store, recorded_keys
    from regstore.storage.base import PutOptions

    keys = recorded_keys(folder, settings)
    return open_store(folder, settings, deployment, PutOptions(), keys=keys, read_only=True)[0]


def _print(result: CheckResult) -> None:
    from regstore.deployment.check import Outcome

    emit(result.url)
    for line in result.lines:
        say = emit if line.outcome is Outcome.OK else emit_problem
        say(Painted(f"{state(str(line.outcome), _WIDTH)}  {printable(f'{line.name}: {line.detail}')}"))
        if line.cure:
            say(f"{'':<{_WIDTH}}  {line.cure}")
    words = [f"{result.count(Outcome.OK)} ok"]
    words += [counted(result.count(Outcome.FAIL), "failure")] if result.count(Outcome.FAIL) else []
    words += [counted(result.count(Outcome.WARN), "warning")] if result.count(Outcome.WARN) else []
    words += [f"{result.count(Outcome.NOT_TRIED)} not tried"] if result.count(Outcome.NOT_TRIED) else []
    emit(f"\n{result.url}: {', '.join(words)}")
    if result.of("password accepted") and result.count(Outcome.NOT_TRIED) and not result.count(Outcome.FAIL):
        emit_error("give --user and --password-stdin, and all of it is tried")


def _as_json(result: CheckResult) -> dict[str, Any]:
    from regstore.deployment.check import Outcome

    return {
        "url": result.url,
        "checks": [
            {"name": line.name, "outcome": str(line.outcome), "detail": line.detail, "advice": line.cure or None}
            for line in result.lines
        ],
        "failed": result.count(Outcome.FAIL),
        "warnings": result.count(Outcome.WARN),
        "not_tried": result.count(Outcome.NOT_TRIED),
    }
