"""The tests of relproxy/store/."""
