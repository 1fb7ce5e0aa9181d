"""What is to be read and hashed, and what was: for stores and backups alike."""
