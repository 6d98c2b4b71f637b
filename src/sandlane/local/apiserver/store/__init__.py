"""The object store: one resourceVersion sequence, watch history, durable writes."""
