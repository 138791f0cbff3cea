"""PostgreSQL: a role made for each lease."""
