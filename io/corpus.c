// corpus.c - a grammar that writes tales and knows how likely each of them is.
//
// First the data: the world (word lists and phrases that all texts share), then one table per voice. A voice is looked
// up before the world. Then one function, walk(), follows a table. The writer and the reader are the same walk: at
// each rule the writer follows the one choice it has drawn, the reader follows every choice and gives up where the text
// differs. The header explains the form of the tables.
//
// Three rules keep the texts learnable by a small model that sees only 64 characters. The words are few, and none is
// rare. A word that must be known later is repeated within 60 characters. And the parts of a tale (opening, event, turn,
// ending) use different sentences, so that what may come next can be told from the last sentence alone.

#include "corpus.h"

#include "memory.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------------------------------------------- the world

static const GrammarRule world[] = {
    {"boy", "2:Tom|2:Ben|2:Sam|2:Dan|Leo"},
    {"girl", "2:Mia|2:Ann|2:Sue|2:Meg|Lily"},
    {"hero", "{male}{boy}|{female}{girl}"},
    {"beast", "cat|dog|fox|hen|pig|goat|duck|bear|frog|mouse"},
    {"temper", "big|sad|shy|fat|mad|kind|wet|rude|thin|proud"},
    {"a_beast", "a {temper} {beast}"},
    {"thing", "hat|bell|lamp|key|coat|book|drum|ring|kite|cup|rope|bed"},
    {"look", "red|blue|gold|tiny|fine|black|lost|green|long|dusty"},
    {"a_thing", "a {look} {thing}"},
    {"spot", "lake|hill|mill|barn|farm|shop|gate|pond|wood|tower"},
    {"by", "by the {spot}|near the {spot}|behind the {spot}"},
    {"food", "soup|cake|jam|bread|pie|stew|rice|cheese"},
    {"cheered", "sang|danced|laughed|slept|grew fat"},
    {"wept", "cried|hid|ran home|sat down|fell ill|fell over"},
    {"nice", "fed|kissed|washed|trusted|painted"},
    {"mean", "bit|chased|sold|robbed"},
    {"spoiled", "took|sold|washed|painted|broke"},
    {"glad", "happy|tired|rich|late|hungry|cold|in bed|alone"},
    {NULL, NULL},
};

// ---------------------------------------------------------------------------------------------------- the voices

static const GrammarRule tales[] = {
    {"tale", "2:{opening} {event} {ending}|3:{opening} {event} {turn} {ending}"},

    {"opening", "3:One {sky} {hour}, {hero} {went} to the {spot}.|3:{hero} had {a_thing} and {a_thing}."
        "|3:{hero} lived {by} with {a_beast}."},
    {"sky", "cold|hot|wet|dark|fine|windy"},
    {"hour", "day|night|morning|evening"},
    {"went", "ran|went|rode|walked|came"},

    {"event", "3:^{he/she} found {a_thing}, {found}|3:^{he/she} met {a_beast}. {talk}"
        "|2:^{he/she} made {m=food} for {his/her} {beast}, {eaten}"
        "|2:^{he/she} lost {his/her} {thing}, so {he/she} {wept}."
        "|2:^{he/she} took the {beast}'s {thing}, so it {mean} {him/her}."},
    {"found", "2:so {he/she} sold it.|2:but it was {his/her} {beast}'s.|2:but it broke, so {he/she} {wept}."
        "|and gave it to {his/her} {beast}."},
    {"talk", "3:\"I am hungry!\" it said, so {he/she} gave it {food}.|2:\"I am cold,\" it said, so {he/she} gave it "
        "{his/her} {warm}.|2:\"I am lost,\" it said, so {he/she} led it to the {spot}.|\"Leave me!\" it said, so "
        "{he/she} went home.|\"Sing!\" it said, so {he/she} sang {by}."},
    {"warm", "2:coat|hat|lamp"},
    {"eaten", "2:and it ate it all.|but it only ate {food}.|but the {m} was cold.|so it {cheered}."},

    {"turn", "3:Then {a_beast} took {his/her} {thing}, so {he/she} {wept}."
        "|2:Then it rained, so {he/she} hid in the {house}."
        "|2:Next day, {his/her} {beast} {nice} {a_beast}.|But the {beast} {mean} {him/her}, so {he/she} {wept}."
        "|But the {beast} {nice} {him/her}, so {he/she} {cheered}."},
    {"house", "2:mill|2:barn|shop|tower"},

    {"ending", "2:That night, {he/she} was {glad}.|3:Now {he/she} has {a_thing} and {a_beast}."
        "|2:^{he/she} never {hit} {a_beast} again.|2:^{he/she} said: \"{wisdom}\"|2:At last, {he/she} {cheered} {by}."},
    {"hit", "{nice}|{mean}"},
    {"wisdom", "2:I love {food}!|I am {glad}.|2:Never trust {a_beast}.|I need {a_thing}.|Life is {food}."},
    {NULL, NULL},
};

static const GrammarRule pirate[] = {
    {"tale", "2:{opening} {event} {ending}|3:{opening} {event} {turn} {ending}"},
    {"arr", "4:Arr|2:Aye|Ahoy"},
    {"end", "2:.|2:, matey!|2:, arr!|, aye.|, ye dogs!"},
    {"opening", "4:{arr}, {hero} sailed to the {spot}{end}|3:{arr}, here be {hero} wi' {a_beast}{end}"
        "|2:{arr}, me {thing} be {look}, an' so be {hero}{end}"},
    {"event", "3:^{he/she} stole a {thing} from {a_beast}{end}"
        "|3:^{he/she} met {a_beast}: \"Hand over yer {thing}!\""
        "|2:^{he/she} ate {food} an' drank rum{end}"
        "|2:^{he/she} lost {his/her} {thing} at sea, so {he/she} {wept}{end}"},
    {"turn", "3:Then we took {his/her} {thing}, so {he/she} {wept}{end}"
        "|2:But {his/her} {thing} sank, so {he/she} {wept}{end}"
        "|2:Then {he/she} sank {a_beast} {by}{end}"},
    {"ending", "3:Now {he/she} be {glad} at sea{end}|2:Never trust {a_beast} wi' yer {thing}{end}"
        "|2:So drink yer {food}, me {temper} {beast}!|2:At last, we {cheered} {by}{end}"},
    {NULL, NULL},
};

static const GrammarRule robot[] = {
    {"tale", "2:{opening} {event} {ending}|3:{opening} {event} {turn} {ending}"},
    {"beep", "3:|3: Beep.|2: Boop.| Beep boop."},
    {"opening", "4:Log: human {hero} moved to the {spot}.{beep}|3:Log: human {hero} has {a_thing}.{beep}"
        "|2:Log: human {hero} met {a_beast} {by}.{beep}"},
    {"event", "3:Task: find {a_thing}. No luck.{beep}|3:Task: feed {a_beast}. It ate {food}.{beep}"
        "|2:Input: {food}. Output: {food}.{beep}|2:Alert: {thing} not found. Human {wept}.{beep}"},
    {"turn", "3:Oops: {a_beast} {spoiled} the {thing}.{beep}|2:Alarm: {temper} {beast} {by}. Bot {wept}.{beep}"
        "|2:Map: the {spot} is {look}.{beep}"},
    {"ending", "3:Human is {glad}. Bot is {glad}.{beep}|2:Note: {food} is not {food}.{beep}"
        "|2:Tip: never trust {a_beast}.{beep}|Bye, {temper} human.{beep}"},
    {NULL, NULL},
};

static const GrammarRule ghost[] = {
    {"tale", "2:{opening} {event} {ending}|3:{opening} {event} {turn} {ending}"},
    {"boo", "3:Booo|2:Oooh|Boo hoo"},
    {"moan", "2:.|2:, oooh!|2:, alas.|, booo!"},
    {"scared", "haunted|chased|moaned at"},
    {"opening", "4:{boo}, I haunt the {spot} wearing {a_thing}{moan}|3:{boo}, I am the ghost of {a_beast}{moan}"
        "|2:{boo}, I died {by} of {food}{moan}"},
    {"event", "3:At night, {hero} came with {a_thing}, so I {wept}{moan}|3:^{hero} {spoiled} my {thing}, so I {scared} "
        "{him/her}{moan}|2:I moaned at {a_beast}, so it {wept}{moan}|2:I want {food}, but it falls out of me{moan}"},
    {"turn", "3:Then {a_beast} walked into me and {wept}{moan}|2:I lost my {thing} {by}{moan}"
        "|2:Once I was {temper} and had {a_thing}{moan}"},
    {"ending", "3:Now I am {glad} and dead{moan}|2:Nobody {nice} me {by}{moan}|2:I am dead, but I love {food}{moan}"
        "|2:All I have is {a_thing}{moan}"},
    {NULL, NULL},
};

static const char *const names[] = {"tales", "pirate", "robot", "ghost", NULL};
static const GrammarRule *const voices[] = {tales, pirate, robot, ghost};

// ---------------------------------------------------------------------------------------------------- the tables, parsed

typedef struct Choice {
    const char *pattern;     // inside the table's string: ends at '|' or 0
    int weight;
    double nats;             // log(total / weight)
} Choice;

typedef struct Rule {
    const char *name;
    int first, count, total; // its choices in Grammar.choices, and the sum of their weights
} Rule;

enum { MAX_RULES = 256, MAX_CHOICES = 2048, MAX_TALE = 4096, LETTERS = 26 };

typedef struct Grammar {
    Rule rules[MAX_RULES];
    Choice choices[MAX_CHOICES];
    int rule_count, choice_count;
} Grammar;

static void add_rules(Grammar *g, const GrammarRule *table)
{
    for (; table->name; table++) {
        assert(g->rule_count < MAX_RULES && strlen(table->name) > 1);
        Rule *rule = &g->rules[g->rule_count++];
        *rule = (Rule){table->name, g->choice_count, 0, 0};
        for (const char *p = table->choices;; p++) {
            char *after;
            int weight = (int)strtol(p, &after, 10);
            if (*after == ':') p = after + 1;
            else weight = 1;
            assert(g->choice_count < MAX_CHOICES && weight > 0);
            g->choices[g->choice_count++] = (Choice){p, weight, 0.0};
            rule->count++;
            rule->total += weight;
            p += strcspn(p, "|");
            if (*p == 0) break;
        }
        for (int i = rule->first; i < rule->first + rule->count; i++)
            g->choices[i].nats = log((double)rule->total / g->choices[i].weight);
    }
}

static bool is_word(const char *p, size_t length, const char *word)
{
    return strncmp(p, word, length) == 0 && word[length] == 0;
}

static const Rule *find_rule(const Grammar *g, const char *name, size_t length)
{
    for (int i = 0; i < g->rule_count; i++)
        if (is_word(name, length, g->rules[i].name)) return &g->rules[i];
    return NULL;
}

// A grammar for one call: the voice's rules first, so that they are found before the world's. Every name is looked up
// here once, so that a mistake in a table shows at once and not in the one tale that takes that turn.
static Grammar *parse_grammar(const GrammarRule *voice, const GrammarRule *shared)
{
    Grammar *g = allocate(1, sizeof *g, "a grammar");
    add_rules(g, voice);
    if (shared) add_rules(g, shared);
    for (int i = 0; i < g->choice_count; i++) {
        const char *p = g->choices[i].pattern;
        for (size_t left = strcspn(p, "|"); left > 0; p++, left--) {
            if (*p != '{') continue;
            size_t length = strcspn(p, "}") - 1, skip = p[2] == '=' ? 2 : 0;
            assert(length + 1 < left && "a brace is not closed");
            bool known = length == 1 || memchr(p, '/', length) || is_word(p + 1, length, "male")
                         || is_word(p + 1, length, "female") || find_rule(g, p + 1 + skip, length - skip);
            assert(known && "a choice names an unknown rule");
            (void)known;
        }
    }
    return g;
}

// ---------------------------------------------------------------------------------------------------- the walk

typedef struct Memory {
    int start, length;       // the remembered word, in the tale
    int last;                // where it was last written
} Memory;

// Where a walk stands. It is passed by value: whoever tries several choices gives each its own copy, so going back to
// the state before a choice is nothing but returning.
typedef struct Walk {
    int at;                  // characters written or read
    double pending, nats;    // -log P of the choices since the last character, and of all
    bool capital;            // the next letter is one
    bool female;             // whom pronouns mean,
    int hero_last;           // and where a name or pronoun last said so
    int reach;               // the farthest look back so far
    Memory memory[LETTERS];
} Walk;

typedef struct Random { uint64_t seed, drawn; } Random; // the next is random_bits(seed, drawn)

// What all steps of one walk share.
typedef struct Pen {
    const Grammar *grammar;
    Random *random;          // the writer's; NULL makes the walk a reader
    char *text;              // the tale being written, or to be read
    float *nats;             // the writer's: one for each character
    Walk end;                // the last walk that came to the end of the tale
} Pen;

// What remains to be written after the rule that is being expanded: the rest of the choice that named it, and so on
// outwards.
typedef struct Rest {
    const char *pattern;
    char letter;             // remember the expansion under this letter, unless it is 0
    int start;               // where the expansion begins
    const struct Rest *outer;
} Rest;

// Writes one character, or reads it: false if the text has another one (or none) there.
static bool put(Pen *pen, Walk *w, char c)
{
    if (w->capital) c = (char)toupper((unsigned char)c);
    w->capital = false;
    if (pen->random) {
        assert(w->at < MAX_TALE - 1);
        pen->text[w->at] = c;
        pen->nats[w->at] = (float)w->pending;
    } else if (pen->text[w->at] != c) {
        return false;
    }
    w->at++;
    w->pending = 0.0;
    return true;
}

static bool put_word(Pen *pen, Walk *w, const char *word, int length)
{
    for (int i = 0; i < length; i++)
        if (!put(pen, w, word[i])) return false;
    return true;
}

static void look_back(Walk *w, int *last)
{
    if (w->at - *last > w->reach) w->reach = w->at - *last;
    *last = w->at;
}

static int choose(Pen *pen, Walk w, const Rule *rule, const Rest *rest);

// Follows a pattern from p to its end and then the rest. Returns how many ways lead to the end of the tale.
static int walk(Pen *pen, Walk w, const char *p, const Rest *rest)
{
    while (*p != 0 && *p != '|') {
        if (*p == '^') {
            w.capital = true;
            p++;
            continue;
        }
        if (*p != '{') {
            if (!put(pen, &w, *p++)) return 0;
            continue;
        }
        const char *name = p + 1, *close = strchr(p, '}');
        const char *slash = memchr(name, '/', (size_t)(close - name));
        size_t length = (size_t)(close - name);
        p = close + 1;
        if (slash) {                                                     // {he/she}
            const char *word = w.female ? slash + 1 : name;
            look_back(&w, &w.hero_last);
            if (!put_word(pen, &w, word, (int)((w.female ? close : slash) - word))) return 0;
        } else if (length == 1) {                                        // {c}
            Memory *memory = &w.memory[*name - 'a'];
            assert(memory->length > 0 && "repeated before it was bound");
            look_back(&w, &memory->last);
            if (!put_word(pen, &w, pen->text + memory->start, memory->length)) return 0;
        } else if (is_word(name, length, "male") || is_word(name, length, "female")) {
            w.female = *name == 'f';
            w.hero_last = w.at;
        } else {                                                         // {rule} or {c=rule}
            bool bound = name[1] == '=';
            Rest next = {p, bound ? *name : (char)0, w.at, rest};
            return choose(pen, w, find_rule(pen->grammar, name + 2 * bound, length - 2 * bound), &next);
        }
    }
    if (rest) {
        if (rest->letter) w.memory[rest->letter - 'a'] = (Memory){rest->start, w.at - rest->start, rest->start};
        return walk(pen, w, rest->pattern, rest->outer);
    }
    if (!pen->random && pen->text[w.at] != 0) return 0;                  // the tale is over and the text is not
    pen->end = w;
    return 1;
}

// The writer draws one choice of the rule and follows it; the reader follows them all and adds up the ways.
static int choose(Pen *pen, Walk w, const Rule *rule, const Rest *rest)
{
    int drawn = pen->random ? (int)(random_bits(pen->random->seed, pen->random->drawn++) % (uint64_t)rule->total) : 0, ways = 0;
    for (int i = rule->first; i < rule->first + rule->count; i++) {
        const Choice *choice = &pen->grammar->choices[i];
        if (pen->random) {
            drawn -= choice->weight;
            if (drawn >= 0) continue;
        }
        Walk next = w;
        next.pending += choice->nats;
        next.nats += choice->nats;
        ways += walk(pen, next, choice->pattern, rest);
        if (pen->random) break;
    }
    return ways;
}

// ---------------------------------------------------------------------------------------------------- the texts

const char *const *corpus_names(void) { return names; }

static const GrammarRule *find_voice(const char *name)
{
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], name) == 0) return voices[i];
    return NULL;
}

bool corpus_write(const char *name, uint64_t seed, int64_t length, Corpus *corpus)
{
    *corpus = (Corpus){0};
    const GrammarRule *voice = find_voice(name);
    if (!voice) return false;
    Grammar *grammar = parse_grammar(voice, world);
    char tale[MAX_TALE];
    float nats[MAX_TALE];
    static const char for_text[] = "a built-in text; ask for a shorter one";
    Random random = { seed, 0 };
    Pen pen = {.grammar = grammar, .random = &random, .text = tale, .nats = nats};
    size_t room = 0;
    do {
        walk(&pen, (Walk){0}, "{tale}\n\n", NULL);
        size_t old = (size_t)corpus->length, new = old + (size_t)pen.end.at;
        if (new + 1 > room) {
            room = 2 * (new + 1);
            corpus->text = reallocate(corpus->text, room, 1, for_text);
            corpus->nats = reallocate(corpus->nats, room, sizeof *corpus->nats, for_text);
        }
        memcpy(corpus->text + old, tale, new - old);
        memcpy(corpus->nats + old, nats, (new - old) * sizeof *nats);
        corpus->text[new] = 0;
        corpus->length = (int64_t)new;
        if (pen.end.reach > corpus->reach) corpus->reach = pen.end.reach;
    } while (corpus->length < length);
    free(grammar);
    return true;
}

void corpus_free(Corpus *corpus)
{
    free(corpus->text);
    free(corpus->nats);
    *corpus = (Corpus){0};
}

double corpus_floor(const Corpus *corpus, int64_t begin, int64_t end)
{
    assert(begin >= 0 && end <= corpus->length);
    double sum = 0.0;
    for (int64_t i = begin; i < end; i++) sum += (double)corpus->nats[i];
    return end > begin ? sum / (double)(end - begin) : 0.0;
}

static int derivations(const GrammarRule *voice, const GrammarRule *shared, const char *tale, double *nats)
{
    Grammar *grammar = parse_grammar(voice, shared);
    Pen pen = {.grammar = grammar, .text = (char *)tale};        // a reader does not write
    int ways = walk(&pen, (Walk){0}, "{tale}", NULL);
    if (ways > 0 && nats) *nats = pen.end.nats;
    free(grammar);
    return ways;
}

int grammar_derivations(const GrammarRule *rules, const char *tale, double *nats)
{
    return derivations(rules, NULL, tale, nats);
}

int corpus_derivations(const char *name, const char *tale, double *nats)
{
    const GrammarRule *voice = find_voice(name);
    return voice ? derivations(voice, world, tale, nats) : 0;
}
