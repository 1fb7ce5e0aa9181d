"""All files of a deployment that follow from what is asked: of each form its own, and those that all have. Pure."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from regstore.deployment.wanted import Deployment, Form, WantedFile

#: The module of each form; it is imported when it is used.
_FORMS: Final = {
    Form.COMPOSE: "regstore.deployment.compose",
    Form.SYSTEMD: "regstore.deployment.systemd",
    Form.KUBERNETES: "regstore.deployment.kubernetes",
}
_OF_ALL: Final = (
    "regstore.deployment.config_yml",
    "regstore.deployment.policies",
    "regstore.deployment.readme_txt",
)


def generated_files(deployment: Deployment) -> list[WantedFile]:
    found: list[WantedFile] = []
    for name in (*_OF_ALL, _FORMS[deployment.form]):
        found += import_module(name).files(deployment)
    return found
