"""Where jobs run: one class for each way, behind one protocol (executor.py)."""
