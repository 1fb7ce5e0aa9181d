"""Verification: is everything there that the links and manifests of a store promise, and are its bytes right."""
