"""The store that several servers share: a PostgreSQL database."""
