"""The tests of relproxy/cli/."""
