"""What experiments say: outcomes of arms, and the statistics by which one of them may win."""
