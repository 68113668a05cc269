// save.h - one save: several files of a directory, written beside their targets, which take their places together.
//
//     static bool add_files(Save *save) { return save_document(save, "config.json", &d) && slots_save(save, ...) && ...; }
//     ...
//     Save save;
//     return save_begin(&save, dir, error, size) && save_end(&save, add_files(&save));
//
// All files are on the disk before the first takes its place (file.h): no room, no change. Between begin and end every function
// returns false after one line in the `error` that save_begin was given; hand the result to save_end, which cleans up.

#ifndef SAVE_H
#define SAVE_H

#include "file.h"

#include <stdio.h>

// The files of a save, in the order in which they will take their places.
typedef struct Save {
    const char *dir;
    FileWriter *files[12];
    int    count;
    char  *error;          // where a message goes, and how much room it has
    size_t size;
} Save;

// Makes `dir`, with the directories above it, if it is missing, and removes what a process that died has left there. `dir` and
// `error` must last until save_end. On error there is nothing to end.
bool save_begin(Save *save, const char *dir, char *error, size_t size);

// Whether the directory has something of that name.
bool directory_holds(const char *dir, const char *name);

// Adds a file, which now belongs to the save. NULL, from a writer that could not begin: false.
bool save_add(Save *save, FileWriter *writer);

// If all went well (good), the files take their places; else all is as it was. True: they have. Ends the save in any case.
bool save_end(Save *save, bool good);
// Ends it as if something had failed: nothing changes. True: nothing has, all of it is on the disk beside its targets.
bool save_abort(Save *save, bool good);

// A small text file, written with fprintf(d.out, ...) between document_open and what ends it: save_document, which adds it to
// the save unless the file on the disk is already as it should be, and frees it; or document_close, after which d.text[length]
// can be read, and is the caller's to free, even if it returns false: out of memory. document_open exits if there is none at all.
typedef struct Document { char *text; size_t length; FILE *out; } Document;
void document_open(Document *d);
bool document_close(Document *d, char *error, size_t size);
bool save_document(Save *save, const char *name, Document *d);

// Old tensors must not stand beside a new configuration or vocabulary, not even for the time between two renames: where one of
// these changes, the tensors are removed first. save_mark keeps the place for that, before the documents are added;
// save_replace, after them, knows whether there were any.
int  save_mark(Save *save);
bool save_replace(Save *save, int mark, const char *tensors);

#endif
