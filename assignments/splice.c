// splice.c - takes one function out of a student's file and puts it into the project's.
//
//     splice FUNCTION STUDENT BASE NAME     prints BASE with the student's body of FUNCTION, and with what stands beside it in STUDENT
//                                           and is needed: functions, constants and types that BASE does not have. NAME is what the
//                                           file is called in messages: STUDENT's own name says nothing.
//     splice --region FUNCTION STUDENT BASE NAME    prints these alone, without their comments
//
// It reads C as a compiler does, in the standard's order: trigraphs, lines that end in a backslash, comments, then tokens, digraphs among
// them. What it prints is put together from these tokens. So what was looked at is what is compiled, however it was written. Nothing of
// the student's file but what is told above gets any further, and that must be plain C: what could reach beyond a function is refused,
// with line and reason and exit status 1.

#include <ctype.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 1 << 20 };

typedef enum Kind { NAME, NUMBER, STRING, MARK, DIRECTIVE } Kind; // DIRECTIVE: a whole line that begins with #
typedef struct Token { Kind kind; int line; bool space; char *text; } Token; // space: some stands before it
// What ends with a semicolon, or with the brace of a function. function: its name, or NULL; open: the brace of its body
typedef struct Item { int first, last, open; const char *function; bool taken; } Item;
typedef struct Source { const char *name; Token *tokens; int count; Item *items; int item_count; } Source;

__attribute__((format(printf, 3, 4))) _Noreturn static void refuse(const char *name, int line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s:%d: ", name, line);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    exit(1);
}

static void *room(void *old, size_t size)
{
    void *new = realloc(old, size);
    if (new == NULL) refuse("splice", 0, "out of memory");
    return new;
}

// ---------------------------------------------------------------------------------------------------------------------- reading

typedef struct Text { char *at; int *line; int count; } Text; // characters after trigraphs and spliced lines, each with its line

static Text read_text(const char *path, const char *name)
{
    static const char third[] = "=/'()!<>-", meant[] = "#\\^[]|{}~";
    FILE *f = fopen(path, "rb");
    if (f == NULL) refuse(name, 0, "cannot be read");
    char *raw = room(NULL, MOST_BYTES + 1);
    size_t size = fread(raw, 1, MOST_BYTES + 1, f);
    fclose(f);
    if (size > MOST_BYTES) refuse(name, 0, "is longer than %d bytes", MOST_BYTES);
    Text t = { room(NULL, size + 2), room(NULL, (size + 2) * sizeof(int)), 0 };
    int line = 1;
    for (size_t i = 0; i < size; ) {
        char c = raw[i];
        size_t width = 1;
        const char *trigraph = c == '?' && i + 2 < size && raw[i + 1] == '?' && raw[i + 2] ? strchr(third, raw[i + 2]) : NULL;
        if (trigraph != NULL) c = meant[trigraph - third], width = 3;
        if (c == '\0') refuse(name, line, "a byte that is 0");
        if (c == '\\') { // with blanks between them, compilers still take the line's end away
            size_t end = i + width;
            while (end < size && raw[end] != '\n' && isspace((unsigned char)raw[end])) end++;
            if (end < size && raw[end] == '\n') { line++; i = end + 1; continue; }
        }
        t.at[t.count] = c == '\r' || c == '\f' || c == '\v' ? ' ' : c;
        t.line[t.count++] = line;
        if (c == '\n') line++;
        i += width;
    }
    free(raw);
    t.at[t.count] = '\n'; // so that looking one ahead is looking inside
    t.at[t.count + 1] = '\0';
    t.line[t.count] = t.line[t.count + 1] = line;
    return t;
}

static bool in_name(char c) { return isalnum((unsigned char)c) || c == '_' || c == '$' || (c & 0x80); }

// The end of the comment, string or character constant that begins at i; i if none does.
static int skip_quoted(const Text *t, int i, const char *name, bool *comment)
{
    int start = i;
    *comment = t->at[i] == '/' && (t->at[i + 1] == '/' || t->at[i + 1] == '*');
    if (*comment && t->at[i + 1] == '/') {
        while (i < t->count && t->at[i] != '\n') i++;
        return i;
    }
    if (*comment) {
        for (i += 2; i < t->count && !(t->at[i] == '*' && t->at[i + 1] == '/'); i++) ;
        if (i >= t->count) refuse(name, t->line[start], "a comment is left open");
        return i + 2;
    }
    if (t->at[i] != '"' && t->at[i] != '\'') return i;
    for (i++; i < t->count && t->at[i] != '\n' && t->at[i] != t->at[start]; i++)
        if (t->at[i] == '\\') i++;
    if (i >= t->count || t->at[i] == '\n') refuse(name, t->line[start], "a string or a character is left open");
    return i + 1;
}

static void add_token(Source *s, Kind kind, const Text *t, int from, int to, bool space)
{
    if (s->count % 1024 == 0) s->tokens = room(s->tokens, (size_t)(s->count + 1024) * sizeof *s->tokens);
    Token *token = &s->tokens[s->count++];
    *token = (Token){ kind, t->line[from], space, room(NULL, (size_t)(to - from) + 1) };
    memcpy(token->text, t->at + from, (size_t)(to - from));
    token->text[to - from] = '\0';
}

// One mark, digraphs as what they stand for: the width that it had.
static int mark(Text *t, int i)
{
    static const char *const digraphs[] = { "<%", "{", "%>", "}", "<:", "[", ":>", "]", "%:", "#" };
    for (int d = 0; d < 10; d += 2)
        if (t->at[i] == digraphs[d][0] && t->at[i + 1] == digraphs[d][1]) { t->at[i] = digraphs[d + 1][0]; return 2; }
    return 1;
}

static Source read_source(const char *path, const char *name)
{
    Source s = { .name = name };
    Text t = read_text(path, name);
    bool line_begins = true, space = true, comment;
    for (int i = 0, next; i < t.count; i = next) {
        char c = t.at[i];
        next = skip_quoted(&t, i, name, &comment);
        if (comment || isspace((unsigned char)c)) {
            if (!comment) next = i + 1;
            if (c == '\n') line_begins = true;
            space = true;
            continue;
        }
        if (next > i) add_token(&s, STRING, &t, i, next, space);
        else if (in_name(c) || (c == '.' && isdigit((unsigned char)t.at[i + 1]))) {
            bool number = isdigit((unsigned char)c) || c == '.';
            for (next = i + 1; in_name(t.at[next]) || (number && (t.at[next] == '.' || (strchr("+-", t.at[next]) && strchr("eEpP", t.at[next - 1])))); next++) ;
            add_token(&s, number ? NUMBER : NAME, &t, i, next, space);
        } else {
            int width = mark(&t, i);
            next = i + width;
            bool directive = t.at[i] == '#' && line_begins;
            while (directive && next < t.count && t.at[next] != '\n') { // to its end, comments within it included
                int end = skip_quoted(&t, next, name, &comment);
                next = end > next ? end : next + 1;
            }
            add_token(&s, directive ? DIRECTIVE : MARK, &t, i, directive ? next : i + 1, space);
        }
        line_begins = space = false;
    }
    return s;
}

static bool is(const Source *s, int i, const char *text) { return i >= 0 && i < s->count && s->tokens[i].kind != STRING && strcmp(s->tokens[i].text, text) == 0; }

// The name of the function whose body begins at this brace: it stands before the parenthesis that is closed just before it; else NULL.
static const char *function_at(const Source *s, int open)
{
    int i = open - 1, depth = 0;
    if (!is(s, i, ")")) return NULL;
    for (; i >= 0; i--) {
        if (is(s, i, ")")) depth++;
        if (is(s, i, "(") && --depth == 0) break;
    }
    return i > 0 && s->tokens[i - 1].kind == NAME ? s->tokens[i - 1].text : NULL;
}

static void find_items(Source *s)
{
    int depth = 0;
    Item item = { .first = -1, .open = -1 };
    for (int i = 0; i < s->count; i++) {
        const char *text = s->tokens[i].text;
        if (s->tokens[i].kind == DIRECTIVE && item.first < 0) continue;
        if (item.first < 0) item = (Item){ .first = i, .open = -1 };
        bool closes = false, body = false;
        if (s->tokens[i].kind == MARK) {
            if (depth == 0 && *text == '{' && (item.function = function_at(s, i)) != NULL) item.open = i;
            if (strchr("([{", *text)) depth++;
            if (strchr(")]}", *text)) depth--, closes = true;
            body = closes && depth == 0 && *text == '}' && item.open >= 0;
            if (depth < 0) refuse(s->name, s->tokens[i].line, "a '%s' closes nothing", text);
        }
        if (!body && !(depth == 0 && is(s, i, ";"))) continue;
        item.last = i;
        if (s->item_count % 256 == 0) s->items = room(s->items, (size_t)(s->item_count + 256) * sizeof item);
        s->items[s->item_count++] = item;
        item.first = -1;
    }
    if (item.first >= 0) refuse(s->name, s->tokens[item.first].line, item.function ? "%s() leaves a brace open" : "%s: something is left open here", item.function ? item.function : s->tokens[item.first].text);
}

static int item_of(const Source *s, const char *function)
{
    int found = -1;
    for (int i = 0; i < s->item_count; i++) {
        if (s->items[i].function == NULL || strcmp(s->items[i].function, function) != 0) continue;
        if (found >= 0) refuse(s->name, s->tokens[s->items[i].first].line, "%s() is there twice; the first is at line %d", function, s->tokens[s->items[found].first].line);
        found = i;
    }
    if (found < 0) refuse(s->name, s->count ? s->tokens[s->count - 1].line : 0, "%s() is not in this file", function);
    return found;
}

// --------------------------------------------------------------------------------------------- what belongs to the student's function

static bool same_item(const Source *a, const Item *i, const Source *b, const Item *k)
{
    if (i->function != NULL || k->function != NULL) return i->function && k->function && strcmp(i->function, k->function) == 0;
    if (i->last - i->first != k->last - k->first) return false;
    for (int t = 0; t <= i->last - i->first; t++)
        if (strcmp(a->tokens[i->first + t].text, b->tokens[k->first + t].text) != 0) return false;
    return true;
}

// Whether the item declares this name: a function's own; otherwise any outside of parentheses, and the constants of an enumeration.
static bool declares(const Source *s, const Item *item, const char *name)
{
    if (item->function != NULL) return strcmp(item->function, name) == 0;
    int depth = 0;
    bool list = false;
    for (int i = item->first; i <= item->last; i++) {
        if (is(s, i, "enum")) list = true;
        if (s->tokens[i].kind == MARK && strchr("([{", *s->tokens[i].text)) depth++;
        if (s->tokens[i].kind == MARK && strchr(")]}", *s->tokens[i].text)) depth--;
        if ((depth == 0 || (depth == 1 && list)) && s->tokens[i].kind == NAME && strcmp(s->tokens[i].text, name) == 0) return true;
    }
    return false;
}

static bool uses(const Source *s, int first, int last, const Source *of, const Item *item)
{
    for (int i = first; i <= last; i++)
        if (s->tokens[i].kind == NAME && declares(of, item, s->tokens[i].text)) return true;
    return false;
}

// Takes what the function needs and the base does not have, from item to item.
static void take_helpers(Source *student, const Source *base, int own)
{
    for (int i = 0; i < student->item_count; i++) { // -1: the base has it
        Item *item = &student->items[i];
        for (int k = 0; k < base->item_count && item->first >= 0; k++)
            if (same_item(student, item, base, &base->items[k])) item->first = -1;
    }
    bool more = true;
    while (more) {
        more = false;
        for (int i = 0; i < student->item_count; i++) {
            Item *item = &student->items[i];
            if (i == own || item->taken || item->first < 0) continue;
            bool needed = uses(student, student->items[own].open, student->items[own].last, student, item);
            for (int k = 0; k < student->item_count && !needed; k++)
                needed = student->items[k].taken && uses(student, student->items[k].first, student->items[k].last, student, item);
            if (needed) item->taken = more = true;
        }
    }
}

// A loop's hint to the compiler is all that _Pragma may be.
static bool is_for_loops(const Source *s, int i)
{
    static const char *const good[] = { "\"GCC ivdep", "\"GCC unroll ", "\"clang loop ", "\"unroll", "\"omp simd" };
    for (int k = 0; k < 5; k++)
        if (is(s, i + 1, "(") && i + 3 < s->count && s->tokens[i + 2].kind == STRING && strncmp(s->tokens[i + 2].text, good[k], strlen(good[k])) == 0 && is(s, i + 3, ")"))
            return true;
    return false;
}

// The ledger and the meter are what some tasks are judged by: a task may use of them what its file used already.
static bool is_bookkeeping(const char *name) { return strncmp(name, "memory_", 7) == 0 || strncmp(name, "meter_", 6) == 0 || strcmp(name, "ledger") == 0; }

static bool base_has(const Source *base, const Item *but, const char *name)
{
    for (int i = 0; i < base->count; i++)
        if (!(i >= but->first && i <= but->last) && base->tokens[i].kind == NAME && strcmp(base->tokens[i].text, name) == 0) return true;
    return false;
}

// A gradient is derived and not measured: its kernel has no use for the forward that it belongs to, by which differences could be taken.
static bool is_its_forward(const Source *base, const char *function, const char *name)
{
    const char *grad = strstr(function, "_grad");
    if (grad == NULL) return false;
    if (strstr(name, "forward") != NULL) return true;
    for (int i = 0; i < base->item_count; i++) {
        const char *other = base->items[i].function;
        if (other != NULL && strcmp(other, name) == 0 && strlen(name) == (size_t)(grad - function) && strncmp(name, function, strlen(name)) == 0) return true;
    }
    return false;
}

static void look_at(const Source *s, int first, int last, const Source *base, const Item *own)
{
    static const char *const words[] = { "asm", "__asm", "__asm__", "__attribute", "__attribute__", "__declspec", "__pragma", "constructor", "destructor" };
    for (int i = first; i <= last; i++) {
        const Token *t = &s->tokens[i];
        if (t->kind == DIRECTIVE || is(s, i, "#")) refuse(s->name, t->line, "no preprocessor lines inside a task: #define can be a constant or a function");
        if (t->kind == MARK && !strchr("{}[]();,.<>=+-*/%&|^!~?:", *t->text)) refuse(s->name, t->line, "'%s' has no place in a task", t->text);
        for (const char *c = strstr(t->text, "??"); c != NULL && t->kind == STRING; c = strstr(c + 1, "??")) // put together by a spliced line
            if (c[2] && strchr("=/'()!<>-", c[2])) refuse(s->name, t->line, "no trigraphs inside a task");
        if (is(s, i, "?") && is(s, i + 1, "?") && !s->tokens[i + 1].space) refuse(s->name, t->line, "no trigraphs inside a task");
        if (is(s, i, "[") && is(s, i + 1, "[")) refuse(s->name, t->line, "no attributes inside a task");
        if (t->kind != NAME) continue;
        for (const char *c = t->text; *c; c++)
            if ((*c & 0x80) || *c == '$') refuse(s->name, t->line, "write names with letters, digits and _ alone");
        for (size_t k = 0; k < sizeof words / sizeof *words; k++)
            if (strcmp(t->text, words[k]) == 0) refuse(s->name, t->line, "no %s inside a task: plain C says it all", t->text);
        if (strcmp(t->text, "_Pragma") == 0 && !is_for_loops(s, i)) refuse(s->name, t->line, "_Pragma is for loops alone");
        if (is_its_forward(base, own->function, t->text)) refuse(s->name, t->line, "no %s inside a gradient: derive it, differences are not asked for", t->text);
        if (is_bookkeeping(t->text) && strncmp(s->name, "assignments/", 12) != 0 && !base_has(base, own, t->text))
            refuse(s->name, t->line, "%s keeps the accounts by which a task is judged: leave it to the engine", t->text);
    }
}

// --------------------------------------------------------------------------------------------------------------------- printing

// Tokens first to last, each on its line of the file, which the compiler is told.
static void print_tokens(const Source *s, int first, int last, bool say_line)
{
    if (first > last) return;
    int line = s->tokens[first].line;
    if (say_line) printf("\n#line %d \"%s\"\n", line, s->name);
    for (int i = first; i <= last; i++) {
        const Token *t = &s->tokens[i];
        bool far = t->line > line;
        for (; line < t->line; line++) putchar('\n');
        printf("%s%s", t->space && !far ? " " : "", t->text);
        if (t->kind == DIRECTIVE) putchar('\n'), line++;
    }
    if (!say_line) putchar('\n');
}

// Whether the item has to be given the word `static`, so that no name of it can be anybody else's.
static bool needs_static(const Source *s, const Item *item)
{
    bool plain = item->function != NULL || !(is(s, item->first, "struct") || is(s, item->first, "union") || is(s, item->first, "enum"));
    for (int k = item->first; k <= item->last && plain; k++) {
        plain = !(is(s, k, "static") || is(s, k, "extern") || is(s, k, "typedef") || is(s, k, "_Static_assert"));
        if (is(s, k, "(") || is(s, k, "{") || is(s, k, "=")) break;
    }
    return plain;
}

static void print_item(const Source *s, const Item *item, int last, bool say_line)
{
    if (needs_static(s, item)) printf("\nstatic");
    print_tokens(s, item->first, last, say_line);
}

// All that is no function, then a prototype of each function; then those that stand before the task's.
static void print_before(const Source *s, int own, bool say_line)
{
    for (int functions = 0; functions < 2; functions++)
        for (int i = 0; i < s->item_count; i++) {
            const Item *item = &s->items[i];
            if (!item->taken || functions != (item->function != NULL)) continue;
            print_item(s, item, functions ? item->open - 1 : item->last, say_line);
            if (functions) printf(";\n");
        }
    for (int i = 0; i < own; i++)
        if (s->items[i].taken && s->items[i].function != NULL) print_item(s, &s->items[i], s->items[i].last, say_line);
}

static void print_after(const Source *s, int own, bool say_line)
{
    for (int i = own + 1; i < s->item_count; i++)
        if (s->items[i].taken && s->items[i].function != NULL) print_item(s, &s->items[i], s->items[i].last, say_line);
}

int main(int argc, char **argv)
{
    bool region = argc == 6 && strcmp(argv[1], "--region") == 0;
    if (argc != 5 + region) {
        fprintf(stderr, "splice: [--region] FUNCTION STUDENT BASE NAME\n");
        return 2;
    }
    argv += region;
    Source student = read_source(argv[2], argv[4]), base = read_source(argv[3], argv[4]);
    find_items(&student);
    find_items(&base);
    int own = item_of(&student, argv[1]), place = item_of(&base, argv[1]);
    Item mine = student.items[own], there = base.items[place];
    take_helpers(&student, &base, own);
    look_at(&student, mine.open + 1, mine.last - 1, &base, &there);
    for (int i = 0; i < student.item_count; i++)
        if (student.items[i].taken) look_at(&student, student.items[i].first, student.items[i].last, &base, &there);
    if (!region) print_tokens(&base, 0, there.first - 1, true);
    print_before(&student, own, !region);
    if (!region) print_tokens(&base, there.first, there.open, true);
    print_tokens(&student, mine.open + 1, mine.last - 1, !region);
    if (!region) print_tokens(&base, there.last, there.last, true);
    print_after(&student, own, !region);
    if (!region) print_tokens(&base, there.last + 1, base.count - 1, true);
    printf("\n");
    return fflush(stdout) != 0;
}
