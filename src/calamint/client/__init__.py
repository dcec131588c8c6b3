"""HTTP as people use it."""
