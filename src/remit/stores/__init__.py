"""Where state and audit live: in SQLite."""
