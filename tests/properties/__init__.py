"""What holds for any input: isolation, paging, round trips."""
