"""What a registry, or what stands before it, says in an answer, and what to do about it. Pure."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from regstore.deployment.check.client import Answer
from regstore.deployment.check.result import Red
from regstore.words import printable

_TITLE: Final = re.compile(rb"<title[^>]*>\s*(.{1,80}?)\s*</title>", re.IGNORECASE | re.DOTALL)
_LONGEST: Final = 300
LOG: Final = "the registry's log says why"
_SETTINGS: Final = "the registry's `storage` section, and its keys"

AGAIN: Final = "make it again with `regstore seed-bucket`, and restore the backup into it"

#: What the storage drivers of the registry say, and the cure.
_STORAGE: Final = (
    (
        "NoSuchBucket",
        f"the bucket is gone: {AGAIN}",
    ),
    ("AccessDenied", "give the registry's keys the rights that they lack: `regstore init` writes the policy"),
    ("Forbidden", "give the registry's keys the rights that they lack: `regstore init` writes the policy"),
    (
        "InvalidAccessKeyId",
        f"the store does not know the registry's access key: put the right one into {_SETTINGS}",
    ),
    ("SignatureDoesNotMatch", f"the registry's secret key is wrong: put the right one into {_SETTINGS}"),
    ("ExpiredToken", "the registry's session token has ended: give it keys that last, or a role"),
    ("certificate", "the registry does not trust the store's certificate: give it the authority"),
    ("no such host", f"the registry does not find the store's host: see `regionendpoint` in {_SETTINGS}"),
    ("connection refused", "the store does not answer the registry: start it, or see `regionendpoint`"),
    ("timeout", "the store does not answer the registry: see that it is up, and reached from the registry's host"),
    ("Path not found", "the store is empty: `regstore seed-bucket` makes it a healthy one"),
    ("permission denied", "give the folder to the user that the registry runs as"),
    ("no space left", "free space on the disk of the store, or give it more"),
    ("no such file", "the folder of the store is gone: make it again, or mount it"),
)


def storage_cure(text: str) -> str:
    """For what a storage driver said."""
    low = text.lower()
    return next((cure for word, cure in _STORAGE if word.lower() in low), f"see to the store; {LOG}")


def errors_of(answer: Answer) -> list[dict[str, Any]]:
    """The errors that a registry lists; none where it isn't a registry's answer."""
    try:
        found = json.loads(answer.body)["errors"]
        return [error for error in found if isinstance(error, dict)]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def code_of(answer: Answer) -> str:
    return next((str(error.get("code", "")) for error in errors_of(answer)), "")


def is_page(answer: Answer) -> bool:
    """HTML, which no registry answers."""
    kind = answer.headers.get("content-type", "").lower()
    return "html" in kind or answer.body[:200].lstrip()[:15].lower().startswith((b"<!doctype", b"<html"))


def said(answer: Answer) -> str:
    """`GET /v2/ was answered 503 (UNAVAILABLE: service unavailable: …)`."""
    words = ""
    if is_page(answer):
        title = _TITLE.search(answer.body)
        words = "a page of HTML" + (f", {shortened(title[1].decode(errors='replace'))!r}" if title else "")
    elif errors := errors_of(answer):
        error = errors[0]
        detail = error.get("detail")
        shown = detail if isinstance(detail, str) else _dumped(detail) if detail else ""
        words = ": ".join(filter(None, (str(error.get("code", "")), str(error.get("message", "")), shown)))
    elif answer.body and answer.status >= 300:
        words = answer.body[:_LONGEST].decode(errors="replace")
    return f"{answer.request} was answered {answer.status}" + (f" ({shortened(words)})" if words else "")


def refusal(answer: Answer, right: str) -> Red:
    """For an answer that is not the one that was to come. right: what the registry must be allowed in its store for it,
    such as "write": its own word for a right that lacks is "unknown error"."""
    detail, status, code = said(answer), answer.status, code_of(answer)
    text = answer.body[:4096].decode(errors="replace")
    if is_page(answer) or (status in (502, 504) and not code):
        cure = (
            "have what stands before the registry pass /v2/ on to it as it comes, whatever the method and the size"
        )
    elif status == 503:
        cure = f"see the line of the storage health; {LOG}"
    elif status >= 500 and "DriverName" in text:
        detail = f"{answer.request} was answered {status}: the registry's {_driver(answer)} storage failed"
        known = storage_cure(text)
        cure = (
            f"give the registry's keys the right to {right} (`regstore init` writes the policy), and see that the "
            f"store is there and has space; {LOG}"
            if known.startswith("see to")
            else known
        )
    elif status in (401, 403):
        cure = "let this user do it: give --user one who may push and remove, or change what guards the registry"
    elif status == 405 or code == "UNSUPPORTED":
        cure = "end its read-only mode (storage.maintenance.readonly in config.yml)"
    elif status == 413:
        cure = "have what stands before the registry take large bodies (nginx: client_max_body_size 0)"
    elif status == 429:
        cure = "wait, and check again: something counts the requests"
    elif status in (404, 301, 302, 307, 308):
        cure = "see that the address is the registry's own, and that what stands before it passes all of /v2/ on"
    else:
        cure = LOG
    return Red(detail, cure)


def _driver(answer: Answer) -> str:
    detail = errors_of(answer)[0].get("detail") if errors_of(answer) else None
    return str(detail.get("DriverName", "")) if isinstance(detail, dict) else ""


def _dumped(detail: object) -> str:
    try:
        return json.dumps(detail)
    except RecursionError:
        return ""


def shortened(words: str) -> str:
    """One line that can be shown, of no more than a few."""
    short = " ".join(words.split())
    return printable(short if len(short) <= _LONGEST else short[: _LONGEST - 1] + "…")
