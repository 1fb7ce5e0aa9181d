"""Blobs are proved: read and hashed against their digests, those of a store and those of a backup alike.

read_data    which ones somebody wants read: all, a share, a part, so many bytes
pick         which ones that makes, and in what order (SQL, pure)
reader       reads and hashes them (streams by `tasks.hashing`), as a `result`
proofs       what was proved before, remembered on this computer; `memory`: in an inventory, while blobs are read
"""
