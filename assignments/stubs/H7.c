    // Not done yet. Input qkv [B,T,3C], result and dy [B,T,C]. head_of(n, index) points into it: q, k, v [T,D] of one head,
    // rows h.row apart, and h.stats, from which P comes back: P[t,j] = e^(S[t,j] - stats[2 t]) stats[2 t + 1] for j <= t.
    // Write dq, dk and dv of each head into dqkv, at the places of q, k and v: added, after begin(n, row, D) of each, which
    // sets them to zero if n->first. Only the heads share(part, B H, 1). work_of(n, part) has room for two blocks of
    // min(T, QUERIES) x T.
    // Who calls it: backward(), for op_attention.
    (void)n, (void)dy, (void)dqkv, (void)part, (void)dot, (void)last_block;
