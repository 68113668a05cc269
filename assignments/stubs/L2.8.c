    // Not done yet. For each of the o->count parameters t = o->parameters[i]:
    //     - it does not require a gradient: drop_moments(o, i), for it may have been frozen since, and must not drift
    //     - it does, and has no moments yet (o->m[i] is NULL): o->m[i] and o->v[i] become zeros() of its size
    // Who calls it: adamw_step, before anything else changes; without moments it cannot go on.
    (void)zeros;
    check(o->count == 0, "prepare_moments is not done yet");
