"""Networks that suites judge: checkpoints of ours, and those from elsewhere."""
