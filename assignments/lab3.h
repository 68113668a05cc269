// lab3.h - what Lab 3's tasks expect. In the project it comes from predict.c; in a handout, where that file would give the answer away,
// from numbers that were published with it.

#ifndef LAB3_H
#define LAB3_H

#include "claims.h"

// false: not known here.
bool lab3_memory(Shape s, bool lora, Memory *m);
bool lab3_claims(Shape s, Claims *c);

#endif
