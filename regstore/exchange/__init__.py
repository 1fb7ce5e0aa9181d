"""Images out of a store and into one, as OCI image layouts: for air gaps, and for tools that read layouts.

image_layout   the files of a layout, and the names in its index
gathering      an export's plan: what is named, all that it needs, what refers to it
exporting      its application: blobs, and index.json last
places         a folder, or a tar file: written (`tar_writing`) and read (`tar_reading`) with no copy of it elsewhere
choosing       what of a layout goes to which repository
packing        an import's plan: what is to be imported, read and verified, as packs of a backup
importing      its application: blobs, links, tags, by the hand that restores a backup
"""
