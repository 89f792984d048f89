"""Lookups by DuckDB: of frames, of files, and of few tasks."""
