"""Tests; a test's name is its claim."""
