"""The parametric head: shapes, expressions, and the places of the 68 landmarks."""
