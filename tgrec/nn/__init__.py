"""Pure layers on tensors; imports nothing else of tgrec."""
