"""Ways to evaluate any pointwise formula, forward and backward; the formula itself knows none of them.

From the bottom up: `graph` holds a computation as data, `trace` makes it from a formula, `emit_c` and `emit_triton`
print it, `build` and `kernels` compile it; `grid` and `lookup` are tables; `plan` is an activation as engines see it,
`fused` and `table` are engines, `differentiable` makes them part of autograd, `operators` part of compiled graphs, and
`select` chooses among them.
"""
