"""Real parts, installed and run on loopback: for the demo, the tests and the benchmarks.

Nothing in here ships with relproxy. Each part is installed from the package index into a virtual
environment of its own below `.venvs/`, so that its dependencies never meet relproxy's.
"""
