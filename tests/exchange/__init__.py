"""Images out of a store and into one."""
