"""Who is asking: the providers that vouch for a caller."""
