"""Storage backends: a disk and S3 behind one protocol (`base`)."""
