"""Two examples of each command, as its help shows them: the words after `regstore`."""

from __future__ import annotations

from typing import Final

EXAMPLES: Final = {
    "ls": ("ls /srv/registry --long", "ls s3://my-registry team/"),
    "tags": ("tags /srv/registry team/app", "tags s3://my-registry team/app --sort version --long"),
    "inspect": ("inspect /srv/registry team/app:1.1", "inspect s3://my-registry team/app:1.1 --config"),
    "du": ("du /srv/registry", "du s3://my-registry team/ --sort name"),
    "serve": (
        "serve /srv/registry --listen 127.0.0.1:5055",
        "serve s3://backups/registry --snapshot latest",
    ),
    "report": (
        "report /srv/registry --html registry.html",
        "report /srv/backup --snapshot latest --html then.html",
    ),
    "gc": (
        "gc s3://my-registry --delete-untagged --dry-run",
        "gc s3://my-registry --keep-newest 10 --protect-tag latest --delete-untagged --yes",
    ),
    "rm": ("rm /srv/registry team/app:1.0", "rm /srv/registry team/old --recursive --dry-run"),
    "untag": ("untag /srv/registry team/app:1.0", "untag /srv/registry team/app:1.0 team/app:1.1 --yes"),
    "tag": ("tag /srv/registry team/app:1.1 stable", "tag /srv/registry team/app:1.0 stable --force"),
    "heal": ("heal /srv/registry --dry-run", "heal s3://my-registry"),
    "locks": ("locks s3://my-registry", "locks s3://my-registry --break-lock"),
    "trash list": ("trash list /srv/registry", "trash list s3://my-registry --json"),
    "trash restore": (
        "trash restore /srv/registry",
        "trash restore /srv/registry --run 20261125T174939Z-4b8032d4 --repo team/app",
    ),
    "trash empty": (
        "trash empty /srv/registry --older-than 7d",
        "trash empty s3://my-registry --registry-cache none --yes",
    ),
    "migrate": (
        "migrate /srv/registry s3://my-registry --create",
        "migrate s3://old s3://new --dst-endpoint-url https://minio:9000 --follow",
    ),
    "export": (
        "export /srv/registry team/app:1.0 team/worker /srv/gap.tar",
        "export /srv/backup team/app /srv/layout --snapshot latest",
    ),
    "import": (
        "import /srv/gap.tar s3://my-registry --dry-run",
        "import /srv/layout /srv/registry team/app:1.0 --overwrite-tags",
    ),
    "backup create": (
        "backup create s3://my-registry /srv/backup --create",
        "backup create /srv/registry s3://backups/registry --repo 'team/*'",
    ),
    "backup list": ("backup list /srv/backup", "backup list s3://backups/registry --json"),
    "backup show": ("backup show /srv/backup", "backup show /srv/backup 2026-11-24"),
    "backup diff": (
        "backup diff /srv/backup 2026-11-24 latest",
        "backup diff /srv/backup 2026-11-24 latest --json",
    ),
    "backup check": (
        "backup check /srv/backup --read-data all",
        "backup check /srv/backup --read-data 10% --max-age 30d --time-limit 2h",
    ),
    "backup prune": (
        "backup prune /srv/backup --keep-last 7 --keep-weekly 4 --dry-run",
        "backup prune /srv/backup --keep-daily 14 --keep-monthly 6 --yes",
    ),
    "backup restore": (
        "backup restore /srv/backup s3://new-bucket --create",
        "backup restore /srv/backup /srv/registry --snapshot 2026-11-24 --repo team/app",
    ),
    "restore": (
        "restore /srv/backup s3://new-bucket --create",
        "restore /srv/backup /srv/registry --snapshot 2026-11-24 --repo team/app",
    ),
    "verify": (
        "verify /srv/registry --read-data 10% --max-age 30d",
        "verify /srv/registry --repair-from /srv/backup",
    ),
    "doctor": ("doctor /srv/registry", "doctor s3://my-registry --write-probe"),
    "seed-bucket": ("seed-bucket s3://my-registry", "seed-bucket s3://my-registry --check"),
    "init": (
        "init /srv/deployment --host registry.example.org --store s3://my-registry",
        "init /srv/deployment --check",
    ),
    "run": ("run nightly", "run nightly --dry-run"),
    "schema": ("schema", "schema backup create"),
    "config show": ("config show", "config show gc --store prod"),
    "config check": ("config check", "config check --json"),
    "demo": ("demo", "demo --keep"),
    "help": ("help gc", "help backup create"),
}
