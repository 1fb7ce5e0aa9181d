"""The XML that S3 answers with, as columns and records. Pure: bytes in, values out.

Some servers use no namespace, so names are looked up in whichever the root has. Anything that is not the whole
expected document raises Malformed; it never passes as an empty answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from itertools import compress
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from regstore.storage.base import ARCHIVE_CLASSES
from regstore.storage.s3.failures import Malformed, Refusal, WebPage, is_web_page

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class ListedPage:
    """One LIST answer; keys as the server has them, whole. token: None when the server gave none.

    archived: as in `storage.base.Page`.
    version: 1 when the server answered a V2 question in the old form (it then ignored start-after).
    """

    keys: list[str]
    sizes: list[int]
    etags: list[str]
    mtimes: list[int]
    truncated: bool
    token: str | None
    version: int
    archived: dict[str, str] = field(default_factory=dict)

    def only(self, wanted: Sequence[bool]) -> ListedPage:
        """Of its entries, the wanted ones."""
        return replace(
            self,
            keys=list(compress(self.keys, wanted)),
            sizes=list(compress(self.sizes, wanted)),
            etags=list(compress(self.etags, wanted)),
            mtimes=list(compress(self.mtimes, wanted)),
        )


@lru_cache(maxsize=8192)
def parse_time(text: str) -> int:
    """An ISO 8601 time as microseconds since 1970, UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Malformed(f"{text!r} is not a time") from error
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND


def parse_http_time(text: str) -> int:
    """The value of a Date or Last-Modified header, as microseconds; such headers have whole seconds."""
    try:
        return (parsedate_to_datetime(text) - _EPOCH) // _MICROSECOND
    except (ValueError, TypeError) as error:
        raise Malformed(f"{text!r} is not a time") from error


def parse_document(body: bytes) -> Any:
    """The root element. Malformed unless the body is one whole XML document."""
    from lxml import etree

    try:
        root = etree.fromstring(body, _parser())
    except etree.XMLSyntaxError as error:
        if is_web_page(body):
            raise WebPage("the answer is a web page") from error
        raise Malformed(f"the answer is not whole XML: {error}") from error
    if local_name(root).lower() == "html":
        raise WebPage("the answer is a web page")
    if root.getroottree().docinfo.internalDTD is not None:
        raise Malformed("the answer has a document type, which S3 never sends")
    return root


def _parser() -> Any:
    from lxml import etree

    return etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, remove_comments=True)


def local_name(element: Any) -> str:
    tag: str = element.tag
    return tag.rpartition("}")[2]


def _namespace(element: Any) -> str:
    tag: str = element.tag
    return tag[: tag.index("}") + 1] if tag.startswith("{") else ""


def parse_expected(body: bytes, root_name: str | tuple[str, ...]) -> Any:
    """The root element, which has one of these names. An `<Error>` document, which some operations send with
    status 200, raises Refusal."""
    root = parse_document(body)
    name = local_name(root)
    if name in ((root_name,) if isinstance(root_name, str) else root_name):
        return root
    if name == "Error":
        raise refusal_from(root, 200)
    raise Malformed(f"the answer is a <{name}>, not a <{root_name}>")


def refusal_from(root: Any, status: int) -> Refusal:
    ns = _namespace(root)
    code = root.findtext(f"{ns}Code") or ""
    # An error within a 200 that gives no code is the server's own failure.
    return Refusal(
        status,
        code or ("InternalError" if status == 200 else ""),
        root.findtext(f"{ns}Message") or "",
        root.findtext(f"{ns}Region") or "",
    )


def parse_refusal(status: int, body: bytes) -> Refusal:
    """What an error's body says; without a (valid) one, only the status."""
    if body:
        try:
            root = parse_document(body)
        except Malformed:
            return Refusal(status, body=body)
        if local_name(root) == "Error":
            return refusal_from(root, status)
    return Refusal(status, body=body)


def unquote_key(text: str) -> str:
    """Undo `encoding-type=url`, where `+` is a space; octets that are not UTF-8 become `\\xNN`."""
    if "%" not in text and "+" not in text:
        return text
    return unquote_to_bytes(text.replace("+", " ")).decode("utf-8", "backslashreplace")


def parse_list(body: bytes) -> ListedPage:
    """ListBucketResult, of ListObjectsV2 or of ListObjects."""
    root = parse_expected(body, "ListBucketResult")
    ns = _namespace(root)
    truncated = root.findtext(f"{ns}IsTruncated")
    if truncated not in ("true", "false"):
        raise Malformed("the listing does not say whether it is truncated")
    count, columns = _columns(ns[1:-1])
    keys, sizes, etags, mtimes = (column(root) for column in columns)
    number = int(count(root))
    if not len(keys) == len(sizes) == len(etags) == len(mtimes) == number:
        keys, sizes, etags, mtimes = _walk(root, ns)
    if root.findtext(f"{ns}EncodingType") == "url":
        joined = "".join(keys)
        if "%" in joined or "+" in joined:
            keys = list(map(unquote_key, keys))
    old = root.find(f"{ns}Marker") is not None and root.find(f"{ns}KeyCount") is None
    try:
        numbers = list(map(int, sizes))
    except ValueError as error:
        raise Malformed("the listing has a size that is no number") from error
    return ListedPage(
        keys,
        numbers,
        [etag.strip('"') for etag in etags],
        list(map(parse_time, mtimes)),
        truncated == "true",
        root.findtext(f"{ns}NextContinuationToken") or None,
        1 if old else 2,
        _find_archived(root, ns, body, keys),
    )


def _find_archived(root: Any, ns: str, body: bytes, keys: list[str]) -> dict[str, str]:
    """Of hardly any page: so the elements are looked at only where such a word stands in it (as in GLACIER_IR, too)."""
    if not any(name.encode() in body for name in ARCHIVE_CLASSES):
        return {}
    classes = [entry.findtext(f"{ns}StorageClass") for entry in root.iterfind(f"{ns}Contents")]
    return {key: name for key, name in zip(keys, classes, strict=True) if name in ARCHIVE_CLASSES}


@lru_cache(maxsize=8)
def _columns(namespace: str) -> tuple[Callable[[Any], float], tuple[Callable[[Any], list[str]], ...]]:
    # One XPath a column takes a third of the time of walking the elements.
    from lxml import etree

    names = {"s": namespace} if namespace else None
    prefix = "s:" if namespace else ""

    def compiled(path: str) -> Any:
        return etree.XPath(path, namespaces=names, smart_strings=False)

    return compiled(f"count({prefix}Contents)"), tuple(
        compiled(f"{prefix}Contents/{prefix}{name}/text()") for name in ("Key", "Size", "ETag", "LastModified")
    )


def _walk(root: Any, ns: str) -> tuple[list[str], list[str], list[str], list[str]]:
    """For listings with elements missing or empty; only the ETag may be."""
    columns: tuple[list[str], list[str], list[str], list[str]] = ([], [], [], [])
    for entry in root.iterfind(f"{ns}Contents"):
        key, size, time = (entry.findtext(ns + name) for name in ("Key", "Size", "LastModified"))
        if not key or not size or not time:
            raise Malformed("the listing has an entry without key, size or time")
        values = (key, size, entry.findtext(f"{ns}ETag") or "", time)
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return columns


def texts(root: Any, *names: str) -> list[str]:
    """The text of each named child, "" for one that is not there."""
    ns = _namespace(root)
    return [root.findtext(ns + name) or "" for name in names]


def children(root: Any, name: str) -> list[Any]:
    return list(root.iterfind(_namespace(root) + name))
