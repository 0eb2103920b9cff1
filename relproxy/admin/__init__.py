"""The listener for operators: health, metrics and relations. It shows every project's records."""
