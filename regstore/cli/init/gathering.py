"""What a deployment needs: of what is asked, of what stands in DIR, and of secrets from elsewhere; and the plan."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from regstore.cli.init.asking import Terminal
from regstore.cli.init.choosing import Chosen
from regstore.cli.init.options import Doing, Keys
from regstore.cli.init.passwords import Passwords, passwords_of
from regstore.deployment import applying, environment_files, nightly, users
from regstore.deployment.authority import Pair, certificates_of
from regstore.deployment.certificates import PATHS, Certificates, Given, certificates
from regstore.deployment.environment_files import Secrets, StoreKeys
from regstore.deployment.forms import generated_files
from regstore.deployment.planning import Plan, Standing, plan
from regstore.deployment.record import Record
from regstore.deployment.wanted import (
    CONFIG,
    HTPASSWD,
    PRIVATE,
    REGISTRY_ENV,
    REGSTORE_ENV,
    STORE_CA,
    Cache,
    Deployment,
    Form,
    Kind,
    Tls,
    WantedFile,
)
from regstore.errors import InputError
from regstore.hosts import is_loopback

_FIRST_USER: Final = "admin"
#: Where README.txt says to install units.
_UNITS: Final = Path("/etc/systemd/system")


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What is to be written, and what is to be told of it."""

    plan: Plan
    passwords: Passwords
    certificates: Certificates
    warnings: tuple[str, ...] = ()


def gather(
    folder: Path, chosen: Chosen, keys: Keys, doing: Doing, before: Record | None, terminal: Terminal
) -> Gathered:
    """InputError where something of it can't be. Reads DIR, and changes nothing."""
    deployment, now = chosen.deployment, datetime.now(UTC)
    generated = generated_files(deployment)
    fixed = [*PATHS, HTPASSWD, REGISTRY_ENV, REGSTORE_ENV, STORE_CA, *(file.path for file in generated)]
    standing = applying.read_standing(folder, {*fixed, *(before.written if before is not None else ())})
    certs = certificates(deployment, standing, now, given=_given(keys))
    secrets, warnings = _secrets(chosen, keys, standing, before)
    passwords, htpasswd = _users(folder, standing, keys, terminal)
    wanted = [*generated, *certs.files, *secrets, htpasswd]
    if chosen.store_ca is not None:
        wanted.append(WantedFile(path=STORE_CA, content=certificates_of(chosen.store_ca), kind=Kind.CERTIFICATE))
    warnings += _warnings(deployment, doing, before)
    if certs.ends_soon(now) and certs.shown is not None:
        is_own = deployment.tls is Tls.OWN_CA
        cure = "--renew makes a new one" if is_own else "give another, with --tls-cert and --tls-key"
        warnings.append(f"the certificate ends on {certs.shown.not_after:%Y-%m-%d}: {cure}")
    overwrite = set(doing.overwrite or ())
    if unknown := overwrite - {file.path for file in wanted} - set(certs.unwanted):
        raise InputError(f"--overwrite {min(unknown)}: no such file is wanted in DIR")
    planned = plan(deployment, wanted, standing, before, overwrite=overwrite, unwanted=certs.unwanted)
    return Gathered(plan=planned, passwords=passwords, certificates=certs, warnings=tuple(warnings))


def _warnings(deployment: Deployment, doing: Doing, before: Record | None) -> list[str]:
    found = []
    if deployment.form is Form.SYSTEMD:  # the units may be for another host, so it is no error
        if not Path(deployment.registry_program).exists():
            found.append(
                f"there is no {deployment.registry_program} here yet: install the registry (Debian: docker-registry), "
                "or say --registry-program"
            )
        if not Path(deployment.regstore_program).exists():
            found.append(f"there is no {deployment.regstore_program} here yet, which the nightly job runs")
        if (unit := _unit_of_another(deployment)) is not None:
            found.append(
                f"{unit} is of another folder: where that is another deployment, give this folder another name, or "
                "its units take the other's place"
            )
    missing = missing_backup_folder(deployment)
    if missing is not None and not doing.create:
        found.append(f"there is no folder {missing} for backups yet, and no night makes it: --create does")
    found += [
        f"{place} is this computer's own address, and in a container the container's: say one that it reaches"
        for place in _own_addresses(deployment)
    ]
    if before is not None and before.deployment.store != deployment.store:
        found.append(
            f"the store changes, and nothing is moved: `regstore migrate {before.deployment.store} {deployment.store}`"
        )
    return found


def _unit_of_another(deployment: Deployment) -> Path | None:
    """The installed unit that has the name of this deployment's, and starts a registry elsewhere."""
    from regstore.deployment.systemd import quoted, unit_prefix

    path = _UNITS / f"{unit_prefix(deployment)}.service"
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return None
    return None if f" {quoted([deployment.seen(CONFIG)])}\n" in text else path


def _own_addresses(deployment: Deployment) -> list[str]:
    """Those of the store and of Redis that are on loopback, where what runs has another."""
    if not deployment.in_containers:
        return []
    endpoint = str(deployment.storage[deployment.driver].get("regionendpoint", ""))
    places = (endpoint, f"//{deployment.redis}")
    return [place.removeprefix("//") for place in places if is_loopback(urlsplit(place).hostname or "")]


def missing_backup_folder(deployment: Deployment) -> Path | None:
    """In Kubernetes it is a claim."""
    folder = nightly.backup_folder(deployment)
    if folder is None or deployment.form is Form.KUBERNETES or Path(folder).is_dir():
        return None
    return Path(folder)


def _given(keys: Keys) -> Given | None:
    if keys.tls_cert is None and keys.tls_key is None:
        if keys.tls_ca is not None:
            raise InputError("--tls-ca goes with --tls-cert and --tls-key")
        return None
    if keys.tls_cert is None or keys.tls_key is None:
        raise InputError("--tls-cert and --tls-key go together")
    pair = Pair(cert=certificates_of(_read(keys.tls_cert)), key=_read(keys.tls_key))
    return Given(pair=pair, ca=certificates_of(_read(keys.tls_ca)) if keys.tls_ca is not None else None)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} can't be read: {(error.strerror or str(error)).lower()}") from error


def _secrets(
    chosen: Chosen, keys: Keys, standing: dict[str, Standing], before: Record | None
) -> tuple[list[WantedFile], list[str]]:
    """The files, and what to warn of."""
    there: dict[str, bytes] = {
        path: standing[path].content for path in (REGISTRY_ENV, REGSTORE_ENV) if path in standing
    }
    password = os.environ.get("REGISTRY_REDIS_PASSWORD") if chosen.deployment.cache is Cache.REDIS else None
    of_registry, of_regstore, warnings = None, None, []
    if not chosen.deployment.on_disk and (len(there) < 2 or _is_elsewhere(chosen.deployment, before)):
        of_regstore, why = _store_keys(chosen, None)
        of_registry, why = (
            _store_keys(chosen, keys.registry_profile) if keys.registry_profile else (of_regstore, why)
        )
        kept = {path: _access_key(path, there) for path in (REGISTRY_ENV, REGSTORE_ENV)}
        if why and None in kept.values():
            warnings.append(f"{why}: write keys that last into {REGISTRY_ENV} and {REGSTORE_ENV}")
        for path, found in ((REGISTRY_ENV, of_registry), (REGSTORE_ENV, of_regstore)):
            if found is not None and kept[path] not in (None, found.access_key):
                warnings.append(
                    f"{path} keeps the S3 keys that it has: change them, where they are not the store's"
                )
    if hidden := environment_files.overrides(there.get(REGISTRY_ENV, b"")):
        warnings.append(
            f"{REGISTRY_ENV} says {', '.join(hidden)}, and gc, which goes by config.yml, does not see it: say it there"
        )
    given = Secrets(registry=of_registry, regstore=of_regstore, redis_password=password)
    return environment_files.files(chosen.deployment, given, there), warnings


def _is_elsewhere(deployment: Deployment, before: Record | None) -> bool:
    """Whether the bucket is another than it was, or the store was no bucket: then keys are lacking, not left out."""
    if before is None or before.deployment.driver != deployment.driver:
        return True
    if any(len(digests) > 1 for digests in before.written.values()):
        return True  # a run that was cut short: it may not have come to them
    was, now = (each.storage[each.driver] for each in (before.deployment, deployment))
    return any(was.get(name) != now.get(name) for name in ("bucket", "regionendpoint"))


def _access_key(path: str, there: dict[str, bytes]) -> str | None:
    return environment_files.variables(there.get(path, b"")).get(environment_files.ACCESS_KEYS[path])


def _store_keys(chosen: Chosen, profile: str | None) -> tuple[StoreKeys | None, str]:
    from regstore.deployment.credentials import lasting_keys

    if profile is None and chosen.keys is not None:
        return chosen.keys, ""
    found = lasting_keys(profile or chosen.profile)
    return found.keys, found.why


def _users(
    folder: Path, standing: dict[str, Standing], keys: Keys, terminal: Terminal
) -> tuple[Passwords, WantedFile]:
    where = str(folder / HTPASSWD)
    content = standing[HTPASSWD].content if HTPASSWD in standing else b""
    known = users.users_of(content, where)
    names = keys.user or []
    if keys.password_stdin and not names:
        raise InputError("--password-stdin needs to know whose: name users with --user")
    if not names and not known:
        names = [
            terminal.ask("Who is the first user", _user, default=_FIRST_USER) if terminal.asks else _FIRST_USER
        ]
    passwords = passwords_of(names, known, terminal, from_stdin=keys.password_stdin)
    return passwords, _htpasswd(passwords.into(content, where))


def users_only(
    folder: Path, standing: dict[str, Standing], keys: Keys, doing: Doing, terminal: Terminal
) -> tuple[Passwords, list[WantedFile]]:
    where = str(folder / HTPASSWD)
    content = standing[HTPASSWD].content if HTPASSWD in standing else b""
    if doing.remove_user is not None:
        return Passwords(), [_htpasswd(users.without_user(content, doing.remove_user, where))]
    assert doing.add_user is not None
    known = users.users_of(content, where)
    names = [doing.add_user]
    passwords = passwords_of(names, known, terminal, from_stdin=keys.password_stdin, anew=True)
    return passwords, [_htpasswd(passwords.into(content, where))]


def _user(text: str) -> str:
    users.check_name(text)
    return text


def _htpasswd(content: bytes) -> WantedFile:
    return WantedFile(path=HTPASSWD, content=content, mode=PRIVATE, kind=Kind.USERS)
