"""What a HOME tells: runs, how they stand, what they cost, what they made."""
