"""What relproxy understood is what the registry does, as other readers see it."""
