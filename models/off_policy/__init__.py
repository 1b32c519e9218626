"""Off-policy evaluation: estimates the reward of a policy from the log of another one."""
