"""Who may do what: RBAC rules, and the reviews that answer questions about them."""
