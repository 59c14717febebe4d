"""What this machine, its data sets and its cluster have and lack."""
