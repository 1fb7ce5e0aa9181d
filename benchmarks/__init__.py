"""Comparisons with other tools, and the in-memory S3 endpoint they run against. Not part of the package."""
