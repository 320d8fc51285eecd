"""The page solver: finds the best page under constraints and relaxes controls by priority if no page is feasible."""
