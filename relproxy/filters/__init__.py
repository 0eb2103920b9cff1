"""Decisions, and nothing but: bytes and values in, bytes and values out."""
