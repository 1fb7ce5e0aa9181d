"""`regstore seed-bucket`: an empty bucket or folder becomes a healthy registry store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from regstore.cli.command import command
from regstore.cli.outcome import Result
from regstore.cli.output import emit, emit_error, emit_yaml, table
from regstore.cli.progress import progress
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.errors import EXIT_FAILURE, EXIT_OK, EXIT_PARTIAL, StorageError
from regstore.events import OnEvent

if TYPE_CHECKING:
    from regstore.seed import SeedOptions, SeedResult
    from regstore.storage.base import PutOptions, Storage


@command
def seed_bucket(
    settings: StoreSettings,
    check: Annotated[
        bool,
        typer.Option("--check", help="Only look; write nothing at all. Exit code 3 when something is missing."),
    ] = False,
    apply_settings: Annotated[
        bool,
        typer.Option(
            "--apply-settings",
            help="Add the settings below to a bucket that was there before; nothing is replaced.",
        ),
    ] = False,
    block_public_access: Annotated[
        bool,
        typer.Option(
            "--block-public-access/--no-block-public-access", help="Block public access on a bucket created here."
        ),
    ] = True,
    encryption: Annotated[
        bool,
        typer.Option("--encryption/--no-encryption", help="Encrypt new objects (AES256) unless it has a default."),
    ] = True,
    lifecycle: Annotated[
        bool, typer.Option("--lifecycle/--no-lifecycle", help="Abort multipart uploads left unfinished for 7 days.")
    ] = True,
) -> Result:
    """Make a bucket or a folder a healthy, empty registry store, and check it.

    Creates it if it is missing, puts the two small seed objects, tries the permissions that a registry needs with
    one object that is deleted again, and asks the store what the registry's storage health check asks. On a bucket
    that it created it also sets what the options below say; on another it only reports what differs. Harmless and
    idempotent on a store in use. Prints the registry's configuration for this store.

    Exit codes: 0 ready; 1 a permission is missing or the health check would fail; 3 ready, but with a setting that
    could not be made, or, with --check, something is missing.
    """
    from regstore.seed import SeedOptions

    storage, config = settings.open_with_config()
    options = SeedOptions(
        check=check,
        apply_settings=apply_settings,
        block_public_access=block_public_access,
        encryption=encryption,
        lifecycle=lifecycle,
        put=config.put if config is not None else None,
    )
    with progress() as on_event:
        result = run_async(_seed(storage, options, on_event))
    _print(result)
    for problem in result.broken:
        emit_error(f"{problem.name}: {problem.detail}")
    for warning in result.warnings:
        emit_error(f"warning: {warning.name}: {warning.detail}")
    return Result(exit_code=exit_code(result), data=_as_json(result), numbers={"checks": len(result.checks)})


async def _seed(storage: Storage, options: SeedOptions, on_event: OnEvent) -> SeedResult:
    from regstore.seed import seed

    async with storage:
        return await seed(storage, options, on_event=on_event)


async def seed_target(storage: Storage, put: PutOptions | None, on_event: OnEvent) -> None:
    """Make the place that a command is to fill an empty store. StorageError where no registry could use it."""
    from regstore.seed import SeedOptions, seed

    seeded = await seed(storage, SeedOptions(put=put), on_event=on_event)
    if seeded.broken:
        problem = seeded.broken[0]
        raise StorageError(f"{storage.url} is not ready for a registry: {problem.name}: {problem.detail}")


def exit_code(result: SeedResult) -> int:
    from regstore.seed import Outcome

    if result.broken:
        return EXIT_FAILURE
    not_made = any(check.outcome in (Outcome.DENIED, Outcome.FAILED) for check in result.warnings)
    return EXIT_PARTIAL if result.missing or not_made else EXIT_OK


def _as_json(result: SeedResult) -> dict[str, Any]:
    return {
        "ready": not result.broken and not result.missing,
        "checks": [
            {"name": check.name, "outcome": check.outcome.value, "detail": check.detail} for check in result.checks
        ],
        "configuration": dict(result.configuration),
        "environment": dict(result.environment),
    }


def _print(result: SeedResult) -> None:
    emit(f"{result.url}\n")
    emit(
        table(
            ["CHECK", "OUTCOME", ""], [[check.name, check.outcome.value, check.detail] for check in result.checks]
        )
    )
    if not result.configuration:  # no registry has a driver for such a store
        return
    if not result.broken and not result.missing:
        emit("\nReady: the storage health check passes in every version of the registry.")
    emit("\nconfig.yml of the registry:\n")
    emit_yaml(result.configuration)
    if result.environment.get("REGISTRY_STORAGE") == "s3":
        emit(
            "# Keys: REGISTRY_STORAGE_S3_ACCESSKEY and REGISTRY_STORAGE_S3_SECRETKEY, or the AWS environment or role."
        )
    emit("\nOr, in a compose file:\n")
    emit_yaml({"environment": dict(result.environment)})
