"""One store is one place, however it is written; two are two."""

from __future__ import annotations

from pathlib import Path

from regstore.storage.disk import DiskStorage
from regstore.storage.identity import identity_of
from regstore.storage.s3 import S3Settings, S3Storage


def test_a_folder_by_any_path(tmp_path: Path) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    paths = [tmp_path / "real", tmp_path / "link", tmp_path / "real/sub/.."]
    assert {identity_of(DiskStorage(path)) for path in paths} == {str((tmp_path / "real").resolve())}


def bucket(endpoint: str | None, root: str = "") -> S3Storage:
    return S3Storage(
        S3Settings(
            bucket="registry", root=root, endpoint_url=endpoint, region="eu-west-1", access_key="a", secret_key="b"
        )
    )


def test_buckets_of_one_name() -> None:
    one = identity_of(bucket("http://127.0.0.1:1"))
    assert one == identity_of(bucket("http://127.0.0.1:1/"))
    others = {identity_of(bucket("http://127.0.0.1:2")), identity_of(bucket("http://127.0.0.1:1", "reg"))}
    assert len(others | {one}) == 3
    assert "AWS" in identity_of(bucket("https://s3.eu-west-1.amazonaws.com"))
