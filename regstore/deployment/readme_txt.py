"""DIR/README.txt: how to start the deployment, how clients trust it and log in, where keys lie, how it is kept. Pure.

For people at a terminal: prose of at most WIDTH columns, commands as they can be pasted, quoted for a shell.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from regstore.deployment import compose, containers, nightly, policies
from regstore.deployment.authority import CA_LIFE, RENEW_WITHIN, SERVER_LIFE
from regstore.deployment.wanted import (
    CA_CERT,
    CA_KEY,
    HTPASSWD,
    REGISTRY_ENV,
    REGSTORE_ENV,
    SECRETS_FOLDER,
    SERVER_CERT,
    SERVER_KEY,
    Cache,
    Deployment,
    Form,
    Tls,
    WantedFile,
)

README: Final = "README.txt"
WIDTH: Final = 78
#: Namespace of Kubernetes in the examples.
_SPACE: Final = "registry"


class Commands(tuple[str, ...]):
    """Lines to be pasted; the others of a section are prose."""

    __slots__ = ()


Parts = Iterator[str | Commands]


def files(deployment: Deployment) -> list[WantedFile]:
    return [WantedFile(path=README, content=render(deployment).encode())]


def render(deployment: Deployment) -> str:
    sections = {
        f"The registry {deployment.address}": _what(deployment),
        "Before it is started": _before(deployment),
        "Start it": _START[deployment.form](deployment),
        "Is it well?": _check(deployment),
        "Make clients trust it": _trust(deployment),
        "Log in": _log_in(deployment),
        "Push and pull": _push(deployment),
        "Users": _users(deployment),
        "Certificates": _certificates(deployment),
        "Every night": _night(deployment),
        "Look before you act: regstore by hand": _by_hand(deployment),
        "Where what is secret lies, and what to back up": _secrets(deployment),
        "Change it": _change(deployment),
    }
    text = []
    for title, parts in sections.items():
        if body := [_laid_out(part) for part in parts]:
            text.append(f"{title}\n{'=' * len(title)}\n\n" + "\n\n".join(body))
    return "\n\n\n".join(text) + "\n"


def client_address(deployment: Deployment) -> str:
    """`host:port` as it best stands in an image's name: skopeo 1.9 and podman 4.3 take no IPv6 address there."""
    named = [name for name in deployment.all_names if ":" not in name]
    return f"{named[0]}:{deployment.port}" if named else deployment.address


def _laid_out(part: str | Commands) -> str:
    if isinstance(part, Commands):
        return "\n".join(f"    {line}" for line in part)
    return textwrap.fill(part, WIDTH, break_long_words=False, break_on_hyphens=False)


def _commands(*lines: Sequence[str] | str) -> Commands:
    """Each a line as it stands, or its words."""
    return Commands(line if isinstance(line, str) else shlex.join(line) for line in lines)


def _in(deployment: Deployment, path: str) -> str:
    """A file of DIR, for a command line."""
    return shlex.quote(str(deployment.folder / path))


# -- what it is


def _what(deployment: Deployment) -> Parts:
    version = "2.8" if deployment.registry == "v2" else "3.x"
    yield (
        f"A private container registry (Distribution {version}) at {deployment.url}, with its images in "
        f"{deployment.store}. `regstore init` made all files here. This one holds no secret."
    )
    if deployment.with_serve:
        scheme = deployment.url.partition("://")[0]
        host = deployment.address.rpartition(":")[0]
        yield (
            f"Beside it, at {scheme}://{host}:{deployment.serve_port}, `regstore serve` shows what is in it, to the "
            "same users."
        )


def _before(deployment: Deployment) -> Parts:
    image = containers.regstore_image(deployment)
    if deployment.in_containers and containers.is_built_here(image):
        yield (
            f"No image of regstore is published. {image} has to be built, from a checkout of regstore; without it the "
            "registry runs, but the nightly job"
            + (" and `serve` do not:" if deployment.with_serve else " does not:")
        )
        yield _commands(["docker", "build", "-t", image, "-f", ".github/Containerfile", "."])
        if deployment.form is Form.KUBERNETES:
            yield (
                "Nodes pull no image of that name. Push it to where they can pull it from, and say so, with "
                "`regstore init ... --regstore-image NAME`."
            )
    if not deployment.on_disk:
        found = [policies.REGISTRY_POLICY, policies.REGSTORE_POLICY]
        yield (
            f"Keys of S3 need no more than {found[0]} says for the registry, and {found[1]} for regstore"
            + (
                f"; `serve` alone could do with {policies.SERVE_POLICY}. These are IAM policies."
                if deployment.with_serve
                else ". These are IAM policies."
            )
        )
        yield (
            f"If {REGISTRY_ENV} and {REGSTORE_ENV} name no keys, a role must give them: of the host, or in Kubernetes "
            "of the service accounts `registry` and `regstore`."
        )
    if deployment.form is Form.KUBERNETES and (claims := containers.folders(deployment)):
        yield (
            f"In Kubernetes, what is asked for as a folder ({', '.join(map(str, claims))}) is a claim of a volume, "
            f"which is empty at first: nothing of the folders here is in it. Sizes and classes of the claims, in "
            "kubernetes/, are guesses; say yours in a kustomization of your own that has this folder as its resource."
        )
    if deployment.tls is Tls.NONE:
        yield (
            "It speaks HTTP, and only within this computer (or cluster). Whatever ends TLS before it must pass on "
            "the Host header and X-Forwarded-Proto, let bodies of any size through, and not gather them first "
            "(nginx: client_max_body_size 0; proxy_request_buffering off)."
        )


def _who(deployment: Deployment) -> str:
    return "root" if deployment.user in ("root", "0") else f"user {deployment.user}"


# -- start


def _start_compose(deployment: Deployment) -> Parts:
    from regstore.deployment.systemd import unit_prefix

    yield "With Docker and its compose plugin (docker-compose 1.29, as Debian 12 has it, reads the file, too):"
    yield _commands(f"cd {shlex.quote(str(deployment.folder))}", "docker compose up -d", "docker compose ps")
    yield f"The containers run as {_who(deployment)}, who must own this folder and those of the store and the backup."
    yield "Once, for the nightly job:"
    # Of this deployment alone: another one's job on this host has another name.
    yield _commands(f"sudo install -m 644 {_in(deployment, compose.CRON)} /etc/cron.d/{unit_prefix(deployment)}")


def _start_systemd(deployment: Deployment) -> Parts:
    from regstore.deployment.systemd import FOLDER, unit_prefix

    prefix = unit_prefix(deployment)
    started = [prefix, *([f"{prefix}-serve"] if deployment.with_serve else [])]
    yield "Once, and again whenever `regstore init` has changed a unit:"
    yield _commands(
        f"sudo install -m 644 {_in(deployment, FOLDER)}/{prefix}* /etc/systemd/system/",
        "sudo systemctl daemon-reload",
        f"sudo systemctl enable --now {' '.join(started)} {prefix}-nightly.timer",
        f"systemctl status {prefix}",
    )
    yield (
        f"They run as {_who(deployment)}, who must own this folder and those of the store and the backup. A registry "
        "that is running takes a changed config.yml or certificate with `systemctl restart`."
    )


def _start_kubernetes(deployment: Deployment) -> Parts:
    yield "kubectl 1.21 or newer makes the Secrets of the files here, so it is run where these are:"
    yield _commands(
        f"kubectl create namespace {_SPACE}",
        f"kubectl -n {_SPACE} apply -k {shlex.quote(str(deployment.folder))}",
        f"kubectl -n {_SPACE} rollout status deployment/registry",
    )
    if deployment.tls is Tls.NONE:
        yield "The service `registry` is for an ingress, which ends TLS."
    else:
        yield (
            f"The service `registry` is a LoadBalancer: {deployment.host} must name the address that "
            f"`kubectl -n {_SPACE} get service registry` shows, for clients and for the nodes that pull."
        )
    yield (
        "Run it again after each change here. A new password or certificate is a new Secret, and makes new pods; the "
        f"old Secret stays until it is deleted (`kubectl -n {_SPACE} get secrets`)."
    )


_START: Final[dict[Form, Callable[[Deployment], Parts]]] = {
    Form.COMPOSE: _start_compose,
    Form.SYSTEMD: _start_systemd,
    Form.KUBERNETES: _start_kubernetes,
}


def _check(deployment: Deployment) -> Parts:
    yield "This asks everything that a client relies on, and says the cure of what fails:"
    yield _commands(["regstore", "init", str(deployment.folder), "--check"])
    if deployment.form is not Form.KUBERNETES:
        answers = (
            "docker compose ps shows it" if deployment.form is Form.COMPOSE else "answers on this computer only"
        )
        yield f"The registry's own health check, of its storage, is on ({answers}):"
        if deployment.form is Form.COMPOSE:
            ask = ["docker", "compose", "exec", "registry", *containers.asks_registry(deployment, "/debug/health")]
        else:
            ask = ["curl", "-f", containers.debug_url(deployment, "/debug/health")]
        yield _commands(ask)


# -- clients


def _trust(deployment: Deployment) -> Parts:
    if deployment.tls is Tls.NONE:
        return
    ca = "ca.crt"
    if deployment.tls is Tls.OWN_CA:
        yield (
            f"Its certificate is signed by an authority of its own, {CA_CERT}, which is no secret. Copy that file to "
            "each client on a way that nobody can change it on, and compare there what this says here:"
        )
        yield _commands(f"openssl x509 -noout -fingerprint -sha256 -in {_in(deployment, CA_CERT)}")
    else:
        yield (
            "Clients trust a certificate of a public authority already, and this is not needed. That of another "
            f"authority they must be given, here as {ca}:"
        )
    folder = client_address(deployment)
    yield "Docker, at once, with no restart:"
    yield _installed(f"/etc/docker/certs.d/{folder}", ca)
    yield "podman, skopeo and buildah; without root, below ~/.config/containers/certs.d instead:"
    yield _installed(f"/etc/containers/certs.d/{folder}", ca)
    yield "containerd, and so most nodes of Kubernetes:"
    yield _installed(f"/etc/containerd/certs.d/{folder}", ca)
    yield (
        "where /etc/containerd/config.toml names that folder (restart containerd after a change), in a section that "
        "has one name in containerd 1.x and another in 2.x:"
    )
    yield _commands(
        '[plugins."io.containerd.grpc.v1.cri".registry]       # 1.x',
        '[plugins."io.containerd.cri.v1.images".registry]     # 2.x',
        '  config_path = "/etc/containerd/certs.d"',
    )
    yield (
        "Or the operating system, and with it curl and all of these, once they are restarted; only where all that the "
        "authority signs may be believed:"
    )
    name = shlex.quote(f"{deployment.host.replace(':', '-')}.crt")
    yield _commands(
        f"sudo cp {ca} /usr/local/share/ca-certificates/{name} && sudo update-ca-certificates    # Debian, Ubuntu",
        f"sudo cp {ca} /etc/pki/ca-trust/source/anchors/{name} && sudo update-ca-trust           # Fedora, RHEL",
    )


def _installed(folder: str, ca: str) -> Commands:
    place = shlex.quote(folder)
    return _commands(f"sudo mkdir -p {place}", f"sudo cp {ca} {place}/ca.crt")


def _log_in(deployment: Deployment) -> Parts:
    address = client_address(deployment)
    yield (
        "Without more, Docker writes the password into ~/.docker/config.json, readable for whoever gets at that file. "
        "Have it keep the password in a store of the system instead (docker-credential-pass, -secretservice, "
        "-osxkeychain, -wincred; Debian: golang-docker-credential-helpers), before the first log-in:"
    )
    yield _commands(f'{{ "credHelpers": {{ "{address}": "secretservice" }} }}')
    yield "in ~/.docker/config.json, beside what is there. Then, and the password is asked for:"
    yield _commands(["docker", "login", "-u", "NAME", address])
    yield "podman keeps a log-in in memory, until the session ends. A job gives a password by standard input:"
    yield _commands(
        ["podman", "login", "-u", "NAME", address],
        f"docker login -u NAME --password-stdin {shlex.quote(address)} < FILE",
    )
    if deployment.form is Form.KUBERNETES:
        yield "Pods pull with a Secret that their namespace has, named in imagePullSecrets of a pod or its account:"
        yield _commands(
            ["podman", "login", "--authfile", "pull.json", "-u", "NAME", address],
            "kubectl create secret generic pull --type=kubernetes.io/dockerconfigjson "
            "--from-file=.dockerconfigjson=pull.json",
            ["rm", "pull.json"],
        )


def _push(deployment: Deployment) -> Parts:
    address = client_address(deployment)
    if "[" in address:
        yield (
            "Many clients (podman 4.3 and skopeo 1.9 among them) take no IPv6 address in an image's name. For these "
            "the registry needs a DNS name: `regstore init ... --name NAME` makes a certificate for it, too."
        )
    image = shlex.quote(f"{address}/team/app:1.0")
    yield _commands(f"docker tag app:1.0 {image}", f"docker push {image}", f"docker pull {image}")


def _users(deployment: Deployment) -> Parts:
    yield (
        f"They are in {HTPASSWD}, as bcrypt hashes, the only ones that the registry takes. All may read and write all."
    )
    folder = str(deployment.folder)
    yield _commands(
        ["regstore", "init", folder, "--add-user", "NAME"], ["regstore", "init", folder, "--remove-user", "NAME"]
    )
    if deployment.form is Form.KUBERNETES:
        yield "Then `kubectl apply -k`, as above."
    else:
        yield "The registry reads that file anew by itself."


def _certificates(deployment: Deployment) -> Parts:
    renewed = ["regstore", "init", str(deployment.folder), "--renew"]
    restart = _RESTART[deployment.form](deployment)
    if deployment.tls is Tls.OWN_CA:
        yield (
            f"The server's is good for {SERVER_LIFE.days} days, the authority's for {CA_LIFE.days // 365} years. A new "
            f"one is made from {RENEW_WITHIN.days} days before the end on; clients, who trust the authority, notice "
            "nothing. `--check` says how long is left."
        )
        yield _commands(renewed, restart)
    elif deployment.tls is Tls.FILES:
        yield (
            f"{SERVER_CERT} and {SERVER_KEY} are copies of what was given. Before they end, give new ones, and restart:"
        )
        yield _commands([*renewed, "--tls-cert", "FILE", "--tls-key", "FILE"], restart)


def _restart_systemd(deployment: Deployment) -> str:
    from regstore.deployment.systemd import unit_prefix

    prefix = unit_prefix(deployment)
    return f"sudo systemctl restart {prefix}" + (f" {prefix}-serve" if deployment.with_serve else "")


def _restart_kubernetes(deployment: Deployment) -> str:
    return f"kubectl -n {_SPACE} apply -k {shlex.quote(str(deployment.folder))}"


_RESTART: Final[dict[Form, Callable[[Deployment], str]]] = {
    Form.COMPOSE: lambda _: "docker compose restart",
    Form.SYSTEMD: _restart_systemd,
    Form.KUBERNETES: _restart_kubernetes,
}


# -- how it is kept


def _night(deployment: Deployment) -> Parts:
    names = [f"`{step['command']}`" for step in nightly.steps(deployment)]
    yield (
        f"At {deployment.nightly:%H:%M} `regstore run {nightly.JOB}` runs {', then '.join(names)}, as "
        f"{nightly.REGSTORE_TOML} says, while the registry serves. Its exit code is 0 when all went well, and 3 when "
        "something was left out and named; any other should wake somebody: 6 means that something is damaged."
    )
    if deployment.backup is None:
        yield (
            "NO BACKUP IS MADE. Give `regstore init` a place for it with --backup, at best in another building: gc "
            "has a way back, and a lost disk or bucket has none."
        )
    else:
        yield (
            "When the backup fails, nothing else runs. Snapshots are never deleted by it; `regstore backup prune` "
            "does, with the rules that you choose. Try once how `regstore restore` brings them back."
        )
    yield (
        "gc takes what nothing refers to; untagged images stay, what is younger than a day stays, and what goes lies "
        "in the trash for a week: `regstore trash restore` undoes a night."
    )
    if deployment.cache is Cache.MEMORY:
        yield (
            "The registry has its descriptor cache in memory, and answers for removed blobs until it is restarted. So "
            "gc frees their space only in a night after a restart of every registry process."
        )
    yield (
        "To be told of a night that failed, or did not come, add a line to "
        f"{REGSTORE_ENV}: a monitor such as healthchecks.io then hears of start, success and failure."
    )
    yield _commands("REGSTORE_RUN_PING_URL=https://hc-ping.com/UUID")
    yield "Start it now, and see what it said:"
    yield _commands(*_RUN_NIGHTLY[deployment.form](deployment))


def _nightly_systemd(deployment: Deployment) -> list[str]:
    from regstore.deployment.systemd import unit_prefix

    unit = f"{unit_prefix(deployment)}-nightly"
    return [f"sudo systemctl start {unit}", f"journalctl -u {unit}", f"systemctl list-timers {unit}.timer"]


_RUN_NIGHTLY: Final[dict[Form, Callable[[Deployment], list[str]]]] = {
    Form.COMPOSE: lambda deployment: [
        f"cd {shlex.quote(str(deployment.folder))}",
        f"docker compose run --rm {compose.NIGHTLY_SERVICE}",
    ],
    Form.SYSTEMD: _nightly_systemd,
    Form.KUBERNETES: lambda _: [
        f"kubectl -n {_SPACE} create job now --from=cronjob/registry-nightly",
        f"kubectl -n {_SPACE} logs -f job/now",
    ],
}


def _by_hand(deployment: Deployment) -> Parts:
    asked = [
        ["gc", nightly.STORE, "--dry-run"],
        ["trash", "list", nightly.STORE],
        ["trash", "restore", nightly.STORE],
    ]
    yield (
        f"What gc would take, what it took, and the way back; `--help` says more of each. {nightly.STORE} is the "
        f"store, as {nightly.REGSTORE_TOML} names it."
    )
    if deployment.form is Form.KUBERNETES:
        yield _commands(*(["regstore", *line] for line in asked))
        yield "in a pod like that of the job, with the arguments of one of these for its own:"
        yield _commands(
            f"kubectl -n {_SPACE} create job look --from=cronjob/registry-nightly --dry-run=client -o yaml > look.yaml"
        )
    else:
        yield _commands(*([*_regstore(deployment), *line] for line in asked))


def _regstore(deployment: Deployment) -> list[str]:
    """regstore as the nightly job has it."""
    if deployment.form is Form.COMPOSE:
        return ["docker", "compose", "run", "--rm", compose.NIGHTLY_SERVICE]
    secrets = f"EnvironmentFile={deployment.seen(REGSTORE_ENV)}"
    environment = [f"--setenv={name}={value}" for name, value in nightly.job_environment(deployment).items()]
    run = ["sudo", "systemd-run", "--pty", f"--uid={deployment.user}", "-p", secrets, *environment]
    return [*run, deployment.regstore_program]


def _secrets(deployment: Deployment) -> Parts:
    found = {
        f"{SECRETS_FOLDER}/": "http.secret of the registry, and the keys of S3 and Redis, where there are any",
        HTPASSWD: "users, and hashes of their passwords",
    }
    if deployment.tls is not Tls.NONE:
        found[SERVER_KEY] = "the key of the server's certificate"
    if deployment.tls is Tls.OWN_CA:
        found[CA_KEY] = "the authority's key: whoever has it can pass for this registry"
    width = max(map(len, found))
    yield Commands(f"{path:{width}}  {what}" for path, what in found.items())
    yield "Only their owner can read these; nothing else here is secret."
    yield (
        "Back up this folder, sealed, when it has changed: with it and the images the same registry stands elsewhere."
        + (
            f" {CA_KEY} is needed to renew only: it may be kept elsewhere, and put back for that."
            if deployment.tls is Tls.OWN_CA
            else ""
        )
    )
    if deployment.backup is not None:
        is_claim = deployment.form is Form.KUBERNETES and "backup" in containers.folders(deployment)
        where = "the claim registry-backup" if is_claim else deployment.backup
        yield f"The images are backed up every night, to {where}; this folder is not."


def _change(deployment: Deployment) -> Parts:
    yield "Run init again with what is to be otherwise. It shows the difference first, and asks:"
    yield _commands(["regstore", "init", str(deployment.folder), "--with-serve"])
    yield (
        "Keys, users and what was edited by hand stay. Then start it again as above."
        + (" Settings of your own are best in a compose.override.yaml." if deployment.form is Form.COMPOSE else "")
    )
