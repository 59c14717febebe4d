"""Sweeps: what varies, the stages that follow, how its cells stand."""
