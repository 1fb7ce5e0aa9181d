"""A registry's storage as relations: scan it once, then plan in SQL."""
