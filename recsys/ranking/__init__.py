"""Does this viewer want it? Calibrated probabilities per action, and the utility they are worth."""
