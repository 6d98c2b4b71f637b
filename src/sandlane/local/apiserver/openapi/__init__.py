"""OpenAPI documents of what the server serves: version 3 by group version, and version 2 as one document."""
