// palette.h - the one palette for kinds of bytes, of web/kinds.csv, for pictures that are drawn in C: each kind's name, and its
// colours as the classes k0, k1, ... of an SVG, light and dark.

#ifndef PALETTE_H
#define PALETTE_H

#include "memory.h"

typedef struct Palette { char name[MEMORY_KINDS][32], light[MEMORY_KINDS][8], dark[MEMORY_KINDS][8]; } Palette;

// Reads the file. What is not as the engine has it ends the program.
Palette palette_read(void);
// The rules, for a <style>: .k0{fill:...}, and what differs in the dark.
void    palette_rules(const Palette *p);

#endif
