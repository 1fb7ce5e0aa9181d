"""Reads a backup by what the format's text says, without regstore."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from typing import Any


def problems(objects: Mapping[str, bytes]) -> list[str]:
    """What is wrong with the listed snapshots: none of it, in a sound backup. objects: key to body."""
    found = []
    for key, body in objects.items():
        if not key.startswith("snapshots/") or key.endswith("/"):
            continue
        if hashlib.sha256(body).hexdigest() != key[-69:-5]:
            found.append(f"{key}: another digest")
            continue
        for name, known in json.loads(body)["repositories"].items():
            found += [f"{key}: {name}: {problem}" for problem in _pack_problems(objects, known["pack"])]
    return found


def _pack_problems(objects: Mapping[str, bytes], encoded: str) -> list[str]:
    data = objects.get(f"packs/{encoded[:2]}/{encoded}.jsonl.gz")
    if data is None:
        return [f"no pack {encoded}"]
    body = gzip.decompress(data)
    if hashlib.sha256(body).hexdigest() != encoded:
        return [f"pack {encoded} has another digest"]
    found = []
    lines = [json.loads(line) for line in body.splitlines()]
    blobs = {line["digest"] for line in lines if line["kind"] == "blob"}
    layers = {line["digest"]: line["target"] for line in lines if line["kind"] == "layer"}
    manifests: dict[str, dict[str, Any]] = {}
    for line in lines:
        if line["kind"] == "blob":
            algorithm, _, hexadecimal = line["digest"].partition(":")
            blob = objects.get(f"blobs/{algorithm}/{hexadecimal[:2]}/{hexadecimal}")
            if blob is None or hashlib.new(algorithm, blob).hexdigest() != hexadecimal or len(blob) != line["size"]:
                found.append(f"blob {line['digest']} is lost or damaged")
        elif line["kind"] == "manifest":
            lacking = [need for need in line["needs"] if not {need, layers.get(need, need)} & blobs]
            found += [f"{line['digest']} needs {need}, which is not in the pack" for need in lacking]
            manifests[line["digest"]] = line
        elif line["kind"] == "tag" and line["digest"] not in manifests:
            found.append(f"tag {line['tag']} names no manifest of the pack")
    return found


def tags(objects: Mapping[str, bytes], key: str) -> dict[str, str]:
    """`name:tag` to digest, of one snapshot."""
    found = {}
    for name, known in json.loads(objects[key])["repositories"].items():
        encoded = known["pack"]
        for line in gzip.decompress(objects[f"packs/{encoded[:2]}/{encoded}.jsonl.gz"]).splitlines():
            entry = json.loads(line)
            if entry["kind"] == "tag":
                found[f"{name}:{entry['tag']}"] = entry["digest"]
    return found


def snapshots(objects: Mapping[str, bytes]) -> list[str]:
    """The keys of the snapshots, oldest first."""
    return sorted(key for key in objects if key.startswith("snapshots/") and not key.endswith("/"))
