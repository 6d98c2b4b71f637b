"""Validating and mutating webhooks: the rules of the API, plus what needs the cluster to be checked."""
