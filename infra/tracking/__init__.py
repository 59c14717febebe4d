"""MLflow: what is logged, and where its pages are."""
