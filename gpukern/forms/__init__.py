"""How each form of kernel is executed: templates that become generated modules."""
