"""The tests of relproxy/filters/."""
