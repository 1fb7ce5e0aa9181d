"""The SQL that decodes keys says of every key what `layout.decode` says."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from regstore.inventory.inventory import Inventory
from regstore.layout import (
    BLOBS,
    PREFIX,
    REPOSITORIES,
    BlobKey,
    LayerLinkKey,
    LitterKey,
    MarkerKey,
    RevisionLinkKey,
    SeedKey,
    SignatureLinkKey,
    TagCurrentKey,
    TagIndexKey,
    UnknownKey,
    UploadKey,
    decode,
    encode,
)
from regstore.storage.base import Page
from tests.test_layout import keys, litter, nearly

_KINDS = {
    BlobKey: "blob",
    SeedKey: "seed",
    LayerLinkKey: "layer_link",
    RevisionLinkKey: "revision_link",
    SignatureLinkKey: "signature_link",
    TagCurrentKey: "tag",
    TagIndexKey: "tag_index",
    UploadKey: "upload_part",
    MarkerKey: "marker",
    LitterKey: "litter",
    UnknownKey: "unknown",
}


@settings(max_examples=30)
@given(st.lists(keys.map(encode) | nearly | litter, min_size=1, max_size=40, unique=True))
@example([PREFIX, BLOBS, REPOSITORIES, f"{REPOSITORIES}a//b/", f"{REPOSITORIES}x/./", f"{BLOBS}._", "other/"])
def test_sql_and_python_agree(texts: list[str]) -> None:
    count = len(texts)
    with Inventory() as inventory:
        inventory.ingest([Page(texts, [0] * count, [""] * count, list(range(count)), True)])
        found = dict(inventory.all("select mtime, kind from decoded"))
    assert {text: found[number] for number, text in enumerate(texts)} == {
        text: _KINDS[type(decode(text))] for text in texts
    }


def test_a_marker_with_content_is_unknown() -> None:
    with Inventory() as inventory:
        inventory.ingest([Page([f"{REPOSITORIES}a/"], [1], [""], [0], True)])
        assert inventory.all("select key from unknown") == [(f"{REPOSITORIES}a/",)]
        assert inventory.count("litter") == 0
