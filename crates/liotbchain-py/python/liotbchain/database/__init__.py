"""Where the Python original had its functions for the database."""
