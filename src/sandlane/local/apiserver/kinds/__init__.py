"""The built-in kinds: one declarative table, and what each kind does beyond the common rules.

`table` names them all; `strategy` turns a row into what the write pipeline asks of a kind. The other modules hold
defaults and validation by family: metadata, pods, workloads, services, configuration, and the rest.
"""
