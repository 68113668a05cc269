    // Not done yet. y = a b with a [N,I], b [I,O], y [N,O]; dy [N,O] is dL/dy. Write dL/da = dy b^T into da [N,I]:
    // added to what is there, or, if n->first, stored, for then da holds nothing yet. Only the share of `part`: matmul() of
    // matmul.h sees to that (work_of(n, part) is its scratch); loops of your own take share(part, N, 1) rows (parallel.h).
    // Who calls it: backward(), for matmul's input 0 and for the input x of op_linear, whether b trains or not.
    (void)dy, (void)da, (void)part, (void)N, (void)I, (void)O;
