"""The parametric head: shapes, expressions, and where the 68 landmarks lie on it."""
