"""Supply: the candidates that the policy needs, so that no control gives way for want of retrieval."""
