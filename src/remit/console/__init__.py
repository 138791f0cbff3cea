"""What a human sees in a browser: consent, and the decision on one request."""
