"""A read-only registry straight from a store, or from a backup.

mounts      which repositories there are, and in what store each lies
api         the registry API: manifests, blobs, tags, catalogue, referrers (OCI distribution specification 1.1)
accept      which of a manifest's forms a client takes
bodies      a blob as an answer: whole, or a range; from a disk's file, or streamed
answers     errors as the specification wants them
access      passwords
server      the listening server around all of it
"""
