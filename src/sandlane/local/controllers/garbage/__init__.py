"""Garbage collection by owner references. `graph` knows who owns whom (pure), `controller` deletes."""
