"""What landmarks are worth: errors against a truth, tables, curves, ablations, and their change over time."""
