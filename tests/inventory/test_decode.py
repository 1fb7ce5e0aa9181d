"""The SQL that decodes keys says of every key what `layout.decode` says."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import example, given, settings
from hypothesis import strategies as st

from regstore.digest import Digest
from regstore.inventory.inventory import Inventory
from regstore.layout import (
    BLOBS,
    PREFIX,
    REPOSITORIES,
    BlobKey,
    Key,
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

_COLUMNS = "mtime, kind, key, name, digest, revision, label, part"


def as_key(
    kind: str,
    key: str | None,
    name: str | None,
    digest: bytes | None,
    revision: bytes | None,
    label: str | None,
    part: str | None,
) -> Key:
    """What a row of `decoded` says; of what its kind has no use for there must be nothing."""
    digests = [Digest.from_raw(bytes(each)) for each in (revision, digest) if each is not None]
    texts = [each for each in (key, name, label, part) if each is not None]
    match kind:
        case "marker":
            return MarkerKey(texts.pop().removesuffix("/"))
        case "tag_index":
            return TagIndexKey(*texts, *digests)  # type: ignore[arg-type]
    of_kind: dict[str, Callable[..., Key]] = {
        "blob": BlobKey,
        "layer_link": LayerLinkKey,
        "revision_link": RevisionLinkKey,
        "signature_link": SignatureLinkKey,
        "tag": TagCurrentKey,
        "upload_part": UploadKey,
        "litter": LitterKey,
        "unknown": UnknownKey,
    }
    return of_kind[kind](*texts, *digests)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A key with a character too many, too few or another one."""
    text = draw(keys.map(encode))
    place = draw(st.integers(0, len(text)))
    return (
        text[:place]
        + draw(st.sampled_from(["", "/", "_", "a", "A", "0", "/index/", "é"]))
        + text[place + draw(st.integers(0, 1)) :]
    )


@settings(max_examples=30)
@given(st.lists(keys.map(encode) | nearly | litter | damaged(), min_size=1, max_size=40, unique=True))
@example([PREFIX, BLOBS, REPOSITORIES, f"{REPOSITORIES}a//b/", f"{REPOSITORIES}x/./", f"{BLOBS}._", "other/"])
def test_sql_and_python_agree(texts: list[str]) -> None:
    count = len(texts)
    with Inventory() as inventory:
        inventory.ingest([Page(texts, [0] * count, [""] * count, list(range(count)), True)])
        rows = inventory.all(f"select {_COLUMNS} from decoded")
    found = {texts[number]: kind if kind == "seed" else as_key(kind, *row) for number, kind, *row in rows}
    known = {text: decode(text) for text in texts}
    assert found == {text: "seed" if isinstance(key, SeedKey) else key for text, key in known.items()}


def test_a_marker_with_content_is_unknown() -> None:
    with Inventory() as inventory:
        inventory.ingest([Page([f"{REPOSITORIES}a/"], [1], [""], [0], True)])
        assert inventory.all("select key from unknown") == [(f"{REPOSITORIES}a/",)]
        assert inventory.count("litter") == 0
