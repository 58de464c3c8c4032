"""What people look at: progress on the terminal, the last screen, the HTML report."""

from jaxlm.reports.page import write_report
from jaxlm.reports.terminal import Terminal, final_screen, training_line

__all__ = ["Terminal", "final_screen", "training_line", "write_report"]
