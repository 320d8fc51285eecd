"""Supply: the candidates that the policy needs, so that no control is relaxed for lack of candidates."""
