"""Requests over HTTP: sent, repeated, cut off."""
