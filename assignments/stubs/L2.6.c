    // Not done yet. W += scale A B in place, with A [I,R], B [R,O], W [I,O]: the share of `part` only. matmul() of matmul.h can
    // start from W and write to W; its scratch is merge->work + part.index * merge->scratch.
    // Who calls it: linear_merge, which has kept the weight's old bytes, once for each part.
    (void)W, (void)I, (void)R, (void)O, (void)part;
