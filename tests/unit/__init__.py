"""One file of tests for each source file."""
