"""Garbage collection: options, the plan (pure), and its application."""
