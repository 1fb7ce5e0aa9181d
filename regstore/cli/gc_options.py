"""The options of `regstore gc`, in groups, and what the library takes for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regstore.cli.command import said
from regstore.cli.options import CacheAndProcesses
from regstore.cli.registry_cache import CacheOptions
from regstore.cli.settings import StoreSettings
from regstore.cli.values import parse_duration, parse_share
from regstore.errors import InputError

if TYPE_CHECKING:
    from regstore.gc.plan import GcOptions
    from regstore.gc.policy import BrokenScope, Policy
    from regstore.gc.run import GcRunOptions
    from regstore.inventory.scan import ScanOptions


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """What is garbage, and since when."""

    delete_untagged: Annotated[
        bool,
        typer.Option("--delete-untagged", help="Only tags keep manifests, with what they reach and refers to it."),
    ] = False
    grace: Annotated[
        int,
        typer.Option(parser=parse_duration, metavar="DURATION", help="Leave alone what is younger than this."),
    ] = said("24h", parse_duration)
    uploads_older_than: Annotated[
        int, typer.Option(parser=parse_duration, metavar="DURATION", help="Remove abandoned uploads of this age.")
    ] = said("7d", parse_duration)


@dataclass(frozen=True, kw_only=True)
class TagsToGo:
    """Retention rules, from a file or one of the options, and the revisions that can't be read."""

    policy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", show_default=False, help="Retention rules: a file, or a policy's name in regstore.toml."
        ),
    ] = None
    keep_newest: Annotated[
        int | None, typer.Option(metavar="N", min=1, show_default=False, help="Newest tags of a repository stay.")
    ] = None
    keep_younger_than: Annotated[
        int | None,
        typer.Option(parser=parse_duration, metavar="DURATION", show_default=False, help="Younger tags stay."),
    ] = None
    newest_by: Annotated[
        str | None,
        typer.Option(
            metavar="tag|created",
            show_default="tag",
            help="A tag's age: since it was set, or since its image was made.",
        ),
    ] = None
    keep_tag: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", show_default=False, help="Such tags stay, uncounted: a glob or /regex/."),
    ] = None
    drop_tag: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", show_default=False, help="Only such tags may go.")
    ] = None
    protect_tag: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", show_default=False, help="Such tags never go, in no repository."),
    ] = None
    repo: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", show_default=False, help="Tags go from these repositories only: team/**."),
    ] = None
    drop_broken_revisions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REPO[@DIGEST]|all",
            show_default=False,
            help="Revisions that are lost or damaged, also when read again, may go with their tags, and no longer"
            " protect the repository. What is sound and only not understood goes by its digest alone.",
        ),
    ] = None

    def rules(self) -> Policy | None:
        """The file's rules, or one rule of the options; None where neither is given."""
        from regstore.gc.policy import ANY_REPOSITORY, Pattern, Policy, Rule

        keep, protect, repositories = self.keep_tag or [], self.protect_tag or [], self.repo or []
        taking = self.keep_newest is not None or self.keep_younger_than is not None or bool(self.drop_tag)
        if self.policy is not None:
            if taking or self.newest_by or keep or protect or repositories:
                raise InputError("--policy says all about tags; give no other retention option with it")
            from regstore.cli.config.current import named_policy

            return named_policy(self.policy) or Policy.load(self.policy)
        if self.newest_by not in (None, "tag", "created"):
            raise InputError(f"--newest-by is tag or created, not {self.newest_by}")
        if not taking:
            if keep or repositories or self.newest_by:
                raise InputError(
                    "--keep-tag, --repo and --newest-by limit what goes; say what may go with --keep-newest, "
                    "--keep-younger-than or --drop-tag"
                )
            return Policy(protect=tuple(map(Pattern.tag, protect))) if protect else None
        rule = Rule(
            name="options",
            repositories=tuple(map(Pattern.repository, repositories)) or ANY_REPOSITORY,
            keep_newest=self.keep_newest,
            keep_younger_than=self.keep_younger_than,
            keep=tuple(map(Pattern.tag, keep)),
            drop=tuple(map(Pattern.tag, self.drop_tag or [])),
            newest_by="created" if self.newest_by == "created" else "tag",
        )
        return Policy(rules=(rule,), protect=tuple(map(Pattern.tag, protect)))

    def with_full_digests(self, settings: StoreSettings) -> TagsToGo:
        """With whole digests where the beginning of one was said."""
        from regstore.cli.naming import full

        return replace(self, drop_broken_revisions=full(settings, self.drop_broken_revisions or []))

    def broken(self) -> tuple[BrokenScope, ...]:
        if not self.drop_broken_revisions:
            return ()
        from regstore.gc.policy import BrokenScope

        return tuple(map(BrokenScope.parse, self.drop_broken_revisions))


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What is asked instead of collecting anything."""

    explain: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REPO[:TAG]", show_default=False, help="Show why tags would stay or go; write nothing."
        ),
    ] = None
    why: Annotated[
        list[str] | None,
        typer.Option(metavar="DIGEST", show_default=False, help="Show what keeps a blob; write nothing."),
    ] = None
    policy_example: Annotated[
        bool, typer.Option("--policy-example", help="Print a file of retention rules to begin with.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class Way:
    """What the registry does meanwhile, where the run's own things lie, and how long blobs can come back."""

    offline: Annotated[
        bool, typer.Option("--offline", help="The registry is stopped or read-only: no second look is needed.")
    ] = False
    no_trash: Annotated[
        bool, typer.Option("--no-trash", help="Delete blobs for good, with no way back; only with --offline.")
    ] = False
    state_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="Keep the lock and the journal here until the end, not in a store that is full; only with --offline "
            "--no-trash, which keep them in memory otherwise, once the store says that it is full.",
        ),
    ] = None
    settle: Annotated[
        int, typer.Option(parser=parse_duration, metavar="DURATION", help="Wait this long before the last look.")
    ] = said("60s", parse_duration)
    trash_days: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Empty the trash of runs that ended so long ago, where the cache allows it (as `trash empty` does).",
        ),
    ] = 7


@dataclass(frozen=True, kw_only=True)
class GcCache(CacheAndProcesses):
    """With the command that makes these processes forget."""

    restart_command: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            show_default=False,
            help="Restarts every registry process whose cache is in its memory, and returns when that is done: a line "
            "for /bin/sh. Run last, where anything in the trash waits for it, so that the next gc may free that.",
        ),
    ] = None

    def of(self, settings: StoreSettings) -> CacheOptions:
        return replace(super().of(settings), restart_command=self.restart_command)


@dataclass(frozen=True, kw_only=True)
class Consent:
    """How much may go, and what the run may go on in spite of."""

    max_delete: Annotated[
        float,
        typer.Option(
            parser=parse_share, metavar="SHARE", help="Refuse to remove more of the blobs, or by rules of the tags."
        ),
    ] = said("50%", parse_share)
    untagged_repositories: Annotated[
        bool,
        typer.Option(
            "--untagged-repositories",
            help="With --delete-untagged, also repositories that have no tag, but for those of signatures, may lose "
            "all their manifests.",
        ),
    ] = False
    copied_times: Annotated[
        bool,
        typer.Option(
            "--copied-times",
            help="Choose the newest also among tags that were all set within one hour, as by a copy of the store.",
        ),
    ] = False
    unmatched: Annotated[
        bool,
        typer.Option(
            "--unmatched",
            help="Go on though a pattern that was to keep tags matches none: there are no such tags yet.",
        ),
    ] = False
    unlinked_blobs: Annotated[
        bool,
        typer.Option(
            "--unlinked-blobs",
            help="Go on though blobs came steadily after the newest link: no registry keeps its links in a database.",
        ),
    ] = False
    tags_are_complete: Annotated[
        bool,
        typer.Option(
            "--tags-are-complete",
            help="Every tag that matters is in the store, though its registry is Harbor's or OpenShift's.",
        ),
    ] = False
    allow_empty: Annotated[
        bool,
        typer.Option(
            "--allow-empty", help="Go on though no blobs, or no links, show where the last run left some."
        ),
    ] = False
    allow_gone: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            show_default=False,
            help="Go on though such repositories have lost all tags since the last run: team/**.",
        ),
    ] = None
    max_lost: Annotated[
        float,
        typer.Option(
            parser=parse_share, metavar="SHARE", help="Refuse where more of the links have gone since the last run."
        ),
    ] = said("50%", parse_share)


def plan_options(garbage: Garbage, tags: TagsToGo) -> GcOptions:
    from regstore.gc.plan import GcOptions

    return GcOptions(
        delete_untagged=garbage.delete_untagged,
        grace=garbage.grace,
        uploads_older_than=garbage.uploads_older_than,
        policy=tags.rules(),
        drop_broken=tags.broken(),
    )


def run_options(
    plan: GcOptions, scan: ScanOptions, way: Way, consent: Consent, restart_command: str | None
) -> GcRunOptions:
    from regstore.gc.policy import Pattern
    from regstore.gc.run import GcRunOptions

    options = GcRunOptions(
        plan=plan,
        scan=scan,
        offline=way.offline,
        trash=not way.no_trash,
        settle=way.settle / 1_000_000,
        max_delete=consent.max_delete,
        allow_empty=consent.allow_empty,
        allow_gone=tuple(map(Pattern.repository, consent.allow_gone or [])),
        max_lost=consent.max_lost,
        trash_older_than=way.trash_days * 86_400_000_000,
        restart_command=restart_command,
        untagged_repositories=consent.untagged_repositories,
        copied_times=consent.copied_times,
        unmatched=consent.unmatched,
        unlinked_blobs=consent.unlinked_blobs,
        tags_complete=consent.tags_are_complete,
    )
    if way.state_dir is not None and not (way.offline and way.no_trash):
        raise InputError(
            "--state-dir keeps the lock out of the store, and so nobody else out of it: it needs --offline --no-trash"
        )
    return options
