    // Not done yet. W += scale A B in place, with A [I,R], B [R,O], W [I,O]: the share of `part` only. One call of product();
    // values(t) is a tensor's numbers as a matrix, scaled(M, s) a matrix times s.
    // Who calls it: linear_merge, which has kept the weight's old bytes, once for each part.
    const Linear *linear = context;
    (void)linear, (void)part;
