"""Floor 3: answer and steer. The page service, the control plane that editors write to, and the console."""
