"""A small, realistic registry in a folder, with what years leave behind: what `regstore demo` and examples work on.

Always the same bytes, so always the same digests:

    library/base      one layer that the others share
    team/app          1.0 and 1.1 for two platforms, a signature of 1.1, and `latest`, pushed three times
    team/worker       one tag, on the same base layer
    legacy/import     a link of zero bytes, as a full disk leaves it

and beside them a blob that no repository links, and an upload that was begun and never finished. The images can be
pulled, unpacked and looked into, but not run: there are no programs in them.

images      layers and configs, as bytes
building    the registry of them, in a folder
"""

from regstore.demo_registry.building import AGE, CORRUPT_REPOSITORY, build_demo_registry

__all__ = ["AGE", "CORRUPT_REPOSITORY", "build_demo_registry"]
