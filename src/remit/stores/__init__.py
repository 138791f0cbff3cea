"""Where state and audit live: in memory, in SQLite."""
