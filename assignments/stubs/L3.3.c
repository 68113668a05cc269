    // Not done yet. Somewhere in the tree that you were given for this task is one bug. Return true if the engine does what it
    // should, false if it has the bug. The grader calls this in a right engine, where it must say true, and in the one with the
    // bug, where it must say false (or where check() stops it).
    return true;
