"""Suites: a file each, one pure function of features, labels and config."""
