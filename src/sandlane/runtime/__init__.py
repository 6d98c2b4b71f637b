"""The controller runtime: manager, controllers, work queue, leader election, events, webhooks, metrics, health."""
