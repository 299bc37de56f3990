"""`bncheck gate`: files first, then both modes, then float against quantized; one verdict, within its budgets.

Whatever runs the model runs in a process of its own (`child`), so that a budget can end it, or a crash of native code
does, without losing what was found before. Nothing here imports TensorFlow.
"""
