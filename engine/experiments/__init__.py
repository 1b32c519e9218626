"""Runs online experiments: assigns requests to arms, builds the arms' rankings, and logs them."""
