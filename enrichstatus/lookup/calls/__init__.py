"""Calls to a source that take their time: awaited, shared by several polls, and answered by another clock."""
