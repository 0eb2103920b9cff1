"""What measures relproxy, beside its peers, in one run."""
