"""The S3 operations of the in-memory endpoint: from a parsed request to a response, without I/O.

Path style, no signature check. `x-amz-checksum-*` headers are accepted and neither checked nor kept; conditions are
honoured on PUT and GET of an object (`If-None-Match: *`, `If-Match`).
"""

from __future__ import annotations

import base64
import re
import time
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote, unquote_plus
from xml.etree import ElementTree

from benchmarks.s3_objects import Bucket, Object, iso, md5, xml_text

_XML = b'<?xml version="1.0" encoding="UTF-8"?>\n'
_NS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_XML_TYPE = b"Content-Type: application/xml\r\n"
_OK_TYPE = b"Content-Type: application/octet-stream\r\n"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")
#: Headers kept with an object and sent back on GET and HEAD.
_KEPT = ("content-type", "content-encoding", "cache-control", "content-disposition")
_STATUS = {
    "AccessDenied": 403,
    "BadDigest": 400,
    "BucketNotEmpty": 409,
    "EntityTooSmall": 400,
    "InvalidArgument": 400,
    "InvalidPart": 400,
    "InvalidRange": 416,
    "MalformedXML": 400,
    "MethodNotAllowed": 405,
    "NotImplemented": 501,
    "PreconditionFailed": 412,
}
#: Bucket subresources that clients ask for and this endpoint has not: what AWS answers where none is set.
_UNSET = {
    "cors": "NoSuchCORSConfiguration",
    "encryption": "ServerSideEncryptionConfigurationNotFoundError",
    "lifecycle": "NoSuchLifecycleConfiguration",
    "object-lock": "ObjectLockConfigurationNotFoundError",
    "policy": "NoSuchBucketPolicy",
    "publicAccessBlock": "NoSuchPublicAccessBlockConfiguration",
    "tagging": "NoSuchTagSet",
}
_SUBRESOURCES = ("acl", "policyStatus", "ownershipControls", "replication", "website", "logging", *_UNSET)


class Response(NamedTuple):
    status: int
    headers: bytes  # whole lines, without Content-Length
    body: bytes | bytearray | memoryview = b""
    length: int = -1  # of a HEAD's body, which is not sent


class Failure(Exception):
    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.message = message

    def response(self) -> Response:
        if self.code == "NotModified":
            return Response(304, b"")
        status = _STATUS.get(self.code, 404)
        text = f"<Error><Code>{self.code}</Code><Message>{xml_text(self.message or self.code)}</Message></Error>"
        return Response(status, _XML_TYPE, _XML + text.encode())


class Upload:
    def __init__(self, key: str, started: int, headers: bytes) -> None:
        self.key = key
        self.started = started
        self.headers = headers
        self.parts: dict[int, Object] = {}


class Endpoint:
    """All buckets, and the counts of what was asked."""

    def __init__(self) -> None:
        self.buckets: dict[str, Bucket] = {}
        self.uploads: dict[tuple[str, str], Upload] = {}  # (bucket, upload id)
        self.counts: Counter[str] = Counter()  # operation -> requests
        self.bytes_in = 0  # bodies of requests
        self.bytes_out = 0  # bodies of responses
        self._next_upload = 1
        self._thrown_away = 0

    def serve(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | bytearray,
        thrown_away: int = 0,
    ) -> Response:
        """Answers one request; `headers` has lower-case names, `target` is as it stood in the request line.

        Of a body of which `thrown_away` bytes were received and not kept, `body` is empty.
        """
        self._thrown_away = thrown_away
        path, _, query_text = target.partition("?")
        if path.startswith("http"):  # absolute form
            path = "/" + path.partition("://")[2].partition("/")[2]
        bucket, _, key = path[1:].partition("/")
        if "%" in key:
            key = unquote(key)
        self.bytes_in += len(body) + thrown_away
        try:
            if not query_text and bucket and key and method == "GET":
                self.counts["GetObject"] += 1
                return self._get(self._bucket(bucket), key, headers, True)
            query = _query(query_text)
            if not bucket:
                return self._service(method)
            if key:
                return self._object(method, bucket, key, query, headers, body)
            return self._bucket_request(method, bucket, query, headers, body)
        except Failure as failure:
            self.counts[f"error {failure.code}"] += 1
            return failure.response()

    def empty(self, name: str) -> None:
        """Makes a bucket, or takes all out of it, unfinished uploads too."""
        self.buckets[name] = Bucket()
        self.uploads = {names: upload for names, upload in self.uploads.items() if names[0] != name}

    # Service and bucket

    def _service(self, method: str) -> Response:
        self.counts["ListBuckets"] += 1
        if method != "GET":
            raise Failure("MethodNotAllowed")
        entries = "".join(
            f"<Bucket><Name>{name}</Name><CreationDate>{iso(0)}</CreationDate></Bucket>"
            for name in sorted(self.buckets)
        )
        owner = "<Owner><ID>bench</ID><DisplayName>bench</DisplayName></Owner>"
        return _xml("ListAllMyBucketsResult", f"{owner}<Buckets>{entries}</Buckets>")

    def _bucket(self, name: str) -> Bucket:
        try:
            return self.buckets[name]
        except KeyError:
            raise Failure("NoSuchBucket", f"The bucket {name} does not exist") from None

    def _bucket_request(
        self, method: str, name: str, query: dict[str, str], headers: Mapping[str, str], body: bytes | bytearray
    ) -> Response:
        count = self.counts
        if method == "GET" or method == "HEAD":
            bucket = self._bucket(name)
            if method == "HEAD":
                count["HeadBucket"] += 1
                return Response(200, b"x-amz-bucket-region: us-east-1\r\n")
            if "location" in query:
                count["GetBucketLocation"] += 1
                return Response(200, _XML_TYPE, _XML + f"<LocationConstraint {_NS}/>".encode())
            if "versioning" in query:
                count["GetBucketVersioning"] += 1
                return _xml("VersioningConfiguration", "")
            if "uploads" in query:
                count["ListMultipartUploads"] += 1
                return self._list_uploads(name, query)
            for subresource in _SUBRESOURCES:
                if subresource in query:
                    count[f"GetBucket {subresource}"] += 1
                    raise Failure(_UNSET.get(subresource, "NotImplemented"))
            if query.get("list-type") == "2":
                count["ListObjectsV2"] += 1
                return _list(bucket, name, query, 2)
            count["ListObjects"] += 1
            return _list(bucket, name, query, 1)
        if method == "POST" and "delete" in query:
            count["DeleteObjects"] += 1
            return self._delete_many(self._bucket(name), headers, body)
        if any(subresource in query for subresource in ("versioning", *_SUBRESOURCES)):
            count[f"{method} bucket subresource"] += 1
            raise Failure("NotImplemented")
        if method == "PUT":
            count["CreateBucket"] += 1
            self.buckets.setdefault(name, Bucket())
            return Response(200, f"Location: /{name}\r\n".encode())
        if method == "DELETE":
            count["DeleteBucket"] += 1
            if self._bucket(name).objects:
                raise Failure("BucketNotEmpty")
            del self.buckets[name]
            return Response(204, b"")
        raise Failure("MethodNotAllowed")

    def _list_uploads(self, name: str, query: dict[str, str]) -> Response:
        prefix = query.get("prefix", "")
        found = sorted(
            (upload.key, identifier, upload.started)
            for (bucket, identifier), upload in self.uploads.items()
            if bucket == name and upload.key.startswith(prefix)
        )
        marker = (query.get("key-marker", ""), query.get("upload-id-marker", ""))
        if marker[0] and not marker[1]:
            found = [entry for entry in found if entry[0] > marker[0]]
        elif marker[0]:
            found = [entry for entry in found if entry[:2] > marker]
        limit = _limit(query, "max-uploads")
        truncated = len(found) > limit
        found = found[:limit]
        url_encoded = query.get("encoding-type") == "url"
        text = (
            f"<Bucket>{name}</Bucket><Prefix>{_name(prefix, url_encoded)}</Prefix><MaxUploads>{limit}</MaxUploads>"
        )
        text += f"<IsTruncated>{str(truncated).lower()}</IsTruncated>"
        if url_encoded:
            text += "<EncodingType>url</EncodingType>"
        if truncated:
            text += f"<NextKeyMarker>{_name(found[-1][0], url_encoded)}</NextKeyMarker>"
            text += f"<NextUploadIdMarker>{found[-1][1]}</NextUploadIdMarker>"
        for key, identifier, started in found:
            text += f"<Upload><Key>{_name(key, url_encoded)}</Key><UploadId>{identifier}</UploadId>"
            text += f"<StorageClass>STANDARD</StorageClass><Initiated>{iso(started)}</Initiated></Upload>"
        return _xml("ListMultipartUploadsResult", text)

    def _delete_many(self, bucket: Bucket, headers: Mapping[str, str], body: bytes | bytearray) -> Response:
        _check_md5(headers, body)
        try:
            root = ElementTree.fromstring(bytes(body))
        except ElementTree.ParseError:
            raise Failure("MalformedXML") from None
        quiet = False
        keys: list[str] = []
        for element in root:
            tag = element.tag.rpartition("}")[2]
            if tag == "Quiet":
                quiet = (element.text or "").strip() == "true"
            elif tag == "Object":
                keys += [child.text or "" for child in element if child.tag.rpartition("}")[2] == "Key"]
        if len(keys) > 1_000:
            raise Failure("MalformedXML", "more than 1,000 keys")
        for key in keys:
            bucket.delete(key)
        text = "" if quiet else "".join(f"<Deleted><Key>{xml_text(key)}</Key></Deleted>" for key in keys)
        return _xml("DeleteResult", text)

    # Objects

    def _object(
        self,
        method: str,
        name: str,
        key: str,
        query: dict[str, str],
        headers: Mapping[str, str],
        body: bytes | bytearray,
    ) -> Response:
        count = self.counts
        bucket = self._bucket(name)
        if method == "GET" and "uploadId" in query:
            count["ListParts"] += 1
            return self._list_parts(name, key, query)
        if method == "GET" and ("tagging" in query or "acl" in query or "retention" in query):
            count["GetObject subresource"] += 1
            raise Failure("NotImplemented")
        if method == "GET":
            count["GetObject"] += 1
            return self._get(bucket, key, headers, True)
        if method == "HEAD":
            count["HeadObject"] += 1
            return self._get(bucket, key, headers, False)
        if method == "PUT" and "uploadId" in query:
            copied = "x-amz-copy-source" in headers
            count["UploadPartCopy" if copied else "UploadPart"] += 1
            return self._upload_part(name, key, query, headers, body)
        if method == "PUT" and "x-amz-copy-source" in headers:
            count["CopyObject"] += 1
            return self._copy(bucket, key, headers)
        if method == "PUT":
            count["PutObject"] += 1
            if "tagging" in query or "acl" in query or "retention" in query:
                raise Failure("NotImplemented")
            return self._put(bucket, key, headers, body)
        if method == "DELETE" and "uploadId" in query:
            count["AbortMultipartUpload"] += 1
            self._upload(name, key, query)
            del self.uploads[name, query["uploadId"]]
            return Response(204, b"")
        if method == "DELETE":
            count["DeleteObject"] += 1
            bucket.delete(key)
            return Response(204, b"")
        if method == "POST" and "uploads" in query:
            count["CreateMultipartUpload"] += 1
            identifier = f"upload-{self._next_upload:08}"
            self._next_upload += 1
            self.uploads[name, identifier] = Upload(key, int(time.time()), _kept_headers(headers))
            text = f"<Bucket>{name}</Bucket><Key>{xml_text(key)}</Key><UploadId>{identifier}</UploadId>"
            return _xml("InitiateMultipartUploadResult", text)
        if method == "POST" and "uploadId" in query:
            count["CompleteMultipartUpload"] += 1
            return self._complete(bucket, name, key, query, body)
        raise Failure("MethodNotAllowed")

    def _get(self, bucket: Bucket, key: str, headers: Mapping[str, str], with_body: bool) -> Response:
        item = bucket.objects.get(key)
        if item is None:
            raise Failure("NoSuchKey", "The specified key does not exist.")
        if (expected := headers.get("if-match")) and expected != "*" and expected.strip('"') != item.etag:
            raise Failure("PreconditionFailed")
        if (known := headers.get("if-none-match")) and known.strip('"') in ("*", item.etag):
            raise Failure("NotModified")
        start, end, status, extra = 0, item.size, 200, b""
        if (asked := headers.get("range")) and (match := _RANGE.match(asked)) and match[0] != "bytes=-":
            if match[1]:
                start = int(match[1])
                end = min(item.size, int(match[2]) + 1) if match[2] else item.size
            else:
                start = max(0, item.size - int(match[2]))
            if start >= item.size or end <= start:
                raise Failure("InvalidRange")
            status, extra = 206, f"Content-Range: bytes {start}-{end - 1}/{item.size}\r\n".encode()
        lines = b'ETag: "%s"\r\nLast-Modified: %s\r\nAccept-Ranges: bytes\r\n%s%s' % (
            item.etag.encode(),
            http_date(item.mtime),
            item.headers or _OK_TYPE,
            extra,
        )
        if not with_body:
            return Response(status, lines, b"", end - start)
        self.bytes_out += end - start
        return Response(status, lines, item.read(start, end))

    def _source(self, headers: Mapping[str, str]) -> Object:
        name, _, key = unquote(headers["x-amz-copy-source"].partition("?")[0]).lstrip("/").partition("/")
        item = self._bucket(name).objects.get(key)
        if item is None:
            raise Failure("NoSuchKey", "The source does not exist.")
        expected = headers.get("x-amz-copy-source-if-match")
        if expected and expected.strip('"') != item.etag:
            raise Failure("PreconditionFailed")
        return item

    def _copy(self, bucket: Bucket, key: str, headers: Mapping[str, str]) -> Response:
        source = self._source(headers)
        replaced = headers.get("x-amz-metadata-directive") == "REPLACE"
        kept = _kept_headers(headers) if replaced else source.headers
        etag = source.etag if "-" not in source.etag or len(source.body) < source.size else md5(source.body)
        item = Object(source.body, source.size, etag, int(time.time()), kept)
        bucket.put(key, item)
        text = f"<LastModified>{iso(item.mtime)}</LastModified><ETag>&quot;{etag}&quot;</ETag>"
        return _xml("CopyObjectResult", text)

    def _put(self, bucket: Bucket, key: str, headers: Mapping[str, str], body: bytes | bytearray) -> Response:
        present = bucket.objects.get(key)
        if headers.get("if-none-match") == "*" and present is not None:
            raise Failure("PreconditionFailed")
        expected = headers.get("if-match")
        if expected is not None and (present is None or expected.strip('"') != present.etag):
            raise Failure("PreconditionFailed")
        etag = self._etag(headers, body)
        bucket.put(key, Object(body, len(body) + self._thrown_away, etag, int(time.time()), _kept_headers(headers)))
        return Response(200, b'ETag: "%s"\r\n' % etag.encode())

    def _etag(self, headers: Mapping[str, str], body: bytes | bytearray) -> str:
        if not self._thrown_away:
            return _check_md5(headers, body)
        self._next_upload += 1
        return f"{self._next_upload:032x}-1"  # as of a multipart upload: no client takes it for an MD5

    # Multipart uploads

    def _upload(self, name: str, key: str, query: dict[str, str]) -> Upload:
        upload = self.uploads.get((name, query["uploadId"]))
        if upload is None or upload.key != key:
            raise Failure("NoSuchUpload")
        return upload

    def _upload_part(
        self, name: str, key: str, query: dict[str, str], headers: Mapping[str, str], body: bytes | bytearray
    ) -> Response:
        upload = self._upload(name, key, query)
        number = int(query.get("partNumber", "0"))
        if not 1 <= number <= 10_000:
            raise Failure("InvalidArgument")
        now = int(time.time())
        if "x-amz-copy-source" in headers:
            source = self._source(headers)
            start, end = 0, source.size
            if match := _RANGE.match(headers.get("x-amz-copy-source-range", "")):
                start, end = int(match[1]), int(match[2]) + 1
                if end > source.size:
                    raise Failure("InvalidRange")
            copied = bytes(source.read(start, end))
            upload.parts[number] = part = Object(copied, end - start, md5(copied), now)
            text = f"<LastModified>{iso(now)}</LastModified><ETag>&quot;{part.etag}&quot;</ETag>"
            return _xml("CopyPartResult", text)
        etag = self._etag(headers, body)
        upload.parts[number] = Object(body, len(body) + self._thrown_away, etag, now)
        return Response(200, f'ETag: "{etag}"\r\n'.encode())

    def _list_parts(self, name: str, key: str, query: dict[str, str]) -> Response:
        upload = self._upload(name, key, query)
        marker = int(query.get("part-number-marker") or 0)
        limit = _limit(query, "max-parts")
        numbers = sorted(number for number in upload.parts if number > marker)
        truncated = len(numbers) > limit
        numbers = numbers[:limit]
        text = f"<Bucket>{name}</Bucket><Key>{xml_text(key)}</Key><UploadId>{query['uploadId']}</UploadId>"
        text += f"<IsTruncated>{str(truncated).lower()}</IsTruncated><MaxParts>{limit}</MaxParts>"
        if truncated:
            text += f"<NextPartNumberMarker>{numbers[-1]}</NextPartNumberMarker>"
        for number in numbers:
            part = upload.parts[number]
            text += f"<Part><PartNumber>{number}</PartNumber><LastModified>{iso(part.mtime)}</LastModified>"
            text += f"<ETag>&quot;{part.etag}&quot;</ETag><Size>{part.size}</Size></Part>"
        return _xml("ListPartsResult", text)

    def _complete(
        self, bucket: Bucket, name: str, key: str, query: dict[str, str], body: bytes | bytearray
    ) -> Response:
        upload = self._upload(name, key, query)
        try:
            root = ElementTree.fromstring(bytes(body))
        except ElementTree.ParseError:
            raise Failure("MalformedXML") from None
        parts: list[Object] = []
        for element in root:
            fields = {child.tag.rpartition("}")[2]: child.text or "" for child in element}
            part = upload.parts.get(int(fields.get("PartNumber", "0")))
            if part is None or fields.get("ETag", "").strip('"') != part.etag:
                raise Failure("InvalidPart")
            parts.append(part)
        if not parts:
            raise Failure("MalformedXML")
        if any(part.size < 5 << 20 for part in parts[:-1]):
            raise Failure("EntityTooSmall")
        del self.uploads[name, query["uploadId"]]
        etag = f"{md5(b''.join(bytes.fromhex(part.etag[:32]) for part in parts))}-{len(parts)}"
        size = sum(part.size for part in parts)
        whole = b"".join(part.body for part in parts) if all(len(part.body) == part.size for part in parts) else b""
        bucket.put(key, Object(whole, size, etag, int(time.time()), upload.headers))
        text = f"<Location>/{name}/{quote(key)}</Location><Bucket>{name}</Bucket><Key>{xml_text(key)}</Key>"
        return _xml("CompleteMultipartUploadResult", f"{text}<ETag>&quot;{etag}&quot;</ETag>")


def _check_md5(headers: Mapping[str, str], body: bytes | bytearray) -> str:
    etag = md5(body)
    stated = headers.get("content-md5")
    if stated and base64.b64encode(bytes.fromhex(etag)).decode() != stated:
        raise Failure("BadDigest")
    return etag


def _kept_headers(headers: Mapping[str, str]) -> bytes:
    lines = ""
    for name, value in headers.items():
        if name in _KEPT or name.startswith("x-amz-meta-"):
            if name == "content-encoding":
                value = ", ".join(part for part in value.replace(" ", "").split(",") if part != "aws-chunked")
            if value:
                lines += f"{name}: {value}\r\n"
    if lines and "content-type: " not in lines:
        lines += "content-type: application/octet-stream\r\n"
    return lines.encode("latin-1")


def _query(text: str) -> dict[str, str]:
    query: dict[str, str] = {}
    if text:
        for part in text.split("&"):
            name, _, value = part.partition("=")
            query[name] = unquote_plus(value) if "%" in value or "+" in value else value
    return query


def _limit(query: dict[str, str], name: str) -> int:
    try:
        return min(1_000, int(query.get(name) or 1_000))
    except ValueError:
        raise Failure("InvalidArgument", name) from None


def _name(text: str, url_encoded: bool) -> str:
    return quote(text, safe="/~") if url_encoded else xml_text(text)


def _list(bucket: Bucket, name: str, query: dict[str, str], version: int) -> Response:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    limit = _limit(query, "max-keys")
    url_encoded = query.get("encoding-type") == "url"
    token = query.get("continuation-token", "")
    after = query.get("start-after" if version == 2 else "marker", "")
    if token:
        try:
            after = base64.urlsafe_b64decode(token).decode()
        except ValueError:
            raise Failure("InvalidArgument", "The continuation token provided is incorrect") from None
    page = bucket.page(prefix, after, delimiter, limit, url_encoded)
    text = f"<Name>{name}</Name><Prefix>{_name(prefix, url_encoded)}</Prefix><MaxKeys>{limit}</MaxKeys>"
    text += f"<IsTruncated>{str(page.truncated).lower()}</IsTruncated>"
    if url_encoded:
        text += "<EncodingType>url</EncodingType>"
    if delimiter:
        text += f"<Delimiter>{_name(delimiter, url_encoded)}</Delimiter>"
    if version == 2:
        text += f"<KeyCount>{len(page.entries)}</KeyCount>"
        if token:
            text += f"<ContinuationToken>{token}</ContinuationToken>"
        elif after:
            text += f"<StartAfter>{_name(after, url_encoded)}</StartAfter>"
        if page.truncated:
            token = base64.urlsafe_b64encode(page.last.encode()).decode()
            text += f"<NextContinuationToken>{token}</NextContinuationToken>"
    else:
        text += f"<Marker>{_name(after, url_encoded)}</Marker>"
        if page.truncated:
            text += f"<NextMarker>{_name(page.last, url_encoded)}</NextMarker>"
    body = b"".join((_XML, f"<ListBucketResult {_NS}>{text}".encode(), *page.entries, b"</ListBucketResult>"))
    return Response(200, _XML_TYPE, body)


def _xml(root: str, text: str) -> Response:
    return Response(200, _XML_TYPE, _XML + f"<{root} {_NS}>{text}</{root}>".encode())


_dates: dict[int, bytes] = {}


def http_date(seconds: int) -> bytes:
    found = _dates.get(seconds)
    if found is None:
        if len(_dates) > 10_000:
            _dates.clear()
        parts = time.gmtime(seconds)
        day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[parts.tm_wday]
        month = "JanFebMarAprMayJunJulAugSepOctNovDec"[3 * parts.tm_mon - 3 : 3 * parts.tm_mon]
        text = f"{day}, {parts.tm_mday:02} {month} {parts.tm_year} "
        found = (text + f"{parts.tm_hour:02}:{parts.tm_min:02}:{parts.tm_sec:02} GMT").encode()
        _dates[seconds] = found
    return found
