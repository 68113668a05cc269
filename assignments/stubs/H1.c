    // Not done yet. y = gelu(x), elementwise, and dy is dL/dy; the formula is above. If n->first, dx IS dy: multiply it by the
    // slope; otherwise add the slope times dy to dx. Only the elements elements(n, part).
    // Who calls it: backward(), for op_gelu between the two layers of a block's net.
    (void)n, (void)dy, (void)dx, (void)part;
