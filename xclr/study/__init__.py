"""Studies: one question, the number that answers it and the comparisons, written down before anything is trained."""
