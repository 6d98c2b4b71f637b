"""The routes API: which sandbox takes the place of which workload for which key, for message consumers and tools.

Every replica of the manager serves it, over gRPC (`routes.proto`) and over HTTP as JSON.
"""
