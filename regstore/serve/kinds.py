"""What a manifest is, in one or two words, by its types and by the tag that it hangs on."""

from __future__ import annotations

from typing import Final

from regstore import manifest

_KINDS: Final = {
    manifest.DOCKER_MANIFEST: "image",
    manifest.OCI_MANIFEST: "image",
    manifest.DOCKER_LIST: "multi-platform",
    manifest.OCI_INDEX: "multi-platform",
    manifest.DOCKER_SCHEMA1: "schema 1",
    manifest.DOCKER_SCHEMA1_SIGNED: "schema 1",
    manifest.OCI_ARTIFACT: "artifact",
    manifest.ORAS_ARTIFACT: "artifact",
}
#: What stands in the artifact types of the tools that attach things: cosign, notation, BuildKit, syft, trivy, in-toto.
_ATTACHED: Final = (
    ("vnd.dev.cosign.simplesigning", "signature"),
    ("vnd.dev.cosign.artifact.sig", "signature"),
    ("vnd.dev.sigstore.bundle", "signature"),
    ("vnd.cncf.notary.signature", "signature"),
    ("vnd.in-toto", "attestation"),
    ("vnd.dsse.envelope", "attestation"),
    ("spdx", "SBOM"),
    ("cyclonedx", "SBOM"),
    ("syft", "SBOM"),
    ("sarif", "scan report"),
)
#: The suffixes of cosign's older tags.
_SUFFIXES: Final = {"sig": "signature", "att": "attestation", "sbom": "SBOM"}


def kind_of(media_type: str | None) -> str:
    """`image`, `multi-platform`, or the media type itself; `unknown` where there is none."""
    return _KINDS.get(media_type or "", media_type or "unknown")


def types_of(words: str) -> list[str]:
    """The media types whose kind, or whose own text, contains the words; none for no words."""
    text = words.lower()
    return [media_type for media_type, kind in _KINDS.items() if text and (text in kind or text in media_type)]


def attached_kind(tag: str | None, media_type: str | None) -> str:
    """`signature`, `SBOM`, … by the tag's suffix or the artifact type; `referrers` for the index of the OCI fallback
    tag; else the type."""
    if tag is not None:
        suffix = tag.partition(".")[2]
        if suffix:
            return _SUFFIXES.get(suffix, suffix)
        return "referrers" if media_type == manifest.OCI_INDEX else kind_of(media_type)
    lower = (media_type or "").lower()
    return next((name for sign, name in _ATTACHED if sign in lower), kind_of(media_type))
