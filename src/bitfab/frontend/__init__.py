"""Front ends: each builds the float normal form, a torch.fx.GraphModule of standard modules and a few functions."""
