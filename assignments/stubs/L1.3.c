    // Not done yet. y = a b with a [N,I], b [I,O], y [N,O]; dy [N,O] is dL/dy. Write dL/db = a^T dy into db [I,O]:
    // added to what is there, or, if n->first, stored, for then db holds nothing yet. Only the share of `part`, as for a.
    // Who calls it: backward(), for matmul's input 1 and for the weight of op_linear, if that trains.
    (void)dy, (void)db, (void)part, (void)N, (void)I, (void)O;
