"""Objectives as modules: views, pairs, towers."""
