"""What a policy would have earned, by the log of another one (off-policy evaluation)."""
