    // Not done yet. y = gelu(x), elementwise; the formula is above. n->out->grad holds dL/dy and is to hold dL/dx: multiply each
    // number by the slope there, in place (the one op that does). Only the elements elements(n, part).
    // Who calls it: backward(), for op_gelu between the two layers of a block's net.
    (void)n, (void)part;
