"""What declared features give: simulated shops of known taste, public data, feature files, and what they cost."""
