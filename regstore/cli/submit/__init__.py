"""A folder for one file: who runs a file finds what is beside it before all else, also in place of `inspect`."""
