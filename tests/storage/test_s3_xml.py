"""What S3 servers write, well and badly, read as it is meant or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regstore.storage.s3.failures import Malformed, Refusal
from regstore.storage.s3.xml import (
    parse_document,
    parse_expected,
    parse_http_time,
    parse_list,
    parse_refusal,
    parse_time,
    unquote_key,
)
from tests.storage.fake_s3 import listing

MOMENT = 1795428000123000


def test_columns() -> None:
    page = parse_list(listing("a", "b", truncated=True, token="t").encode())
    assert (page.keys, page.sizes, page.etags) == (["a", "b"], [71, 71], ["abc", "abc"])
    assert page.mtimes == [MOMENT, MOMENT]
    assert (page.truncated, page.token, page.version) == (True, "t", 2)


@pytest.mark.parametrize("namespace", ["", 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"', 'xmlns="urn:other"'])
def test_any_namespace(namespace: str) -> None:
    page = parse_list(listing("a", namespace=namespace).encode())
    assert page.keys == ["a"]
    assert not page.truncated


def test_entities_are_text() -> None:
    assert parse_list(listing("a&amp;b&lt;&#233;&#x0D;", encoding=False).encode()).keys == ["a&b<é\r"]


def test_url_encoding_is_undone_only_where_it_was_said() -> None:
    assert parse_list(listing("a%2Bb+c%25%0A").encode()).keys == ["a+b c%\n"]
    assert parse_list(listing("a%2Bb+c", encoding=False).encode()).keys == ["a%2Bb+c"]


@pytest.mark.parametrize("etag", ["abc", "&quot;abc&quot;", '"abc"'])
def test_etags_with_and_without_quotes(etag: str) -> None:
    assert parse_list(listing("a", etag=etag).encode()).etags == ["abc"]


def test_an_entry_without_etag_shifts_nothing() -> None:
    body = listing("a", "b").replace("<ETag>&quot;abc&quot;</ETag>", "", 1).replace("abc", "of-b")
    page = parse_list(body.encode())
    assert page.etags == ["", "of-b"]
    empty = listing("a", "b").replace("&quot;abc&quot;", "", 1)
    assert parse_list(empty.encode()).etags == ["", "abc"]


@pytest.mark.parametrize(
    "gone", ["<Size>71</Size>", "<Key>a</Key>", "<LastModified>2026-11-23T10:00:00.123Z</LastModified>"]
)
def test_an_entry_without_key_size_or_time_is_refused(gone: str) -> None:
    with pytest.raises(Malformed):
        parse_list(listing("a", "b").replace(gone, "", 1).encode())


def test_every_truncation_is_refused() -> None:
    body = listing("a", "b").encode()
    for length in range(len(body)):
        with pytest.raises(Malformed):
            parse_list(body[:length])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Welcome</body></html>",
        b"<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
        b"<ListBucketResult><IsTruncated>maybe</IsTruncated></ListBucketResult>",
        b'<!DOCTYPE x [<!ENTITY e "boo">]><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>',
    ],
)
def test_what_is_no_listing_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse_list(body)


def test_no_file_is_read_for_an_entity(tmp_path: object) -> None:
    with pytest.raises(Malformed):
        parse_document(b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]><a>&e;</a>')


def test_an_error_within_a_200_is_an_error() -> None:
    with pytest.raises(Refusal) as caught:
        parse_expected(b"<Error><Code>InternalError</Code><Message>again</Message></Error>", "CopyObjectResult")
    assert caught.value.code == "InternalError"
    assert caught.value.transient


def test_refusals() -> None:
    said = parse_refusal(404, b"<Error><Code>NoSuchKey</Code><Message>m</Message></Error>")
    assert (said.status, said.code, said.message) == (404, "NoSuchKey", "m")
    assert parse_refusal(502, b"<html>bad").code == ""
    assert parse_refusal(502, b"").transient
    assert not parse_refusal(501, b"<Error><Code>NotImplemented</Code></Error>").transient
    assert not parse_refusal(403, b"<Error><Code>RequestTimeTooSkewed</Code></Error>").transient


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_keys_survive_url_encoding(key: str) -> None:
    from urllib.parse import quote, quote_plus

    assert unquote_key(quote_plus(key)) == key
    assert unquote_key(quote(key)) == key


def test_a_key_that_is_not_utf_8_shows_its_bytes() -> None:
    assert unquote_key("a%FFb") == "a\\xffb"


def test_times() -> None:
    assert parse_time("2026-11-23T10:00:00.123Z") == MOMENT
    assert parse_time("2026-11-23T10:00:00Z") == MOMENT - 123000
    assert parse_time("2026-11-23T11:00:00.123+01:00") == MOMENT
    assert parse_http_time("Mon, 23 Nov 2026 10:00:00 GMT") == MOMENT - 123000
    for parse in (parse_time, parse_http_time):
        with pytest.raises(Malformed):
            parse("yesterday")
