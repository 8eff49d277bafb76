/* Amos in C, as a port for `amos-ref check --exec examples/ports/amos`, and for the same with `--algorithm closed-form`.
   The algorithms are the functions `step` and `step_closed`. Of the closed form it has no recurrence, which has no
   formula for the t-th step.

   cc -O2 -std=c11 -ffp-contract=off -o amos amos.c -lm

   With --broken=extra_l2-sign, or --broken=t-from-1, it has a mistake, to see the check find it. */

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEAVES = 64, AXES = 8, NAME = 64 };

/* Of both algorithms. half_life 0: what p_0 stands for. */
struct options {
    double beta, momentum, extra_l2, c_coef, d_coef;                     /* paper Amos */
    double alpha_0, half_life, p_0, q, beta1, beta2, adam_epsilon;       /* the closed form */
    double clip_value, epsilon;
    bool square, sign, adam;
};

struct leaf {
    char name[NAME];
    bool single; /* theta is kept in float32 */
    int axes;
    long shape[AXES], slot[AXES]; /* slot: 1 where an axis is averaged over */
    long size, slots;
    double eta;                          /* or sigma */
    double *theta, *g, *m, *second;      /* one an element; second: v of Adam */
    double *v, *b, *g2, *alpha, *rho;    /* one a slot */
};

/* ---- the algorithm ---- */

static long slot_of(const struct leaf *p, long i)
{
    long slot = 0, stride = 1;
    for (int axis = p->axes - 1; axis >= 0; axis--) {
        if (p->slot[axis] != 1)
            slot += i % p->shape[axis] * stride;
        stride *= p->slot[axis];
        i /= p->shape[axis];
    }
    return slot;
}

/* One step of one array; xi is the learning rate, q = 1 - beta^t. */
static void step(struct leaf *p, double xi, double q, const struct options *o)
{
    for (long s = 0; s < p->slots; s++)
        p->g2[s] = 0;
    for (long i = 0; i < p->size; i++) {
        if (fabs(p->g[i]) > o->clip_value)
            p->g[i] = copysign(o->clip_value, p->g[i]);
        p->g2[slot_of(p, i)] += p->g[i] * p->g[i];
    }
    for (long s = 0; s < p->slots; s++) {
        double g2 = p->size ? p->g2[s] / (p->size / p->slots) : 0, b = p->b[s];
        double v = p->v[s] = o->beta * p->v[s] + (1 - o->beta) * g2;
        double r = q / (v < o->epsilon ? o->epsilon : v);
        double c = 1 / sqrt(1 + o->c_coef * sqrt(xi) * b);
        double gamma = c * xi * xi * r * g2;
        double d = 1 / (1 + o->d_coef * sqrt(xi * p->eta) * b);
        p->alpha[s] = d * xi * p->eta * sqrt(r);
        p->rho[s] = d * (gamma / 2 + o->extra_l2);
        p->b[s] = b + gamma * (1 + b);
    }
    for (long i = 0; i < p->size; i++) {
        long s = slot_of(p, i);
        double delta = -(p->alpha[s] * p->g[i] + p->rho[s] * p->theta[i]);
        p->m[i] = o->momentum * p->m[i] + (1 - o->momentum) * delta; /* momentum 0: delta itself */
        p->theta[i] += p->m[i];
        if (p->single)
            p->theta[i] = (float)p->theta[i];
    }
}

/* 1 - beta^n from the bits of n: no pow, and no cancellation. */
static double one_minus_power(double beta, unsigned long long n)
{
    double q = 0;
    for (int bit = 63; bit >= 0; bit--) {
        q *= 2 - q;
        if (n >> bit & 1)
            q = (1 - beta) + beta * q;
    }
    return q;
}

/* exp(-2 S_t) */
static double shrink_of(const struct options *o, double t)
{
    double half_life = o->half_life ? o->half_life : (o->square ? sqrt(2) - 1 : 0.5) / (o->alpha_0 * o->p_0);
    double x = t / half_life * (o->square ? sqrt(2) - 1 : 1);
    return o->square ? 1 / (1 + x * (2 + x)) : 1 / (1 + x);
}

/* One step of one array by the closed form, with t from 0; eta is its sigma. The direction u takes the place of g. */
static void step_closed(struct leaf *p, double shrink, double t, const struct options *o)
{
    double q1 = one_minus_power(o->beta1, (unsigned long long)t + 1);
    double q2 = one_minus_power(o->beta2, (unsigned long long)t + 1);
    for (long s = 0; s < p->slots; s++)
        p->g2[s] = 0;
    for (long i = 0; i < p->size; i++) {
        double g = fabs(p->g[i]) > o->clip_value ? copysign(o->clip_value, p->g[i]) : p->g[i];
        if (o->adam) {
            p->m[i] = o->beta1 * p->m[i] + (1 - o->beta1) * g;
            p->second[i] = o->beta2 * p->second[i] + (1 - o->beta2) * (g * g);
            g = p->m[i] / q1 / (sqrt(p->second[i] / q2) + o->adam_epsilon);
        }
        p->g[i] = o->sign ? (g > 0) - (g < 0) : g;
        p->g2[slot_of(p, i)] += p->g[i] * p->g[i];
    }
    for (long s = 0; s < p->slots; s++) {
        double u2 = p->size ? p->g2[s] / (p->size / p->slots) : 0;
        p->alpha[s] = o->alpha_0 * (p->eta / sqrt(u2 < o->epsilon ? o->epsilon : u2)) * shrink;
        p->rho[s] = o->alpha_0 * o->alpha_0 / (2 * o->q) * shrink;
    }
    for (long i = 0; i < p->size; i++) {
        long s = slot_of(p, i);
        p->theta[i] -= p->alpha[s] * p->g[i] + p->rho[s] * p->theta[i];
        if (p->single)
            p->theta[i] = (float)p->theta[i];
    }
}

/* ---- JSON: only what the protocol sends, on which it can rely ---- */

static void die(const char *why)
{
    fprintf(stderr, "amos: %s\n", why);
    exit(1);
}

/* Where the value of a key begins in the object at `s`; NULL if it has no such key. */
static const char *member(const char *s, const char *key)
{
    size_t n = strlen(key);
    int depth = 0;
    for (; *s; s++) {
        if (*s == '{' || *s == '[')
            depth++;
        else if ((*s == '}' || *s == ']') && --depth == 0)
            return NULL;
        else if (*s == '"') {
            const char *end = strchr(s + 1, '"');
            if (!end)
                return NULL;
            if (depth == 1 && end[1] == ':' && (size_t)(end - s - 1) == n && !memcmp(s + 1, key, n))
                return end + 2;
            s = end;
        }
    }
    return NULL;
}

static const char *needed(const char *s, const char *key)
{
    if (!(s = member(s, key)))
        die("a message lacks a key");
    return s;
}

/* Whether a word, which ends with its quotes or its line, is this one. */
static bool is(const char *s, const char *word)
{
    size_t n = strlen(word);
    return s && !strncmp(s, word, n) && (!s[n] || s[n] == '"');
}

/* A number from the 16 hexadecimal digits of its bits, or from 8, of a float32. */
static double from_bits(const char *s, int digits)
{
    char text[17] = {0};
    float single;
    double x;
    memcpy(text, s, digits); /* the line ends in zeros, so that this stays inside it */
    uint64_t bits = strtoull(text, NULL, 16);
    uint32_t half = (uint32_t)bits;
    memcpy(&single, &half, 4);
    memcpy(&x, &bits, 8);
    return digits == 8 ? single : x;
}

/* The bits of `n` numbers, between quotes. */
static void read_bits(const char *s, double *x, long n, bool single)
{
    int digits = single ? 8 : 16;
    if (*s++ != '"')
        die("expected bits");
    for (long i = 0; i < n; i++, s += digits)
        x[i] = from_bits(s, digits);
}

static double number(const char *object, const char *key, double otherwise)
{
    const char *s = member(object, key);
    if (s)
        read_bits(s, &otherwise, 1, false);
    return otherwise;
}

static int read_shape(const char *s, long *shape)
{
    int axes = 0;
    while (*s++ != ']' && *s != ']') {
        if (axes == AXES)
            die("too many axes");
        shape[axes++] = strtol(s, (char **)&s, 10);
    }
    return axes;
}

static long product(const long *shape, int axes)
{
    long n = 1;
    while (axes--)
        n *= shape[axes];
    return n;
}

static void print_bits(const double *x, long n, bool single)
{
    putchar('"');
    for (long i = 0; i < n; i++) {
        uint64_t bits;
        uint32_t half;
        float f = (float)x[i];
        memcpy(&bits, &x[i], 8);
        memcpy(&half, &f, 4);
        if (single)
            printf("%08lx", (unsigned long)half);
        else
            printf("%016llx", (unsigned long long)bits);
    }
    putchar('"');
}

/* ---- a case: leaves and options ---- */

static struct leaf leaves[LEAVES];
static int count; /* of leaves */
static struct options options;
static double t; /* how many steps were taken: of the closed form the step to come, which counts from 0 */
static bool broken, late;
static bool closed; /* what is asked for is the closed form */

/* The options that are numbers, and what they are in a case that does not set them. */
static const struct {
    const char *name;
    double *at, otherwise;
} numbers[] = {
    {"beta", &options.beta, 0.999},           {"momentum", &options.momentum, 0},
    {"extra_l2", &options.extra_l2, 0},       {"c_coef", &options.c_coef, 0.25},
    {"d_coef", &options.d_coef, 0.25},        {"alpha_0", &options.alpha_0, 0},
    {"half_life", &options.half_life, 0},     {"p_0", &options.p_0, 0},
    {"q", &options.q, 1},                     {"beta1", &options.beta1, 0.9},
    {"beta2", &options.beta2, 0.999},         {"adam_epsilon", &options.adam_epsilon, 1e-8},
    {"epsilon", &options.epsilon, 0x1p-125},  {"clip_value", &options.clip_value, INFINITY},
};
enum { NUMBERS = sizeof numbers / sizeof *numbers };

static void start_case(void)
{
    count = 0;
    t = 0;
    options = (struct options){0};
    for (int i = 0; i < NUMBERS; i++)
        *numbers[i].at = numbers[i].otherwise;
}

/* Storage for numbers, kept for the next case. */
static double *zeros(double *old, long n)
{
    double *x = realloc(old, (n + 1) * sizeof *x);
    if (!x)
        die("no memory");
    memset(x, 0, (n + 1) * sizeof *x);
    return x;
}

/* Add a leaf, whose arrays are zeros; shapes are like [6,5]. */
static struct leaf *add_leaf(const char *name, const char *shape, const char *slot_shape, double eta, bool single)
{
    long slot[AXES];
    struct leaf *p = &leaves[count];
    if (count++ == LEAVES || strcspn(name, "\"") >= NAME)
        die("there are too many leaves, or a leaf's name is too long");
    snprintf(p->name, NAME, "%.*s", (int)strcspn(name, "\""), name);
    p->eta = eta;
    p->single = single;
    p->axes = read_shape(shape, p->shape);
    int first = p->axes - read_shape(slot_shape, slot);
    for (int axis = 0; axis < p->axes; axis++)
        p->slot[axis] = axis < first ? 1 : slot[axis - first];
    p->size = product(p->shape, p->axes);
    p->slots = product(p->slot, p->axes);
    double **elements[] = {&p->theta, &p->g, &p->m, &p->second}, **slots[] = {&p->v, &p->b, &p->g2, &p->alpha, &p->rho};
    for (int i = 0; i < 4; i++)
        *elements[i] = zeros(*elements[i], p->size);
    for (int i = 0; i < 5; i++)
        *slots[i] = zeros(*slots[i], p->slots);
    return p;
}

static void set_option(const char *name, const char *value)
{
    for (int i = 0; i < NUMBERS; i++)
        if (is(name, numbers[i].name))
            *numbers[i].at = from_bits(value, 16);
    options.square |= is(value, "inverse-square");
    options.sign |= is(value, "sign");
    options.adam |= is(value, "adam");
}

/* Theta and the state: their names, where they are in a leaf, and how long that is. */
static const char *const parts[2][4] = {{"theta", "v", "b", "m"}, {"theta", "m", "v", ""}};

static double *part_of(const struct leaf *p, const char *part)
{
    double *v = closed ? p->second : p->v;
    return is(part, "theta") ? p->theta : is(part, "m") ? p->m : is(part, "v") ? v : p->b;
}

static long length_of(const struct leaf *p, const char *part)
{
    return closed || is(part, "theta") || is(part, "m") ? p->size : p->slots;
}

/* ---- the protocol ---- */

/* The sigma that is asked for as "init": the root mean square of the first entries, 0.5 if all are 0 or all are 1. */
static double measured(const struct leaf *p)
{
    long zeros = 0, ones = 0;
    double sum = 0;
    for (long i = 0; i < p->size; i++) {
        zeros += p->theta[i] == 0;
        ones += p->theta[i] == 1;
        sum += p->theta[i] * p->theta[i];
    }
    return zeros == p->size || ones == p->size ? 0.5 : sqrt(sum / p->size);
}

static const char *init_leaf(const char *s)
{
    const char *name = s + 1, *o = strchr(s, '{');
    const char *sigma = closed ? member(o, "sigma") : NULL;
    bool measures = sigma && is(sigma + 1, "init");
    double eta = measures ? 0 : number(o, closed ? "sigma" : "eta", 1);
    bool single = is(needed(o, "dtype") + 1, "float32");
    struct leaf *p = add_leaf(name, needed(o, "shape"), needed(o, "slot_shape"), eta, single);
    read_bits(needed(o, "theta"), p->theta, p->size, p->single);
    if (measures)
        p->eta = measured(p);
    return strchr(o, '}') + 1;
}

static void init(const char *message)
{
    const char *s = needed(message, "options"), *value;
    start_case();
    for (; *s++ != '}' && *s == '"'; s = strchr(value, '"') + 1) {
        value = strchr(s, ':') + 2;
        set_option(s + 1, value);
    }
    if (broken)
        options.extra_l2 = -options.extra_l2;
    for (s = needed(message, "leaves"); *s++ != '}' && *s == '"';)
        s = init_leaf(s);
    puts("{\"ok\":true}");
}

static void print_part(const char *part)
{
    printf("%s\"%s\":{", is(part, "theta") ? "" : ",", part);
    for (int i = 0; i < count; i++) {
        const struct leaf *p = &leaves[i];
        printf("%s\"%s\":", i ? "," : "", p->name);
        print_bits(part_of(p, part), length_of(p, part), is(part, "theta") && p->single);
    }
    putchar('}');
}

/* Take the step t of a leaf, whose gradient is in place. */
static void step_leaf(struct leaf *p, double xi)
{
    if (closed)
        step_closed(p, shrink_of(&options, t + late), t, &options);
    else
        step(p, xi, one_minus_power(options.beta, t + 1), &options);
}

static void take_step(const char *message)
{
    const char *grads = needed(message, "grads");
    double xi = number(message, "learning_rate", 0);
    for (int i = 0; i < count; i++) {
        struct leaf *p = &leaves[i];
        const char *g = needed(grads, p->name);
        if (*g != '"')
            continue; /* null: the leaf is skipped, the count goes on */
        read_bits(g, p->g, p->size, p->single);
        step_leaf(p, xi);
    }
    t++;
    putchar('{');
    int shown = closed ? (options.adam ? 3 : 1) : options.momentum != 0 ? 4 : 3;
    for (int which = 0; which < shown; which++)
        print_part(parts[closed][which]);
    puts("}");
}

static void put(const char *message)
{
    const char *values = needed(message, "values");
    for (int which = 0; which < 4; which++) {
        const char *part = parts[closed][which], *of_leaf = member(values, part);
        for (int i = 0; of_leaf && i < count; i++) {
            const struct leaf *p = &leaves[i];
            const char *bits = member(of_leaf, p->name);
            if (bits)
                read_bits(bits, part_of(p, part), length_of(p, part), is(part, "theta") && p->single);
        }
    }
    puts("{\"ok\":true}");
}

/* The next line, with zeros after its end; NULL when there is none. */
static char *read_line(void)
{
    static char *line;
    static size_t room;
    size_t length = 0;
    for (int c; (c = getchar()) != '\n'; line[length++] = (char)c) {
        if (c == EOF)
            return NULL;
        if (length + 32 > room && !(line = realloc(line, room = 2 * room + 4096)))
            die("no memory");
    }
    if (line)
        memset(line + length, 0, 17);
    return line;
}

static void hello(const char *message)
{
    const char *algorithm = member(message, "algorithm");
    closed = algorithm && is(algorithm + 1, "closed-form");
    if (closed)
        puts("{\"protocol\":\"amos-ref-port-2\",\"name\":\"amos.c\",\"options\":[\"alpha_0\",\"half_life\",\"p_0\","
             "\"decay\",\"q\",\"sigma\",\"slot_shape\",\"direction\",\"beta1\",\"beta2\",\"adam_epsilon\",\"epsilon\","
             "\"clip_value\"],\"words\":{\"decay\":[\"inverse-time\",\"inverse-square\"],\"direction\":[\"gradient\","
             "\"adam\",\"sign\"],\"sigma\":[\"init\"]},\"dtypes\":[\"float64\",\"float32\"],\"null_gradients\":true,"
             "\"state\":true,\"put\":true,\"count\":true}");
    else
        puts("{\"protocol\":\"amos-ref-port-1\",\"name\":\"amos.c\",\"options\":[\"learning_rate\",\"eta\","
             "\"slot_shape\",\"beta\",\"momentum\",\"clip_value\",\"extra_l2\",\"c_coef\",\"d_coef\",\"epsilon\"],"
             "\"dtypes\":[\"float64\",\"float32\"],\"null_gradients\":true,\"state\":true,\"put\":true,\"count\":true}");
}

int main(int argc, char **argv)
{
    broken = argc > 1 && !strcmp(argv[1], "--broken=extra_l2-sign");
    late = argc > 1 && !strcmp(argv[1], "--broken=t-from-1");
    for (const char *message; (message = read_line()); fflush(stdout)) {
        const char *call = needed(message, "call");
        if (!strncmp(call, "\"hello\"", 7))
            hello(message);
        else if (!strncmp(call, "\"init\"", 6))
            init(message);
        else if (!strncmp(call, "\"step\"", 6))
            take_step(message);
        else if (!strncmp(call, "\"put\"", 5))
            put(message);
        else if (!strncmp(call, "\"count\"", 7)) {
            t = number(message, "steps", 0);
            puts("{\"ok\":true}");
        } else if (!strncmp(call, "\"bye\"", 5))
            return 0;
        else
            puts("{\"error\":\"unknown call\"}");
    }
    return 0;
}
