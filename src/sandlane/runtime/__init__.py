"""The controller runtime: manager, controllers, work queue, leader election, events, finalizers, webhooks, metrics, health."""
