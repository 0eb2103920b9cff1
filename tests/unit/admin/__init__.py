"""The tests of relproxy/admin/."""
