"""The tests of relproxy/identity/."""
