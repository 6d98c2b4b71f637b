"""Who manages which field: sets of fields, server-side apply, and the bookkeeping of updates (structured merge)."""
