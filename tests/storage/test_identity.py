"""One store is one place, however it is written; two are two."""

from __future__ import annotations

from pathlib import Path

from regstore.storage.disk import DiskStorage
from regstore.storage.s3 import S3Settings, S3Storage


def test_a_folder_by_any_path(tmp_path: Path) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    paths = [tmp_path / "real", tmp_path / "link", tmp_path / "real/sub/.."]
    assert {DiskStorage(path).identity() for path in paths} == {str((tmp_path / "real").resolve())}


def bucket(endpoint: str | None, root: str = "") -> S3Storage:
    return S3Storage(
        S3Settings(
            bucket="registry", root=root, endpoint_url=endpoint, region="eu-west-1", access_key="a", secret_key="b"
        )
    )


def test_buckets_of_one_name() -> None:
    one = bucket("http://127.0.0.1:1").identity()
    assert one == bucket("http://127.0.0.1:1/").identity()
    others = {bucket("http://127.0.0.1:2").identity(), bucket("http://127.0.0.1:1", "reg").identity()}
    assert len(others | {one}) == 3
    assert "AWS" in bucket("https://s3.eu-west-1.amazonaws.com").identity()
