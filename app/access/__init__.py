"""Access: keys, the callers that they make of clients, and the budgets of each caller."""
