// found.h - Lab 3: a test that notices one bug.

#ifndef FOUND_H
#define FOUND_H

#include <stdbool.h>

// true: the engine does what it should; false: it has the bug.
bool engine_is_right(void);

#endif
