"""The broker's protocol (``ports.broker``) between processes: calls, answers and notices as bytes, and both ends."""
