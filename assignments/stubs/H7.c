    // Not done yet. One head: q, k, v, dy and the gradients dq, dk, dv are [T,D]; element(M, i, j) points to a number of one. The
    // formula is above `dots`. stats bring P back: p[j] = e^(s[j] - stats[2 t]) stats[2 t + 1] for j <= t.
    // Add to dq, dk and dv; begin(M) makes one that is empty zeros, and leaves the others alone. `room` has place for 2 T numbers.
    // Who calls it: attention_grad in ops_gpt.c, for each head of its part.
    (void)dq, (void)dk, (void)dv, (void)dy, (void)q, (void)k, (void)v, (void)stats, (void)begin;
