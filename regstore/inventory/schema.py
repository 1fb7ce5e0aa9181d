"""The texts of `schema.sql`, `vocabulary.sql`, `decode.sql` and `ingest.sql`, with the keys and regular expressions of
`layout` and `reference` in place of {their names}."""

from __future__ import annotations

from typing import Final

from regstore import layout
from regstore.digest import HEX_LENGTH
from regstore.inventory.statements import Statements
from regstore.reference import DIGEST_TAG_RE, NAME_MAX_LENGTH, NAME_RE

_FRAGMENTS: Final = {
    "prefix": layout.PREFIX,
    "blobs": layout.BLOBS,
    "repositories": layout.REPOSITORIES,
    "name": layout.NAME_RE,
    "digest": layout.DIGEST_PATH_RE,
    "blob": "|".join(f"{algorithm}/[0-9a-f]{{2}}/[0-9a-f]{{{length}}}" for algorithm, length in HEX_LENGTH.items()),
    "hex_lengths": " ".join(f"when '{algorithm}' then {length}" for algorithm, length in HEX_LENGTH.items()),
    "tag": layout.TAG_RE,
    "uuid": layout.UUID_RE,
    "part": layout.PART_RE,
    "litter_folder": layout.LITTER_FOLDER_RE,
    "litter_file": layout.LITTER_FILE_RE,
    "digest_tag": DIGEST_TAG_RE,
    "repository_name": NAME_RE,
    "repository_name_max": str(NAME_MAX_LENGTH),
}
SCHEMA: Final = Statements("regstore.inventory", "schema.sql", **_FRAGMENTS)
VOCABULARY: Final = Statements("regstore.inventory", "vocabulary.sql", **_FRAGMENTS)
DECODE: Final = Statements("regstore.inventory", "decode.sql", **_FRAGMENTS)
INGEST: Final = Statements("regstore.inventory", "ingest.sql")
