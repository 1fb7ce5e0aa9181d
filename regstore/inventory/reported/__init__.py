"""Blobs as an S3 Inventory report has them, in place of their listing: candidates only, older than the links.

    from regstore.inventory.reported import BlobsFrom
    from regstore.inventory.scan import ScanOptions

    ScanOptions(blobs_from=BlobsFrom.parse("s3-inventory:s3://reports/b/daily/2026-11-28T01-00Z/manifest.json"))

What a report says, and what it can't: a blob that came after it is not in it, and one that is in it may be gone, or be
another by now. So of a store whose blobs are `reported`

- *links, tags and uploads* come from a fresh listing, always, and so does the mark of a metadata database (one LIST);
- what is *missing* is asked for first: a blob that something names and the report lacks is looked for in the store
  (`again`, through `Reported.find`) before anybody goes by its absence;
- what *goes or is gone by* is looked at again first (`again`): gc removes a blob only by the facts of this second look,
  and relies on a manifest in a repository that loses something only when that look has shown it (`gc.reported`);
- whatever else is below blobs/ (litter, markers) is not taken from a report, so nothing of that goes.

report          what a report's manifest.json says, read and judged: pure
place           where its files lie: a bucket, or a folder; each is checked by its MD5 before it is read
rows            its rows into the inventory, by DuckDB; ORC by pyarrow
again           a second look at chosen blobs, by as few requests as that takes
blobs           all of it, as a scan uses it (`Reported`)

Tables, in the inventory's own schema `main`: reported_known(digest): those looked at in this run, of which `blob` says
what is there now; of all others it says what the report does.
"""

from regstore.inventory.reported.blobs import Reported
from regstore.inventory.reported.report import BlobsFrom

__all__ = ["BlobsFrom", "Reported"]
