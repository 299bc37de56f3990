"""Evidence becomes findings, a verdict, and what was not checked."""
